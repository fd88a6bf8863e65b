#!/bin/sh
# Format, lint and type-check everything. With --ci nothing is changed: what would be is an error.
set -eu
cd "$(dirname -- "$0")/.."
tools/python.sh tools/in_venv.py requirements-dev.txt -c pass
if [ "${1-}" = --ci ]; then
    .venv/bin/ruff format --check .
    .venv/bin/ruff check .
else
    .venv/bin/ruff format .
    .venv/bin/ruff check --fix .
fi
.venv/bin/mypy
