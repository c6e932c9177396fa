#!/usr/bin/env bash
# Step of the Dockerfile: LibTorch out of the wheel that the exporter uses, in build/venv, where the C++ build looks for it.
# DEVICE=cpu installs the libraries that libtorch_cpu.so is linked with, 0.5 GB instead of 3; DEVICE=cuda all requirements of the wheel. LIBTORCH not empty: nothing.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../setup.sh"

case ${DEVICE:?cpu or cuda} in cpu | cuda) ;; *) fail "the build argument DEVICE is $DEVICE; it must be cpu or cuda" ;; esac
if [ -n "${LIBTORCH-}" ]; then
  say "LibTorch is $LIBTORCH of the build context"
  exit 0
fi

pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$1" --progress-bar off "${@:2}"; }
torch=$(grep '^torch==' "$root/model/export/requirements.txt")
python3 -m venv "$venv"
say "installing $torch for DEVICE=$DEVICE"
if [ "$DEVICE" = cuda ]; then
  pip install "$torch"
else
  pip install --no-deps "$torch"
  # libtorch_cpu.so is linked with CUDA libraries in the wheel for x86-64, but need not be in one for arm64.
  needed=$(readelf -d "$venv"/lib/python3*/site-packages/torch/lib/libtorch_cpu.so)
  if ! [[ $needed =~ lib(cudart|cupti) ]]; then
    say "libtorch_cpu.so is not linked with CUDA"
    exit 0
  fi
  # The wheel says which CUDA it is built with. On a CPU only these two libraries of it are needed, because the loader requires them.
  cuda=$(sed -n 's/^Requires-Dist: cuda-toolkit\[.*\]\(==[0-9.]*\).*/\1/p' "$venv"/lib/python3*/site-packages/torch-*.dist-info/METADATA)
  [ -n "$cuda" ] || fail "$torch does not say which cuda-toolkit it needs; look at its METADATA and change this script"
  say "pip may report missing packages now; only Python's torch and GPUs need them"
  pip install "cuda-toolkit[cudart,cupti]$cuda"
fi
