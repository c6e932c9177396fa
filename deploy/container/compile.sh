#!/usr/bin/env bash
# Step of the Dockerfile: builds the server and the command line, without tests and benchmarks, in build/release.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../setup.sh"

[ -z "${LIBTORCH-}" ] || export LIBTORCH=$root/$LIBTORCH
options=(-D LONGEMBED_TESTS=OFF -D LONGEMBED_BENCHMARKS=OFF)
# The image's own loader cache finds the libraries; a path of this stage has no place in it.
options+=(-D CMAKE_SKIP_RPATH=ON)
[ "${DEVICE:?cpu or cuda}" = cpu ] || options+=(-D LONGEMBED_REQUIRE_CUDA=ON)

install_rust
run_logged configure.log "cmake could not configure the build; the lines above say what it lacks" \
  cmake -S "$root" --preset release -Wno-dev -D "CARGO=$(command -v cargo)" "${options[@]}"
build release
