#!/usr/bin/env bash
# Runs clang-tidy-19 with the checks of .clang-tidy. Not a part of CI: a file takes ten seconds or more.
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
# Every file apart, as this preset has them, and what protoc makes.
build dev longembed_generated
# clang-tidy takes names for patterns; examples and fuzzers, which this build does not have, are passed over.
run-clang-tidy-19 -quiet -p "$root/build/dev" -j "$(nproc)" "${files[@]/#/^$root/}"
