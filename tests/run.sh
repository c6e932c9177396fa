#!/usr/bin/env bash
# Sets up, builds, and runs every test; the last line is "N passed, N failed, N skipped".
#
#   tests/run.sh                      the release build: C++ and Python tests, format
#   tests/run.sh --preset NAME        C++ tests only, under another preset: dev, asan-ubsan, tsan
# shellcheck source=../deploy/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/../deploy/setup.sh"

case "${1-} ${2-}" in
  " ") preset=release ;;
  "--preset release" | "--preset dev" | "--preset asan-ubsan" | "--preset tsan") preset=$2 ;;
  *) fail "unknown arguments $*; usage: tests/run.sh [--preset release|dev|asan-ubsan|tsan]" ;;
esac
reports=$root/build/reports/$preset
suites=()

# runner NAME COMMAND...: runs a suite that writes NAME.xml. A runner that fails although its report names no failure (it crashed, hung, or lacked a
# program) counts as a failure of its own.
runner() {
  local name=$1 status=0
  shift
  (cd "$root" && "$@") || status=$?
  suites+=("$name")
  if [ "$status" != 0 ] && ! grep -qE '<failure|<error|status="fail"' "$reports/$name.xml" 2>/dev/null; then
    printf '<testsuite><testcase classname="%s" name="runner"><failure message="exit status %d"/></testcase></testsuite>\n' \
      "$name" "$status" >"$reports/$name-runner.xml"
    suites+=("$name-runner")
  fi
}

run_ctest() {
  # One at a time: encoders on both cores slow each other down many times over.
  timeout --foreground -s INT -k 60 1800 ctest --preset "$preset" --output-junit "$reports/ctest.xml" >"$logs/ctest-$preset.log" 2>&1
}

run_pytest() {
  # One thread each: the oracles' OpenMP threads spin beside the server that they are compared with, and two crawl where there are two cores.
  OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 PYTHONPATH=$root timeout --foreground -s INT -k 60 2400 \
    "$venv/bin/python" -m pytest tests -q -rs --disable-warnings --junitxml "$reports/pytest.xml"
}

set_up
if [ "$preset" = release ]; then
  # What the service is watched and balanced with. Debian would start both as services where it can.
  install_packages prometheus haproxy openssl curl
  # The formatter's version matters; where there is no such version the check is skipped.
  [ "$(debian_version)" != 12 ] || install_packages clang-format-14
  install_python_package
fi
build "$preset"
rm -rf "$reports"
mkdir -p "$reports"
if [ "$preset" = release ]; then
  for model in e5-small-v2 bge-small-en-v1.5 all-MiniLM-L6-v2 SmolLM2-135M-Instruct; do export_model "$model" >/dev/null; done
fi
say "C++ tests ($preset; output: build/logs/ctest-$preset.log)"
runner ctest run_ctest
if [ "$preset" = release ]; then
  say "Python tests: exporter, training, the Python package and its adapters, the server, operations, chart, watching (about 15 minutes)"
  runner pytest run_pytest
  runner format "$root/tests/format_check.sh" "$reports/format.xml"
  say "fuzzing, 20 seconds a target"
  runner fuzz "$root/tests/fuzz/run.sh" --seconds 20 --jobs 2 --report "$reports/fuzz.xml"
fi
say "finished; reports: build/reports/$preset"
"$venv/bin/python" "$root/tests/summary.py" "$reports" "${suites[@]}"
