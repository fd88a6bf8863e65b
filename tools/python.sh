#!/bin/sh
# Become the first Python on the PATH that is 3.11 or newer, with these arguments.
for name in python3 python3.14 python3.13 python3.12 python3.11 python; do
    if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        exec "$name" "$@"
    fi
done
echo "no Python 3.11 or newer on the PATH; install one (Debian, Ubuntu: apt install python3), then run this again" >&2
exit 1
