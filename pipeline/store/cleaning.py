"""What was deleted on purpose: for each source, until when its images were cleaned away.

`clean_image_dirs.sh` notes in `.cleaned/sources.json`, beside the databases, when the newest image
of each source was stored, and then deletes all of them. The audit misses no image of that time.

    python -m pipeline.store.cleaning DIRECTORY    (notes it; needs nothing that must be installed)
"""

import json
import os
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

CLEANED = ".cleaned"
DAMAGED = "it has no times by their sources"
CLEANED_PATH = f"{CLEANED}/sources.json"
IMAGE = re.compile(r"(?:([a-z0-9_]{1,64})-)?[0-9]{5,9}\.[a-z]+")


def source_in(name: str) -> str | None:
    """The source of the image in the file with this name; None if it is no image's file."""
    found = IMAGE.fullmatch(name)
    return (found[1] or "") if found else None


def read_marks(content: bytes | str) -> dict[str, datetime]:
    """The time of each source. Raises `ValueError` if the content is none of ours."""
    try:
        found = json.loads(content).items()
        marks = {source: datetime.fromisoformat(str(time)) for source, time in found}
    except (AttributeError, ValueError, RecursionError) as error:
        raise ValueError(DAMAGED) from error
    if not all(time.tzinfo for time in marks.values()):
        raise ValueError(DAMAGED)
    return marks


def add_marks(content: bytes | str, times: Mapping[str, float]) -> str:
    """The content of the file once these times are noted, too; in seconds since 1970."""
    marks = read_marks(content)
    for source, seconds in times.items():
        time = datetime.fromtimestamp(seconds, UTC)
        marks[source] = max(time, marks.get(source, time))
    return json.dumps({source: time.isoformat() for source, time in sorted(marks.items())})


def mark_directory(data: Path) -> None:
    """Note when the newest image of each source in the directory was stored."""
    times: dict[str, float] = {}
    directory = data / "image_database"
    for file in os.scandir(directory) if directory.is_dir() else ():
        source = source_in(file.name)
        if source is not None:
            times[source] = max(file.stat().st_mtime, times.get(source, 0))
    if times:
        path = data / CLEANED_PATH
        path.parent.mkdir(exist_ok=True)
        before = path.read_text() if path.exists() else "{}"
        part = path.with_suffix(".part")
        part.write_text(add_marks(before, times))
        part.replace(path)


if __name__ == "__main__":
    try:
        mark_directory(Path(sys.argv[1]))
    except OSError as error:
        sys.exit(f"{error.filename}: {error.strerror}; mend that, and clean again")
    except ValueError as error:
        sys.exit(f"{sys.argv[1]}/{CLEANED_PATH}: {error}; remove it, and clean again")
