#!/usr/bin/env bash
# Builds the fuzz targets (preset fuzz: Clang, libFuzzer, AddressSanitizer, UndefinedBehaviorSanitizer) and runs them.
#
#   tests/fuzz/run.sh [--seconds N] [--jobs N] [--report FILE] [TARGET...]
#   tests/fuzz/run.sh --build-only
#
#   --seconds N    for each target; default 60
#   --jobs N       targets that run at the same time; default 1
#   --report FILE  a JUnit report, with one test case per target
#   TARGET         config extension json manifest planner request tokenizer; default all
#
# First it runs the inputs of fixed defects (regressions/), then the seeds and the inputs that earlier runs found (build/fuzz/corpus). The exit status
# is 1 if there is a finding. Its input is kept under build/fuzz/findings.
# shellcheck source=../../deploy/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../deploy/setup.sh"

here=$root/tests/fuzz
build=$root/build/fuzz
all_targets=(config extension json manifest planner request tokenizer)
usage="usage: tests/fuzz/run.sh --build-only | [--seconds N] [--jobs N] [--report FILE] [${all_targets[*]}]"

seconds=60 jobs=1 report='' targets=() build_only=no
while [ $# -gt 0 ]; do
  case $1 in
    --seconds | --jobs)
      [[ ${2-} =~ ^[1-9][0-9]*$ ]] || fail "$1 needs a whole number; $usage"
      if [ "$1" = --seconds ]; then seconds=$2; else jobs=$2; fi
      shift 2
      ;;
    --build-only)
      build_only=yes
      shift
      ;;
    --report)
      report=$(realpath -m "${2:?$usage}")
      shift 2
      ;;
    *)
      [[ " ${all_targets[*]} " == *" $1 "* ]] || fail "unknown argument $1; $usage"
      targets+=("$1")
      shift
      ;;
  esac
done
[ ${#targets[@]} -gt 0 ] || targets=("${all_targets[@]}")

# max_length TARGET: prints the length in bytes beyond which inputs are not worth their time.
max_length() {
  case $1 in
    planner) echo 400 ;;
    extension) echo 1500 ;;
    tokenizer) echo 4096 ;;
    *) echo 6000 ;;
  esac
}

