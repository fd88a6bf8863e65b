#!/bin/sh
# Run the tests: without arguments the quick ones, with --all every one; arguments are pytest's. On
# a machine with Python 3.11 or newer and nothing else, this sets up all that is missing.
# --broker=auto|docker|embedded|HOST:PORT says which Kafka.
set -eu
here=$(dirname -- "$(readlink -f -- "$0")")
cd "$here"
exec tools/python.sh tools/in_venv.py dev -m pytest "$@"
