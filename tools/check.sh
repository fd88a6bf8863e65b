#!/bin/sh
# Format, lint and type-check everything. With --ci nothing is changed: what would be is an error.
set -eu
cd "$(dirname -- "$0")/.."
tools/python.sh tools/in_venv.py dev -c pass
if [ "${1-}" = --ci ]; then
    .venv/bin/ruff format --check .
    .venv/bin/ruff check .
    .venv/bin/uv lock --quiet --check # is it made of requirements.txt and pyproject.toml?
else
    .venv/bin/ruff format .
    .venv/bin/ruff check --fix .
fi
.venv/bin/mypy
