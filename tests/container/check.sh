#!/usr/bin/env bash
# Tests the Dockerfile without a container engine: runs its steps in clean Debian roots (run_dockerfile.py), checks the image's tree, and runs it like
# a container (check_runtime.py). Prints the time of each step, sizes by part, and what was checked.
#
#   tests/container/check.sh FOLDER [--build-arg NAME=VALUE]... [--context DIR] [--config FILE] [--keep]
#
#   FOLDER        where the roots are made; 5 GB of disk, 15 with MODEL or DEVICE=cuda. The bare root and the cache mounts stay there for the next run.
#   --build-arg   as docker build's: MODEL=e5-small-v2, DEVICE=cuda, LIBTORCH=DIR. Without MODEL this checkout's models/ is mounted.
#   --context     the sources; default: this checkout
#   --config      mounted over the image's configuration
#   --keep        leaves the image's tree in FOLDER/image
#
# Needs root, debootstrap and overlayfs. 10 minutes on 2 cores the first time; CI has the short form, tests/container/test_container.py.
set -euo pipefail

here=$(CDPATH="" cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repository=$(realpath "$here/../..")

fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# Makes a Debian root like the image debian:bookworm-slim, except that files which that image removes from packages (manual pages) are kept. It uses
# this machine's package sources and certificate authorities.
make_base() {
  [ ! -d "$folder/base/usr" ] || return 0
  "$repository/tests/bare_root.sh" "$folder/base" true >"$folder/base.log" 2>&1 || fail "the bare root could not be made; see $folder/base.log"
  rm -rf "$folder/base/srv/longembed"
}

remove_roots() {
  rm -rf "$folder/stages"
  [ -n "$keep" ] || rm -rf "$folder/image"
}

show_what_a_pull_costs() {
  local part
  printf 'compressed, as a registry keeps it\n'
  for part in usr/local/lib/longembed models .; do
    [ ! -e "$folder/image/root/$part" ] || printf '  %7d kB  /%s\n' "$(($(tar -C "$folder/image/root" -c "$part" | gzip -6 | wc -c) / 1000))" "${part#.}"
  done
}

[ $# -gt 0 ] && [[ $1 != --* ]] || fail "usage: tests/container/check.sh FOLDER [--build-arg NAME=VALUE]... [--context DIR] [--config FILE] [--keep]"
[ "$(id -u)" = 0 ] || fail "chroot needs root; run this with sudo"
folder=$(realpath -m "$1")
shift
context=$repository keep='' build_arguments=() runtime_arguments=() model=''
while [ $# -gt 0 ]; do
  case $1 in
    --build-arg)
      build_arguments+=(--build-arg "$2")
      [[ $2 != MODEL=?* ]] || model=${2#MODEL=}
      shift
      ;;
    --context) context=$(realpath "$2") && shift ;;
    --config) runtime_arguments+=(--config "$(realpath "$2")") && shift ;;
    --keep) keep=yes ;;
    *) fail "unknown argument $1" ;;
  esac
  shift
done
if [ -z "$model" ]; then
  [ -d "$repository/models/e5-small-v2" ] || fail "models/e5-small-v2 has not been exported; run deploy/setup.sh, or give --build-arg MODEL=e5-small-v2"
  runtime_arguments+=(--models "$repository/models")
fi

mkdir -p "$folder"
[ ! -e "$folder/stages" ] && [ ! -e "$folder/image" ] || fail "$folder/stages or $folder/image is left from another run; remove them"
make_base
trap remove_roots EXIT
python3 "$here/run_dockerfile.py" --context "$context" --work "$folder/stages" --cache "$folder/cache" --out "$folder/image" \
  --image "debian:bookworm-slim=$folder/base" "${build_arguments[@]}"
printf '=== the image was built in %d s\n' "$SECONDS"
python3 "$here/check_runtime.py" "$folder/image/root" "$folder/image/image.json" "${runtime_arguments[@]}"
show_what_a_pull_costs
