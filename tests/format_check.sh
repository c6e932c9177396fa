#!/usr/bin/env bash
# Writes a JUnit report ($1) that says whether clang-format would change a C++ file.
set -euo pipefail
report=$(realpath -m "${1:?the report to write}")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
write() { printf '<testsuite><testcase classname="format" name="clang-format">%s</testcase></testsuite>\n' "$1" >"$report"; }

if ! command -v clang-format-14 >/dev/null; then
  write '<skipped message="clang-format-14 is not installed"/>'
  exit 0
fi
changed=$(find client examples model program server tests -name '*.h' -o -name '*.cc' | sort | while read -r file; do
  clang-format-14 "$file" | cmp -s - "$file" || printf '%s ' "$file"
done)
if [ -n "$changed" ]; then
  write "<failure message=\"clang-format-14 -i would change: $changed\"/>"
  exit 1
fi
write ''
