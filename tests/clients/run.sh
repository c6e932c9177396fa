#!/usr/bin/env bash
# Calls a real server with the libraries that people use, and prints a Markdown table of what worked. Not part of tests/run.sh: it needs a package registry.
#
#   tests/clients/run.sh                 prints the table
#   tests/clients/run.sh --write         puts it into tests/clients/README.md, with the date
#
# Each package of requirements.txt is installed by itself into build/clients; one that cannot be had skips its clients, by name.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
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
exec "$venv/bin/python" "$root/tests/clients/clients.py" "$@"
