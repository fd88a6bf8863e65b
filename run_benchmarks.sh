#!/bin/sh
# Measure how fast the pipeline is, in ratios: ./run_benchmarks.sh [compare] [pipeline] [growth]
# [--json FILE] [--check]. On a machine with Python 3.11 or newer and nothing else, this sets up all
# that is missing.
set -eu
here=$(dirname -- "$(readlink -f -- "$0")")
cd "$here"
exec tools/python.sh tools/in_venv.py benchmarks -m benchmarks "$@"
