#!/usr/bin/env bash
# Sets this machine up: Debian packages, a Python environment with LibTorch in it, the C++ build, and exported models. Every step is skipped if it is
# done, so that a second run takes seconds. An interrupted run continues when it is started again.
#
#   deploy/setup.sh [MODEL...]     MODEL: a name, checkpoint folder or hub name that model/export takes; default e5-small-v2
#
#   LIBTORCH=DIR, or CMAKE_PREFIX_PATH, names a LibTorch of your own for the C++ side; else the Python environment's is used.
#   DEVICE=cpu|cuda   whether the Python environment gets the CUDA libraries, 2.5 of 3 GB; default cuda where there is an NVIDIA driver, else cpu
#
# Sourced by deploy/quickstart.sh and tests/run.sh for its functions.
set -euo pipefail

root=$(CDPATH="" cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/build/venv
logs=$root/build/logs
debian_packages=(
  build-essential cmake ninja-build pkg-config ccache git ca-certificates curl
  libgrpc++-dev libjemalloc-dev protobuf-compiler protobuf-compiler-grpc libprotobuf-dev libabsl-dev libssl-dev
  libboost-dev prometheus-cpp-dev libmicrohttpd-dev libyaml-cpp-dev nlohmann-json3-dev libcli11-dev libgtest-dev libgmock-dev libbenchmark-dev
  python3 python3-venv default-jre-headless maven
)

device=${DEVICE-}
if [ -z "$device" ]; then
  if [ -e /proc/driver/nvidia/version ] || [ -e /dev/nvidiactl ]; then device=cuda; else device=cpu; fi
fi
# Programs that the C++ build makes for users.
programs=(longembed-server longembed longembed-embed-texts)

# Python without bytecode compiles torch and transformers again at every start, for 7 seconds.
unset PYTHONDONTWRITEBYTECODE

# Packages are in build/venv alone, and model/ in this tree. A shell that is set up for another Python, or for pip --user, would bring others, or put ours elsewhere.
unset PYTHONPATH PYTHONHOME PYTHONSAFEPATH PIP_TARGET PIP_PREFIX PIP_ROOT
export PIP_USER=0

# The scripts read what tools print: numbers with a point, which awk and bash write and expect with a comma in other languages, and a compiler's "error:".
export LC_ALL=C.UTF-8

# A proxy for downloads (http_proxy) cannot reach the servers that the scripts start here.
no_proxy=127.0.0.1,localhost${no_proxy:+,$no_proxy}${NO_PROXY:+,$NO_PROXY}
export no_proxy NO_PROXY=$no_proxy

# The scripts start servers with configs of their own, and call those. A shell that is set up for another server must not change either.
unset "${!LONGEMBED__@}" LONGEMBED_SERVER

# Debian has haproxy where only root looks for programs.
PATH=$PATH:/usr/sbin:/sbin

bold='' plain=''
if [ -t 2 ]; then bold=$'\e[1m' plain=$'\e[0m'; fi
say() { printf '%s[%4ds]%s %s\n' "$bold" "$SECONDS" "$plain" "$*" >&2; }
fail() {
  printf '%serror:%s %s\n' "$bold" "$plain" "$*" >&2
  exit 1
}

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# run_logged LOG ADVICE COMMAND...: hides the output of a command unless it fails.
run_logged() {
  local log=$logs/$1 advice=$2
  shift 2
  mkdir -p "$logs"
  if ! "$@" >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    fail "$advice (whole output: ${log#"$root"/})"
  fi
}

# alone NAME COMMAND...: runs the command after any other run of these scripts in this tree that has begun one by this NAME. Two at once would write the same files.
alone() {
  local lock=$root/build/$1.lock
  shift
  mkdir -p "$root/build"
  (
    flock --nonblock 9 || {
      say "waiting for another run of these scripts (flock of ${lock#"$root"/})"
      flock 9
    }
    "$@"
  ) 9>"$lock"
}

# debian_version: 12 on bookworm; nothing on testing and on other systems.
debian_version() { sed -n 's/^VERSION_ID="\?\([0-9]*\).*/\1/p' /etc/os-release; }

# apt_get ARGUMENTS...: runs apt-get as root. A machine that has just started may be upgrading itself: apt waits for the lock on packages, but not for that on their lists.
apt_get() {
  local said name until=$((SECONDS + 600)) settings=(DEBIAN_FRONTEND=noninteractive "LC_ALL=$LC_ALL")
  # sudo passes no proxy on.
  for name in http_proxy https_proxy no_proxy; do [ -z "${!name-}" ] || settings+=("$name=${!name}"); done
  until said=$(as_root env "${settings[@]}" apt-get -o DPkg::Lock::Timeout=600 "$@" 2>&1); do
    if [[ $said != *'Could not get lock'* ]] || [ "$SECONDS" -ge "$until" ]; then
      printf '%s\n' "$said"
      return 1
    fi
    sleep 5
  done
  printf '%s\n' "$said"
}

update_and_install() { apt_get update && apt_get install -y --no-install-recommends "$@"; }

install_packages() {
  local missing=() package installed
  installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n${db:Status-Status} ${Package}:${Architecture}\n' "$@" 2>/dev/null || true)
  for package in "$@"; do
    grep -qxF "installed $package" <<<"$installed" || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  [ "$(id -u)" = 0 ] || command -v sudo >/dev/null ||
    fail "packages are missing and this user may not install them; run as root: apt-get install ${missing[*]}"
  say "installing Debian packages: ${missing[*]}"
  run_logged apt.log "apt-get failed; check the network and the package sources, then run this again" \
    update_and_install "${missing[@]}"
}

cargo_is_new_enough() {
  local version
  version=$(cargo --version 2>/dev/null | awk '{ print $2 }' || true)
  [ -n "$version" ] && printf '1.85.0\n%s\n' "$version" | sort -VC
}

# A cargo that is new enough for the tokenizers crate: the user's, else Debian's; Debian 12's is too old, except the one packaged for browsers.
install_rust() {
  [ ! -d "${HOME-}/.cargo/bin" ] || PATH=$HOME/.cargo/bin:$PATH
  ! cargo_is_new_enough || return 0
  if [ "$(debian_version)" = 12 ]; then install_packages cargo-web rustc-web; else install_packages cargo rustc; fi
  PATH=/usr/bin:$PATH
  cargo_is_new_enough || fail "Rust 1.85 or newer is needed and $(command -v cargo || echo cargo) is not; install it with rustup, then run this again"
}

show_pip_progress() {
  local line
  while read -r line; do
    case $line in
      Downloading*' ('[1-9][0-9][0-9]*' MB)') say "  ${line/Downloading/downloading}" ;;
      Installing*) say "  unpacking $(wc -w <<<"${line#*: }") packages" ;;
    esac
  done
}

