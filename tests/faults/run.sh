#!/usr/bin/env bash
# Checks that tests still detect old faults. Brings each fault back in a scratch worktree of HEAD, and runs the test that must then fail.
#
#   tests/faults/run.sh [PATCH...]     all of this folder without arguments; about 15 minutes on 2 cores
#
# A patch begins with three lines:
#   Fault: what was wrong, and what came of it
#   Targets: what ninja builds
#   Run: the command that must fail with the fault and pass without it, from the worktree's root; $build is its build folder
# The exit status is 1 if a fault is not detected, if a patch no longer applies or builds, or if a test fails without its fault.
set -euo pipefail

here=$(CDPATH="" cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/../../deploy/setup.sh"
tree=$root/build/faults/tree
export build=$tree/build/release
log=$root/build/faults/log

# header PATCH NAME: prints the value of the line NAME of a patch.
header() { sed -n "s/^$2: //p;/^diff /q" "$1"; }

compile() { nice -n 5 ninja -C "$build" $1 >>"$log" 2>&1; }
# The inner shell, not this one, reports a test that crashes.
passes() { (cd "$tree" && timeout 120 bash -c "$(header "$1" Run); exit \$?") >>"$log" 2>&1; }
restore() { git -C "$tree" checkout --quiet -- .; }

set_up_tree() {
  local commit
  commit=$(git -C "$root" rev-parse HEAD)
  git -C "$root" worktree prune
  [ -e "$tree/.git" ] || git -C "$root" worktree add --quiet --detach "$tree" "$commit"
  git -C "$tree" checkout --quiet --force --detach "$commit"
  install_rust
  # None of these faults needs LibTorch.
  cmake -S "$tree" --preset release -Wno-dev -D CMAKE_UNITY_BUILD=OFF -D LONGEMBED_TORCH=OFF -D LONGEMBED_BENCHMARKS=OFF -D "CARGO=$(command -v cargo)" >"$log" 2>&1
}

# try PATCH: prints a line with the result. Fails if the fault is not detected.
try() {
  local name
  name=$(basename "$1" .patch)
  if ! git -C "$tree" apply "$1" 2>>"$log"; then
    echo "DOES NOT APPLY  $name"
    return 1
  fi
  if ! compile "$(header "$1" Targets)"; then
    echo "DOES NOT BUILD  $name"
    return 1
  fi
  if passes "$1"; then
    echo "UNSEEN          $name: $(header "$1" Run) passes, though $(header "$1" Fault)"
    return 1
  fi
  echo "found           $name"
}

patches=("$@")
[ $# -gt 0 ] || patches=("$here"/*.patch)
mkdir -p "$(dirname "$tree")"
set_up_tree
trap restore EXIT
for patch in "${patches[@]}"; do header "$patch" Targets; done | tr ' ' '\n' | sort -u | xargs nice -n 5 ninja -C "$build" >>"$log" 2>&1 ||
  fail "HEAD does not build (output: $log)"
unseen=0
for patch in "${patches[@]}"; do
  patch=$(realpath "$patch")
  if ! passes "$patch"; then
    echo "FAILS ANYWAY    $(basename "$patch" .patch): $(header "$patch" Run)"
    unseen=$((unseen + 1))
  fi
done
for patch in "${patches[@]}"; do
  try "$(realpath "$patch")" || unseen=$((unseen + 1))
  restore
done
echo "${#patches[@]} faults, $unseen not found (output: $log)"
[ "$unseen" = 0 ]
