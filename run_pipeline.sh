#!/bin/sh
# Run the whole pipeline once. On a machine with Python 3.11 or newer and nothing else, this sets up
# all that is missing. With a COMMAND of `python -m pipeline`, it becomes that; --help says more.
set -eu
here=$(dirname -- "$(readlink -f -- "$0")")
requirements=requirements.txt
case "${PIPELINE_DATA-} $*" in
    *s3://*) requirements=$requirements,requirements-s3.txt ;;
esac
case "$*" in
    *--from*) requirements=$requirements,requirements-fits.txt ;; # there may be FITS files
esac
case "${1-}" in
    "" | -*) set -- run "$@" ;;
esac
export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}"
exec "$here/tools/python.sh" "$here/tools/in_venv.py" "$requirements" -m pipeline "$@"
