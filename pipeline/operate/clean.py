"""Clean: empty the mock databases in an object store."""

import time
from collections.abc import Sequence

from pipeline.errors import FatalError
from pipeline.messages import parts_of
from pipeline.retrying import retrying
from pipeline.settings import Parser, Settings
from pipeline.stages import STAGES
from pipeline.stop_signal import StopSignal
from pipeline.store.cleaning import CLEANED, CLEANED_PATH, add_marks, source_in
from pipeline.store.database import Database
from pipeline.store.names import IMAGE_DATABASE
from pipeline.terminal import say


def main(arguments: Sequence[str]) -> None:
    """Delete all images, image events and alerts; the original and the topics stay."""
    parser = Parser("Empty the three mock databases.", "python -m pipeline clean")
    settings = parser.settings(parser.parse_args(arguments))
    if settings.data.directory:
        parser.error(f"{settings.data} is a directory; ./clean_image_dirs.sh empties those in it")
    stop = StopSignal(status=1)
    mark(settings)
    for stage in STAGES:
        database = Database(settings.data, stage.writes)
        files = [file for file in database.names() if file != ".gitkeep"]
        for file in files:
            if stop:
                raise FatalError(f"stopped; {database.where} is not empty")
            database.remove(f"{stage.writes}/{file}")
        say(f"{database.where}: {len(files)} deleted")


def mark(settings: Settings) -> None:
    """Note when the last image of each source was stored, so that the audit won't miss them."""
    images = Database(settings.data, IMAGE_DATABASE)
    last: dict[str, tuple[int, str]] = {}  # number and path, by source
    for name in images.names():
        if source_in(name) is not None:
            source, number = parts_of(name.partition(".")[0])
            last[source] = max(last.get(source, (-1, "")), (number, f"{IMAGE_DATABASE}/{name}"))
    if last:
        # A second more: an object store rounds the time down.
        times = {source: time.time() - images.age(path) + 1 for source, (_, path) in last.items()}
        marks = Database(settings.data, CLEANED)
        before = marks.read(CLEANED_PATH) if marks.has(CLEANED_PATH) else b"{}"
        try:
            content = add_marks(before, times)
        except ValueError as error:
            where = f"{settings.data}/{CLEANED_PATH}"
            raise FatalError(f"{where}: {error}; remove it, and clean again") from error
        retrying(marks.files.write)(CLEANED_PATH, content.encode(), is_new=False)