# Converts seeds to the target's format. Seeds of requests are stored as text.
prepare_seeds() {
  local target=$1 out=$2 file
  mkdir -p "$out"
  find "$here/seeds/$target" -type f ! -name '*.textproto' -exec cp -t "$out" {} +
  case $target in
    config) cp "$root/deploy/config.yaml" "$out/sample.yaml" ;;
    tokenizer) cp "$here"/tokenizers/*.json "$out" ;;
    request)
      for file in "$here"/seeds/request/*.textproto; do
        protoc --proto_path="$root/proto" --encode=longembed.v1.EmbedRequest "$root/proto/longembed/v1/embedding.proto" <"$file" >"$out/$(basename "$file" .textproto)"
      done
      ;;
  esac
}

# fuzz TARGET: runs regressions and seeds once, then new inputs. Writes TARGET.status, the log, and the findings.
fuzz() {
  local target=$1 status=0 flags=() inputs=()
  local log=$logs/fuzz/$target.log corpus=$build/corpus/$target findings=$build/findings/$target seeds=$build/seeds/$target
  rm -rf "$seeds" "$findings"
  mkdir -p "$corpus" "$findings" "$logs/fuzz"
  prepare_seeds "$target" "$seeds"
  flags=(-max_len="$(max_length "$target")" -timeout=20 -rss_limit_mb=2048 -artifact_prefix="$findings/" -print_final_stats=1)
  [ ! -f "$here/dictionaries/$target.dict" ] || flags+=(-dict="$here/dictionaries/$target.dict")
  mapfile -t inputs < <(find "$here/regressions/$target" -type f ! -name '.*' 2>/dev/null | sort)
  "$build/fuzzers/${target}_fuzzer" "${flags[@]}" "${inputs[@]}" "$seeds"/* >"$log" 2>&1 || status=$?
  if [ "$status" = 0 ]; then
    timeout --foreground -s INT -k 30 $((seconds + 120)) \
      "$build/fuzzers/${target}_fuzzer" "${flags[@]}" -max_total_time="$seconds" "$corpus" "$seeds" >"$log" 2>&1 || status=$?
  fi
  echo "$status" >"$findings.status"
}

# Prints the last value of a counter in libFuzzer's output.
last_of() { grep -oE "$2" "$logs/fuzz/$1.log" | tail -n 1 | grep -oE '[0-9]+$' || echo 0; }

# Prints one line for TARGET, and adds its case to the report. The finding is the last input that libFuzzer wrote, or the given file at which it
# crashed.
summarize() {
  local target=$1 status input reason case
  status=$(cat "$build/findings/$target.status" 2>/dev/null || echo 1)
  case="<testcase classname=\"fuzz\" name=\"$target\""
  if [ "$status" = 0 ]; then
    printf '%-10s %10s executions %7s exec/s %6s edges %6s inputs  0 findings\n' "$target" "$(last_of "$target" 'stat::number_of_executed_units: +[0-9]+')" \
      "$(last_of "$target" 'stat::average_exec_per_sec: +[0-9]+')" "$(last_of "$target" 'cov: [0-9]+')" "$(last_of "$target" 'corp: [0-9]+')"
    cases+=("$case time=\"$seconds\"/>")
    return
  fi
  input=$(find "$build/findings/$target" -type f | head -n 1)
  [ -n "$input" ] || input=$(grep -oE '^Running: .*' "$logs/fuzz/$target.log" | tail -n 1 | cut -d' ' -f2- || true)
  reason=$(grep -a -m 1 -oE 'this does not hold: .*|not a refusal .*|runtime error: .*|ERROR: (AddressSanitizer|libFuzzer|LeakSanitizer): .*' "$logs/fuzz/$target.log" || echo "exit status $status")
  reason=$(tr -cd '\40-\176' <<<"${reason:0:300}")
  printf '%-10s FINDING: %s\n           replay: %s %s\n' "$target" "$reason" "build/fuzz/fuzzers/${target}_fuzzer" "${input#"$root"/}"
  # The log must contain everything, because the input is not available on another machine.
  grep -a -m 8 -oE '^ +#[0-9]+ .*' "$logs/fuzz/$target.log" | sed 's/^/  /' || true
  if [ -f "$input" ]; then printf '           as base64: %s\n' "$(base64 -w 0 "$input")"; fi
  cases+=("$case><failure message=\"$(sed 's/&/\&amp;/g; s/</\&lt;/g; s/"/\&quot;/g' <<<"$reason") (input: ${input#"$root"/})\"/></testcase>")
  found=1
}

install_packages clang-19 libclang-rt-19-dev llvm-19 "${debian_packages[@]}"
install_rust
export ASAN_SYMBOLIZER_PATH=/usr/lib/llvm-19/bin/llvm-symbolizer
# AddressSanitizer keeps every stack that it has seen. Libraries without frame pointers produce new stacks endlessly, which takes gigabytes in an
# hour. A manual replay shows whole stacks.
export ASAN_OPTIONS=malloc_context_size=1:quarantine_size_mb=64
export UBSAN_OPTIONS=print_stacktrace=1
# build() is not used, because only the fuzz targets of the preset are needed.
configure fuzz
say "building the fuzz targets (about 4 minutes on 2 cores the first time)"
run_logged build-fuzz.log "the fuzz targets could not be built; the lines above say where" cmake --build "$build" --parallel "$(build_jobs)" --target longembed_fuzzers
[ "$build_only" = no ] || exit 0

rm -f "$build"/findings/*.status
say "fuzzing for $seconds s each: ${targets[*]}"
set -m # Each job gets its own process group, so that an interrupted run leaves no job behind.
trap 'for job in $(jobs -rp); do kill -INT -- "-$job"; done; exit 130' INT TERM
for target in "${targets[@]}"; do
  while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n || true; done
  fuzz "$target" &
done
wait
found=0 cases=()
for target in "${targets[@]}"; do summarize "$target"; done
if [ -n "$report" ]; then
  mkdir -p "$(dirname "$report")"
  printf '<testsuite name="fuzz">%s</testsuite>\n' "${cases[*]}" >"$report"
fi
exit "$found"
