#!/bin/sh
# Run the whole pipeline once. On a machine with Python 3.11 or newer and nothing else, this sets up
# all that is missing. With a COMMAND of `python -m pipeline`, it becomes that; --help says more.
set -eu
here=$(dirname -- "$(readlink -f -- "$0")")
groups=
case "${PIPELINE_DATA-} $*" in
    *s3://*) groups=s3 ;;
esac
case "$*" in
    *--from*) groups=$groups,fits ;; # there may be FITS files
esac
case "${1-}" in
    "" | -*) set -- run "$@" ;;
esac
export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}"
exec "$here/tools/python.sh" "$here/tools/in_venv.py" "$groups" -m pipeline "$@"
