"""Receive images, store each in the image database, publish it.

They come from files, or are made from the original. The mock part is `next_image`: image n is a
copy of image n - 1, turned by 90 degrees when n % 4 == 3. A later run goes on counting where the
image database ends.

    python image_receiving.py [--count N] [--source NAME]... [--sources N] [--interval SECONDS]
    python image_receiving.py --from PATH... [--watch] [--source NAME] ...
"""

import itertools
from argparse import Namespace
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import UTC, datetime

from pipeline.errors import FatalError, InvalidInput
from pipeline.messages import ReceivedImage, image_id
from pipeline.options import receiving_options
from pipeline.pictures.files import Picture, pictures_of
from pipeline.pictures.mock import ORIGINAL, mock, read_image, read_original
from pipeline.pictures.pacing import due
from pipeline.pictures.watch import DirectoryWatcher, SeenFiles
from pipeline.program import run_program
from pipeline.stop_signal import StopSignal
from pipeline.store.database import Database
from pipeline.store.instance_lock import InstanceLock
from pipeline.store.names import IMAGE_DATABASE, digest, image_path
from pipeline.store.numbering import find_image, last_image
from pipeline.stream.connection import Kafka
from pipeline.stream.membership import BATCH
from pipeline.stream.outbox import Outbox
from pipeline.terminal import printable, say

BATCH_BYTES = 32 * 2**20  # of images, about; two batches are in memory


def main() -> None:
    """Receive as many images as asked for, of all sources at the same time."""
    options, settings = receiving_options()
    kafka = Kafka(settings, StopSignal(status=0 if options.watch else 1))
    # One receiver at a time for each source: two would count the same numbers.
    names = {source: f"image_receiving-{source}".rstrip("-") for source in options.sources}
    databases = {
        source: Database(settings.data, IMAGE_DATABASE, InstanceLock(name, settings, most=1))
        for source, name in names.items()
    }
    say(f"image_receiving: Kafka at {settings.bootstrap_servers}")
    origin = printable(", ".join(options.paths)) or ORIGINAL
    say(f"image_receiving: from {origin} to {IMAGE_DATABASE} in {settings.data}")
    for line in options.left_alone:
        say(line)
    has_begun = all(
        one.has(find_image(one, image_id(source, 0))) for source, one in databases.items()
    )
    original = b"" if has_begun or options.paths else read_original(settings)

    reasons: list[FatalError] = []  # why a source could not go on

    def receive_from(source: str) -> tuple[int, int]:
        try:
            outbox = Outbox(kafka, databases[source], names[source])
            return receive(source, outbox, databases[source], original, options)
        except FatalError as reason:
            reasons.append(reason)
            return 0, 0
        finally:
            if reasons:
                kafka.stop.ask()  # the others, too: nobody waits for half of the images

    with ThreadPoolExecutor(len(names)) as threads:
        runs = [threads.submit(receive_from, source) for source in names]
        # Python looks for signals in this thread alone, and only when it wakes up.
        while wait(runs, timeout=0.5).not_done:
            pass
    received, aside = map(sum, zip(*(run.result() for run in runs), strict=True))
    texts = [str(reason) for reason in reasons if str(reason)]
    if texts:
        raise FatalError("; ".join(texts))
    usable = len(options.files) - aside
    wanted = min(options.count, usable) if options.paths else options.count * len(names)
    if received < wanted and not options.watch:
        missing = wanted - received
        raise FatalError(f"image_receiving: stopped; {missing} of {wanted} images are missing")
    say(
        f"image_receiving: received {received} images"
        + f"; {aside} set aside" * bool(options.paths)
    )


def receive(
    source: str, outbox: Outbox, images: Database, original: bytes, options: Namespace
) -> tuple[int, int]:
    """Receive the images of one source; how many, and how many files were set aside."""
    # A run before this one may have died between storing and publishing: that goes first.
    left = outbox.left()
    if left:
        outbox.put(left)
        outbox.publish()
    for message in outbox.settle():
        say(f"{message.image_id}  received by the run before, which was interrupted")

    last, path = last_image(images, source, outbox.known)
    first = last + 1
    aside: list[str] = []

    def set_aside(path: str, reason: InvalidInput) -> None:
        outbox.set_aside(source, path, reason)
        aside.append(path)
        say(f"set aside  {printable(path)}: {printable(str(reason))}")

    watched = options.paths[0] if options.watch else ""
    memory = SeenFiles(images, outbox.name, first, watched)
    pictures: Iterator[Picture | None]
    if watched:
        pictures = DirectoryWatcher(watched, memory, set_aside, outbox.stop).pictures()
    elif options.paths:
        pictures = pictures_of(options.files, set_aside)
    else:
        before = Picture(read_image(images, path), path.rpartition(".")[2]) if path else None
        pictures = mock(first, before or Picture(original, ORIGINAL.rpartition(".")[2]))
    received = store_and_publish(
        source, first, pictures, outbox=outbox, images=images, memory=memory, options=options
    )
    return received, len(aside)


def store_and_publish(
    source: str,
    first: int,
    pictures: Iterator[Picture | None],
    *,
    outbox: Outbox,
    images: Database,
    memory: SeenFiles,
    options: Namespace,
) -> int:
    """Make images of the pictures, numbered from `first` on; how many."""
    number = first
    batch: list[tuple[ReceivedImage, bytes]] = []
    size = 0
    for picture in itertools.chain(due(pictures, options, outbox.stop), [None]):
        if picture:
            batch.append((message_for(source, number, picture), picture.content))
            memory.note(picture.mark, number)
            number += 1
            size += len(picture.content)
            # As many as are due by now; or else, as many as are good to have in hand.
            if len(batch) < BATCH and size < BATCH_BYTES / len(options.sources):
                continue
        # While these were made, those before them were stored, and those before them published.
        images.sync()
        say_received(outbox.publish(), options)
        memory.write()
        if batch:
            outbox.put([message for message, _ in batch])
        for message, content in batch:
            images.write(message.path, content, is_new=True)
        batch, size = [], 0
        if picture is None:  # nothing comes for a while: nothing stays in hand
            images.sync()
            say_received(outbox.publish(), options)
            say_received(outbox.settle(), options)
            outbox.forget()
    outbox.close()
    return number - first


def say_received(messages: Sequence[ReceivedImage], options: Namespace) -> None:
    """Say so of images that are stored, and that Kafka has acknowledged."""
    for message in messages:
        about = ", turned by 90 degrees" if message.number % 4 == 3 else ""
        if options.paths:
            about = f": {printable(message.original_name or 'a file whose name is no text')}"
        say(f"{message.image_id}  received{about}")


def message_for(source: str, number: int, picture: Picture) -> ReceivedImage:
    """The message that an image is here."""
    name = image_id(source, number)
    return ReceivedImage(
        image_id=name,
        source=source,
        number=number,
        path=image_path(name, picture.extension),
        size=len(picture.content),
        sha256=digest(picture.content),
        received=datetime.now(UTC),
        original_name=picture.name,
    )


if __name__ == "__main__":
    run_program(main)
