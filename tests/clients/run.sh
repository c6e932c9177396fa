#!/usr/bin/env bash
# Calls a real server with widely used client libraries, and prints a Markdown table of what worked. Not part of tests/run.sh, because it needs a
# package registry.
#
#   tests/clients/run.sh                 prints the table
#   tests/clients/run.sh --write         puts it into tests/clients/README.md, with the date
#
# Each package of requirements.txt is installed separately into build/clients. If a package cannot be installed, its clients are skipped by name.
set -euo pipefail

root=$(CDPATH="" cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
venv=$root/build/clients
log=$root/build/logs/clients-pip.log
mkdir -p "$root/build/logs"
rm -rf "$venv"
python3 -m venv "$venv"
if ! "$venv/bin/python" -m pip install -q -r "$root/tests/clients/requirements.txt" >"$log" 2>&1; then
  while read -r package; do
    [[ $package == \#* || -z $package ]] || "$venv/bin/python" -m pip install -q "$package" >>"$log" 2>&1 || echo "cannot install $package" >&2
  done <"$root/tests/clients/requirements.txt"
fi
# A proxy for downloads cannot reach the server, which is on this machine.
no_proxy=127.0.0.1,localhost${no_proxy:+,$no_proxy}${NO_PROXY:+,$NO_PROXY}
export no_proxy NO_PROXY=$no_proxy
exec "$venv/bin/python" "$root/tests/clients/clients.py" "$@"
