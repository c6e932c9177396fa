#!/usr/bin/env bash
# Makes this machine ready: Debian packages, a Python environment with LibTorch in it, the C++ build, and exported models. Every step looks first whether
# there is anything to do, so that a second run takes seconds.
#
#   deploy/setup.sh [MODEL...]     MODEL: a name, checkpoint folder or hub name that model/export takes; default e5-small-v2
#
# Sourced by deploy/quickstart.sh and tests/run.sh for its functions.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/build/venv
debian_packages=(
  build-essential cmake ninja-build pkg-config git ca-certificates curl
  libgrpc++-dev protobuf-compiler protobuf-compiler-grpc libprotobuf-dev libabsl-dev libssl-dev
  prometheus-cpp-dev libyaml-cpp-dev nlohmann-json3-dev libcli11-dev libgtest-dev libgmock-dev libbenchmark-dev
  python3 python3-venv default-jre-headless maven
)

say() { printf '%s[%4ds]%s %s\n' "${bold-}" "$SECONDS" "${plain-}" "$*" >&2; }
fail() {
  printf '%serror:%s %s\n' "${bold-}" "${plain-}" "$*" >&2
  exit 1
}
if [ -t 2 ]; then bold=$'\e[1m' plain=$'\e[0m'; fi

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null; then sudo "$@"; else return 1; fi
}

# run_logged LOG ADVICE COMMAND...: hides the output of a command unless it fails.
run_logged() {
  local log=$root/build/logs/$1 advice=$2
  shift 2
  mkdir -p "$root/build/logs"
  if ! "$@" >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    fail "$advice (whole output: ${log#"$root"/})"
  fi
}

install_packages() {
  local missing=() package
  for package in "$@"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)" = installed ] || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  say "installing Debian packages: ${missing[*]}"
  [ "$(id -u)" = 0 ] || command -v sudo >/dev/null ||
    fail "packages are missing and this user may not install them; run as root: apt-get install ${missing[*]}"
  run_logged apt.log "apt-get failed; check the network and the package sources, then run this again" \
    as_root sh -c "apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ${missing[*]}"
}

# A cargo that is new enough for the tokenizers crate: the user's, else the one that Debian carries for its browsers.
install_rust() {
  local version
  [ -d "$HOME/.cargo/bin" ] && PATH=$HOME/.cargo/bin:$PATH
  version=$(cargo --version 2>/dev/null | awk '{print $2}' || true)
  if [ -n "$version" ] && printf '1.80.0\n%s\n' "$version" | sort -VC; then return 0; fi
  install_packages cargo-web rustc-web
}

install_python() {
  local wanted
  wanted=$(cat "$root/model/export/requirements.txt" "$root/tests/requirements.txt" | sha256sum)
  [ "$(cat "$venv/.installed" 2>/dev/null || true)" != "$wanted" ] || return 0
  say "installing torch and transformers into build/venv (about 3 GB to download, 6 GB on disk)"
  [ -x "$venv/bin/pip" ] || run_logged venv.log "python3 -m venv failed; install python3-venv" python3 -m venv "$venv"
  run_logged pip.log "pip failed; check the network and run this again" \
    "$venv/bin/pip" install --disable-pip-version-check --no-cache-dir \
    -r "$root/model/export/requirements.txt" -r "$root/tests/requirements.txt"
  printf '%s' "$wanted" >"$venv/.installed"
}

# build PRESET: configures and builds; prints a line for each twentieth of the work.
build() {
  local preset=$1 log=$root/build/logs/build-$1.log
  mkdir -p "$root/build/logs"
  [ -f "$root/build/$preset/build.ninja" ] || say "configuring the C++ build ($preset)"
  run_logged "configure-$preset.log" "cmake could not configure the build" \
    cmake -S "$root" --preset "$preset" -Wno-dev
  if ninja -C "$root/build/$preset" -n | grep -q 'no work to do'; then return 0; fi
  say "building $preset (about 5 minutes on 2 cores the first time)"
  if ! NINJA_STATUS='[%f/%t] ' cmake --build "$root/build/$preset" 2>&1 | tee "$log" | show_progress; then
    grep -E -m 5 -A 5 'error|FAILED' "$log" >&2 || tail -n 20 "$log" >&2
    fail "the build failed (whole output: ${log#"$root"/})"
  fi
}

show_progress() {
  awk -v start="$SECONDS" '/^\[[0-9]+\/[0-9]+\]/ {
    split(substr($1, 2), count, "[/\\]]")
    step = int(20 * count[1] / count[2])
    if (step != shown) { shown = step; printf "        built %d of %d\n", count[1], count[2] > "/dev/stderr" }
  }'
}

# export_model SOURCE: into models/NAME; prints the folder.
export_model() {
  local source=$1 out=$root/models/${1##*/}
  [ ! -f "$source/longembed-model.yaml" ] || { printf '%s\n' "$source"; return 0; }
  (cd "$root" && "$venv/bin/python" -m model.export "$source" --out "$out") >&2 ||
    fail "the model $source could not be exported; the sentence above says why"
  printf '%s\n' "$out"
}

set_up() {
  [ -r /etc/debian_version ] || fail "this script installs Debian packages; on another system install what it lists and build with cmake --preset release"
  install_packages "${debian_packages[@]}"
  install_rust
  install_python
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
  [ $# -gt 0 ] || set -- e5-small-v2
  set_up
  build release
  for model in "$@"; do export_model "$model" >/dev/null; done
  say "ready: build/release/longembed-server --config deploy/config.yaml"
fi
