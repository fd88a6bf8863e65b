#!/bin/sh
# Empty the mock databases: image_database, image_event_database and image_event_alerts.
# The original image stays, and so does what Kafka's topics hold. What was deleted is noted in .cleaned,
# so that the audit doesn't miss it.
set -eu
case "${1-}" in
    "") ;;
    -h | --help)
        echo "usage: $0    (empties image_database, image_event_database, image_event_alerts)"
        exit 0 ;;
    *)
        echo "$0: unknown argument '$1' (--help says what it does)" >&2
        exit 2 ;;
esac
here=$(dirname -- "$(readlink -f -- "$0")")
data=${PIPELINE_DATA:-$here}
case "$data" in
    *://*)
        cd "$here"
        if python -c "import s3fs" 2>/dev/null; then # as in the container
            exec python -m pipeline clean
        fi
        exec tools/python.sh tools/in_venv.py s3 -m pipeline clean ;;
esac
if [ ! -d "$data" ]; then
    echo "$0: PIPELINE_DATA: '$data' is no directory; name the one with the image_* directories" >&2
    exit 2
fi
PYTHONPATH=$here "$here/tools/python.sh" -P -m pipeline.store.cleaning "$data"
for name in image_database image_event_database image_event_alerts; do
    if [ -d "$data/$name" ]; then
        (cd "$data/$name" && find . -mindepth 1 ! -path ./.gitkeep -delete)
    fi
done
