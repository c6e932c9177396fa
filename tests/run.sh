#!/usr/bin/env bash
# Sets up, builds, and runs every test; the last line is "N passed, N failed, N skipped".
#
#   tests/run.sh                      the release build: C++ and Python tests, tests/tidy
#   tests/run.sh --preset NAME        C++ tests only, under another preset: dev, asan-ubsan, tsan
# shellcheck source=../deploy/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/../deploy/setup.sh"

case "$*" in
  "") preset=release ;;
  "--preset release" | "--preset dev" | "--preset asan-ubsan" | "--preset tsan") preset=$2 ;;
  *) fail "unknown arguments $*; usage: tests/run.sh [--preset release|dev|asan-ubsan|tsan]" ;;
esac
reports=$root/build/reports/$preset
suites=()

# begin NAME COMMAND...: starts a suite that writes NAME.xml, with its output in a log. Without --default-signal, processes that bash starts in the
# background would ignore Ctrl-C, and so would every program that a test interrupts.
declare -A started
begin() {
  local name=$1
  shift
  (cd "$root" && exec env --default-signal=INT,QUIT "$@") >"$(log_of "$name")" 2>&1 &
  started[$name]=$!
}

log_of() { printf '%s/%s-%s.log' "$logs" "$1" "$preset"; }

# finish NAME: waits for the suite. If it fails although its report names no failure (it crashed, hung, or lacked a program), that counts as a failure
# of its own.
finish() {
  local name=$1 status=0
  wait "${started[$name]}" || status=$?
  suites+=("$name")
  [ "$status" != 0 ] || return 0
  say "$name failed; the end of $(log_of "$name"):"
  tail -n 200 "$(log_of "$name")" >&2
  if ! grep -qE '<failure|<error|status="fail"' "$reports/$name.xml" 2>/dev/null; then
    printf '<testsuite><testcase classname="%s" name="runner"><failure message="exit status %d"/></testcase></testsuite>\n' \
      "$name" "$status" >"$reports/$name-runner.xml"
    suites+=("$name-runner")
  fi
}

# The largest model takes as long as the others together. Each export runs on one thread.
export_models() {
  (for model in e5-small-v2 bge-small-en-v1.5 all-MiniLM-L6-v2; do export_model "$model" >/dev/null; done) &
  local others=$!
  export_model SmolLM2-135M-Instruct >/dev/null
  wait "$others" || fail "an export failed; the lines above say why"
}

begin_ctest() {
  # Tests run one at a time, because encoders on the same cores slow each other down many times over.
  begin ctest timeout --foreground -s INT -k 60 1800 ctest --preset "$preset" --output-junit "$reports/ctest.xml"
}

# begin_pytest NAME ARGUMENTS...: starts a suite of Python tests.
begin_pytest() {
  local name=$1
  shift
  # Libraries use one thread each. The OpenMP threads of oracles busy-wait next to the server that they are compared with, and two of them are very
  # slow on two cores.
  begin "$name" env OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 PYTHONPATH="$root" timeout --foreground -s INT -k 60 2400 \
    "$venv/bin/python" -m pytest "$@" -q -rs --disable-warnings --junitxml "$reports/$name.xml"
}

# Suites run several at a time, because tests wait for servers, and servers for tests. Suites that measure a server under load run alone, except for
# the build of the fuzz targets, which uses idle time of the cores.
run_release_suites() {
  local integration=tests/integration ignored=() file
  # Tests that compare vectors with formulas take as long as all other tests of a server together.
  local vectors=($integration/test_{families,large_model,long_spans,methods,precision,real_weights,sparse,token_vectors,truncation,vectors}.py)
  for file in "${vectors[@]}"; do ignored+=(--ignore="$file"); done
  # These operational tests check no times, so they may run next to other suites.
  local timeless=("tests/operations/test_operations.py::test_short_form["{auth_matrix,cleanup}".py]")

  export_models
  say "C++ tests; beside them Python tests of the exporter, training, the chart and watching (output: build/logs/NAME-release.log)"
  # If this fails, the fuzz suite builds again and fails with the reason.
  begin fuzz-build nice -n 19 "$root/tests/fuzz/run.sh" --build-only
  begin_pytest offline tests --ignore=tests/client --ignore=tests/integration --ignore=tests/operations --ignore=tests/tidy --ignore=tests/watching
  begin_pytest watching tests/watching
  begin_ctest
  finish ctest
  finish watching
  say "Python tests of vectors, of the server, of the Python package and its adapters"
  begin_pytest vectors "${vectors[@]}"
  begin_pytest server $integration "${ignored[@]}" "${timeless[@]}"
  begin_pytest client tests/client
  begin_pytest tidy tests/tidy
  finish tidy
  finish vectors
  finish server
  finish client
  finish offline
  say "Python tests of operations, which leave half of the cores idle; there, fuzzing, 10 seconds a target"
  begin_pytest operations tests/operations "${timeless[@]/#/--deselect=}"
  wait "${started[fuzz-build]}" || true
  begin fuzz nice -n 19 "$root/tests/fuzz/run.sh" --seconds 10 --jobs 2 --report "$reports/fuzz.xml"
  finish operations
  finish fuzz
}

# The kernels for Arm are cross-compiled and run in an emulator (tests/arm64), if the package sources have the tools.
install_arm64_tools() {
  dpkg --print-foreign-architectures | grep -qx arm64 || as_root dpkg --add-architecture arm64 || return
  (install_packages g++-12-aarch64-linux-gnu qemu-user libabsl-dev:arm64 libgmock-dev:arm64 libgtest-dev:arm64) || {
    as_root dpkg --remove-architecture arm64
    return 1
  }
}

set_up
install_test_packages
if [ "$preset" = release ]; then
  # Programs that monitor and balance the service. Debian may start prometheus and haproxy as services.
  install_packages prometheus haproxy openssl curl
  # These versions matter. Other systems lack them, and the checks are skipped there.
  [ "$(debian_version)" != 12 ] || install_packages clang-format-14 clang-19
  install_python_package
  # Packages for the documentation site, which tests/docs builds.
  install_python docs "$root/docs/requirements.txt"
fi
if [ "$preset" = release ] && [ "$(debian_version)" = 12 ] && [ "$(uname -m)" = x86_64 ]; then
  install_arm64_tools || say "tests/arm64 will be skipped"
fi
build "$preset"
rm -rf "$reports"
mkdir -p "$reports"
if [ "$preset" = release ]; then
  run_release_suites
else
  say "C++ tests ($preset; output: build/logs/ctest-$preset.log)"
  begin_ctest
  finish ctest
fi
say "finished; reports: build/reports/$preset"
"$venv/bin/python" "$root/tests/summary.py" "$reports" "${suites[@]}"
