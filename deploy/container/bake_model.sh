#!/usr/bin/env bash
# Step of the Dockerfile: exports MODEL into /src/models, with the packages that deploy/setup.sh installs for that. MODEL empty: the empty folder.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../setup.sh"

mkdir -p "$root/models"
[ -n "${MODEL-}" ] || exit 0
set_up
export_model "$MODEL" >/dev/null
# The container's user must be able to read the files, which it does not own.
chmod -R a+rX "$root/models"