# pip_install ARGUMENTS...: installs into build/venv, and shows large downloads.
pip_install() {
  local log=$logs/pip.log
  mkdir -p "$logs"
  # Python compiles what is imported; all 20,000 files would take half a minute.
  if ! PYTHONUNBUFFERED=1 "$venv/bin/python" -m pip install --disable-pip-version-check --no-cache-dir --no-compile --progress-bar off "$@" 2>&1 |
    tee "$log" | show_pip_progress; then
    grep -E -m 5 '^ERROR' "$log" >&2 || tail -n 5 "$log" >&2
    fail "pip failed; check the network and run this again (whole output: ${log#"$root"/})"
  fi
}

# is_installed NAME WANTED: whether build/venv holds the packages NAME as of the checksum WANTED. mark_installed NAME WANTED: records that it does.
is_installed() { [ -x "$venv/bin/python" ] && [ "$(cat "$venv/.installed-$1" 2>/dev/null)" = "$2" ]; }
mark_installed() { printf '%s\n' "$2" >"$venv/.installed-$1"; }

# Python's torch asks the loader for all of CUDA. Without a GPU nothing calls it, and empty libraries suffice.
stand_in_for_cuda() {
  local lib=$1 name
  for name in $(ldd "$lib/libtorch_python.so" | awk '/not found/ { print $1 }' | sort -u); do
    cc -shared -nostdlib -Wl,-soname,"$name" -o "$lib/$name" -x c /dev/null
  done
}

# Removes requirements that only GPUs need, which pip would install.
leave_cuda_out() {
  local packages=$1
  stand_in_for_cuda "$packages/torch/lib"
  # Python would look up missing symbols at load; the loader does so at the first call.
  echo 'import os, sys; sys.setdlopenflags(os.RTLD_LAZY)' >"$packages/longembed-without-cuda.pth"
  sed -i '/^Requires-Dist: .*platform_system == "Linux"/d' "$packages"/torch-*.dist-info/METADATA
}

