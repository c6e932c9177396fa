#!/usr/bin/env bash
# Runs clang-tidy-19 with the checks of .clang-tidy. CI does not run it, because a file takes ten seconds or more.
#
#   tests/tidy/clang_tidy.sh                the .cc files that differ from origin/main
#   tests/tidy/clang_tidy.sh --base COMMIT  those that differ from COMMIT
#   tests/tidy/clang_tidy.sh --all
#   tests/tidy/clang_tidy.sh FILE.cc...
# shellcheck source=../../deploy/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../deploy/setup.sh"

cd "$root"
case "${1---base}" in
  --all) mapfile -t files < <(git ls-files '*.cc') ;;
  --base) mapfile -t files < <(git diff --name-only --diff-filter=d "${2-origin/main}" -- '*.cc') ;;
  *) files=("$@") ;;
esac
[ ${#files[@]} -gt 0 ] || fail "no .cc files differ; name some, or give --all"

check_system
install_packages clang-tidy-19
# This preset compiles each file separately, which clang-tidy needs, together with protoc's output.
build dev longembed_generated
# clang-tidy treats names as patterns. Examples and fuzzers are skipped, because this build does not contain them.
run-clang-tidy-19 -quiet -p "$root/build/dev" -j "$(nproc)" "${files[@]/#/^$root/}"
