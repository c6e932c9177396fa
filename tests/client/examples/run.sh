#!/usr/bin/env bash
# Builds and runs the client examples of every language whose tools are installed, against the release build (tests/run.sh makes it).
# shellcheck source=../../../deploy/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../../deploy/setup.sh"

cd "$root"
LONGEMBED_EXAMPLES=all exec build/venv/bin/python -m pytest tests/client/examples -q -rs "$@"
