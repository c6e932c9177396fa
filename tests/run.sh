#!/usr/bin/env bash
# Sets up, builds, and runs every test; the last line is "N passed, N failed, N skipped".
#
#   tests/run.sh                      the release build: C++ and Python tests
#   tests/run.sh --preset NAME        C++ tests only, under another preset: dev, asan-ubsan, tsan
source "$(dirname "${BASH_SOURCE[0]}")/../deploy/setup.sh"

preset=release
case ${1-} in
  "") ;;
  --preset) preset=${2:?--preset needs a name: dev, asan-ubsan or tsan} ;;
  *) fail "unknown argument $1; usage: tests/run.sh [--preset NAME]" ;;
esac
reports=$root/build/reports/$preset
rm -rf "$reports"
mkdir -p "$reports"

run_ctest() {
  say "C++ tests ($preset)"
  # One at a time: encoders on both cores slow each other down many times over.
  (cd "$root" && ctest --preset "$preset" --output-junit "$reports/ctest.xml" >"$root/build/logs/ctest-$preset.log" 2>&1) || true
}

run_pytest() {
  say "Python tests: exporter, and the server through a Python client (a few minutes)"
  (cd "$root" && PYTHONPATH=$root "$venv/bin/python" -m pytest tests -q -rs --junitxml "$reports/pytest.xml") || true
}

run_format_check() {
  say "format"
  "$root/tests/format_check.sh" "$reports/format.xml"
}

set_up
[ "$preset" != release ] || install_packages clang-format-14
build "$preset"
if [ "$preset" = release ]; then
  for model in e5-small-v2 bge-small-en-v1.5 all-MiniLM-L6-v2; do export_model "$model" >/dev/null; done
fi
suites=(ctest)
run_ctest
if [ "$preset" = release ]; then
  run_pytest
  run_format_check
  suites+=(pytest format)
fi
"$venv/bin/python" "$root/tests/summary.py" "$reports" "${suites[@]}"
