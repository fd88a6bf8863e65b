"""Clean: empty the mock databases in an object store."""

from collections.abc import Sequence

from pipeline.errors import FatalError
from pipeline.settings import Parser
from pipeline.stages import STAGES
from pipeline.stop_signal import StopSignal
from pipeline.store.database import Database
from pipeline.terminal import say


def main(arguments: Sequence[str]) -> None:
    """Delete all images, image events and alerts; the original and the topics stay."""
    parser = Parser("Empty the three mock databases.", "python -m pipeline clean")
    settings = parser.settings(parser.parse_args(arguments))
    if settings.data.directory:
        parser.error(f"{settings.data} is a directory; ./clean_image_dirs.sh empties those in it")
    stop = StopSignal(status=1)
    for stage in STAGES:
        database = Database(settings.data, stage.writes)
        files = [file for file in database.names() if file != ".gitkeep"]
        for file in files:
            if stop:
                raise FatalError(f"stopped; {database.where} is not empty")
            database.remove(f"{stage.writes}/{file}")
        say(f"{database.where}: {len(files)} deleted")
