#!/bin/sh
# Compile the requirements*.txt from pyproject.toml: every version and hash,
# for all platforms. Needs uv (pip install uv).
set -eu
cd "$(dirname "$0")/.."
compile="uv pip compile --quiet --universal --generate-hashes --upgrade --custom-compile-command $0"
$compile pyproject.toml --output-file requirements.txt
$compile pyproject.toml --extra s3 --constraints requirements.txt --output-file requirements-s3.txt
$compile pyproject.toml --extra fits --constraints requirements-s3.txt --output-file requirements-fits.txt
$compile pyproject.toml --group benchmarks --constraints requirements.txt --output-file requirements-benchmarks.txt
$compile pyproject.toml --extra s3 --extra fits --group dev --constraints requirements-s3.txt --constraints requirements-fits.txt --output-file requirements-dev.txt
$compile pyproject.toml --group ci --constraints requirements.txt --output-file requirements-ci.txt
