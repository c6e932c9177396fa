#!/usr/bin/env bash
# Step of the Dockerfile: the Debian packages that compile the server, and Rust.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../setup.sh"

# Debian's images delete what apt has downloaded; here it is kept, in the cache mounts.
rm -f /etc/apt/apt.conf.d/docker-clean

# Without the packages of tests and the model exporter; bake_model.sh installs those if MODEL is set.
not_for_compiling=' git libgtest-dev libgmock-dev libbenchmark-dev default-jre-headless maven '
wanted=()
for package in "${debian_packages[@]}"; do
  [[ $not_for_compiling == *" $package "* ]] || wanted+=("$package")
done
install_packages "${wanted[@]}"
install_rust
