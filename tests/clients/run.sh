#!/usr/bin/env bash
# Calls a real server with widely used client libraries, and prints a Markdown table of what worked. Not part of tests/run.sh, because it needs a
# package registry.
#
#   tests/clients/run.sh                 prints the table
#   tests/clients/run.sh --write         puts it into tests/clients/README.md, with the date
#
# The packages of requirements.txt are installed into build/clients: together, or one by one if that fails. If a package cannot be installed, its clients are skipped by name.
# shellcheck source=../../deploy/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../deploy/setup.sh"

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