# has_own_libtorch: whether the user names one. CMAKE_PREFIX_PATH may be set for other libraries.
has_own_libtorch() {
  local folder folders
  [ -z "${LIBTORCH-}" ] || return 0
  IFS=: read -ra folders <<<"${CMAKE_PREFIX_PATH-}"
  for folder in "${folders[@]}"; do
    [ ! -e "$folder/include/torch/script.h" ] || return 0
  done
  return 1
}

torch_requirement() { grep '^torch==' "$root/model/export/requirements.txt"; }

# venv_is_of_another_python: whether the system's Python has been upgraded since build/venv was made. It then looks for packages in another folder.
venv_is_of_another_python() {
  local made
  made=$(sed -n 's/^version = \([0-9]*\.[0-9]*\).*/\1/p' "$venv/pyvenv.cfg" 2>/dev/null || true)
  [ -n "$made" ] && [ "$("$venv/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')" != "$made" ]
}

has_libtorch() { is_installed libtorch "$(torch_requirement) $device" && ! venv_is_of_another_python; }

# The wheel of torch alone, which has the LibTorch that the server links.
install_libtorch() { has_libtorch || alone venv install_libtorch_alone; }

install_libtorch_alone() {
  local packages cuda
  ! has_libtorch || return 0
  case $device in cpu | cuda) ;; *) fail "DEVICE is $device; it must be cpu or cuda" ;; esac
  mkdir -p "$logs"
  [ -d "$venv" ] || [ "$(df --output=avail -k "$logs" | tail -n 1)" -gt 8000000 ] || fail "less than 8 GB is free in $root; make room, then run this again"
  # Folders made for another device lack libraries, or have some that are not used.
  if [ -e "$venv/.installed-libtorch" ] || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    run_logged venv.log "python3 -m venv failed; install python3-venv, then run this again" python3 -m venv --clear "$venv"
  fi
  say "installing $(torch_requirement) into build/venv (0.5 GB to download, 1.2 GB on disk)"
  pip_install --no-deps "$(torch_requirement)"
  packages=$(echo "$venv"/lib/python3*/site-packages)
  # libtorch_cpu.so is linked with these two CUDA libraries. A wheel without CUDA names no toolkit.
  cuda=$(sed -n 's/^Requires-Dist: cuda-toolkit\[.*\]\(==[0-9.]*\).*/\1/p' "$packages"/torch-*.dist-info/METADATA)
  [ -z "$cuda" ] || pip_install "cuda-toolkit[cudart,cupti]$cuda"
  [ "$device" = cuda ] || leave_cuda_out "$packages"
  mark_installed libtorch "$(torch_requirement) $device"
}

# install_python NAME REQUIREMENTS...: installs what these files list into build/venv, and records it as NAME.
install_python() {
  install_libtorch
  alone venv install_python_alone "$@"
}

install_python_alone() {
  local name=$1 wanted
  shift
  wanted=$(cat "$venv/.installed-libtorch" "$@" | sha256sum)
  ! is_installed "$name" "$wanted" || return 0
  say "installing the Python packages of $name into build/venv"
  pip_install "${@/#/--requirement=}"
  mark_installed "$name" "$wanted"
}

install_test_packages() { install_python tests "$root/tests/requirements.txt"; }
install_exporter() { install_python exporter "$root/model/export/requirements.txt"; }

# The Python package, from this tree, and the libraries that its adapters are tried against. It is installed again when its requirements, build files, protos or retry policy have changed.
install_python_package() { alone venv install_python_package_alone; }

install_python_package_alone() {
  local package=$root/client/python requirements=$root/tests/client/python/requirements.txt wanted
  wanted=$(cat "$requirements" "$package/pyproject.toml" "$package/setup.py" "$root"/proto/*/*/*.proto "$root/deploy/client/retry_service_config.json" | sha256sum)
  ! is_installed package "$wanted" || return 0
  say "installing the Python package and the libraries that it has adapters for into build/venv"
  pip_install --requirement="$requirements"
  pip_install --no-deps --no-build-isolation --editable "$package"
  mark_installed package "$wanted"
}

# A line for each tenth of the work. While cargo runs ninja is silent, so its crates are counted too.
show_build_progress() {
  local line shown=0 tenth crates=0
  while read -r line; do
    if [[ $line =~ ^Compiling ]]; then
      [ $((crates++ % 20)) != 0 ] || say "  Rust tokenizer: crate $crates, ${line#Compiling }"
    fi
    if [[ $line =~ ^\[([0-9]+)/([0-9]+)\] ]]; then
      tenth=$((10 * BASH_REMATCH[1] / BASH_REMATCH[2]))
      [ "$tenth" = "$shown" ] || say "  built ${BASH_REMATCH[1]} of ${BASH_REMATCH[2]}"
      shown=$tenth
    fi
  done
}

# configure PRESET [OPTION...]: a LibTorch or cargo that is named now overrides one that an earlier configure found. If that LibTorch is gone, it is looked for again.
configure() { alone "build-$1" configure_alone "$@"; }

configure_alone() {
  local preset=$1 found=(-D "CARGO=$(command -v cargo)" "${@:2}") earlier
  earlier=$(sed -n 's/^LONGEMBED_TORCH_CPU:FILEPATH=\(\/.*\)/\1/p' "$root/build/$preset/CMakeCache.txt" 2>/dev/null || true)
  if has_own_libtorch || [ ! -e "${earlier:-/}" ]; then found+=(-U 'LONGEMBED_TORCH_[IC]*' -D "LONGEMBED_LIBTORCH=${LIBTORCH-}"); fi
  [ -f "$root/build/$preset/build.ninja" ] || say "configuring the C++ build ($preset)"
  run_logged "configure-$preset.log" "cmake could not configure the build; the lines above say what it lacks" \
    cmake -S "$root" --preset "$preset" -Wno-dev "${found[@]}"
}

# show_build_errors LOG: messages of a compiler, cargo or the linker, not files and crates that are named after errors.
show_build_errors() {
  grep -E -m 5 -A 5 '(^| )(fatal )?error(\[[A-Z0-9]+\])?: |^FAILED|undefined reference' "$1" >&2 || tail -n 20 "$1" >&2
}

# build_jobs: one for each core, as far as there is memory: a compiler of LibTorch's headers takes up to 1.5 GB. CMAKE_BUILD_PARALLEL_LEVEL overrides it.
build_jobs() {
  local cores memory
  cores=$(nproc)
  memory=$(awk '/^MemAvailable/ { print int($2 / 1500000) }' /proc/meminfo)
  printf '%d\n' "${CMAKE_BUILD_PARALLEL_LEVEL:-$((memory < 1 ? 1 : memory < cores ? memory : cores))}"
}

# compile PRESET TARGET...: builds what is configured.
compile() { alone "build-$1" compile_alone "$@"; }

compile_alone() {
  local preset=$1 log=$logs/build-$1.log
  shift
  if [[ $(ninja -C "$root/build/$preset" -n "$@") == *'no work to do'* ]]; then return 0; fi
  say "building $preset: ${*:-everything}"
  if ! NINJA_STATUS='[%f/%t] ' cmake --build "$root/build/$preset" --parallel "$(build_jobs)" --target "${@:-all}" 2>&1 | tee "$log" | show_build_progress; then
    show_build_errors "$log"
    fail "the build failed; the lines above say where (whole output: ${log#"$root"/})"
  fi
}

# build PRESET [TARGET...]: configures and builds; without targets everything.
build() {
  configure "$1"
  compile "$@"
}

# export_model MODEL: into models/NAME, unless it is a model directory already; prints the folder.
export_model() {
  local source=$1 out
  [ ! -d "$source" ] || source=$(realpath "$source")
  if [ -f "$source/longembed-model.yaml" ]; then
    printf '%s\n' "$source"
    return 0
  fi
  out=$root/models/${source##*/}
  (cd "$root" && "$venv/bin/python" -m model.export "$source" --out "$out") >&2 ||
    fail "the model $source could not be exported; the sentence above says why"
  printf '%s\n' "$out"
}

check_system() {
  [ -r /etc/debian_version ] || fail "this script installs Debian packages; on another system install what it lists and build with cmake --preset release"
}

set_up() {
  check_system
  install_packages "${debian_packages[@]}"
  install_rust
  install_exporter
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
  [ $# -gt 0 ] || set -- e5-small-v2
  for model in "$@"; do
    case $model in "" | -*) fail "unknown argument '$model'; usage: deploy/setup.sh [MODEL...]" ;; esac
  done
  set_up
  build release "${programs[@]}"
  for model in "$@"; do export_model "$model" >/dev/null; done
  say "ready: build/release/longembed-server --config deploy/config.yaml"
fi
