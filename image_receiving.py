"""Receive images, store each in the image database, publish it.

They come from files, or are made from the original. The mock part is `next_image`: image n is a
copy of image n - 1, turned by 90 degrees when n % 4 == 3. A later run goes on counting where the
image database ends.

    python image_receiving.py [--count N] [--source NAME]... [--sources N] [--interval SECONDS]
    python image_receiving.py --from PATH... [--watch] [--source NAME] ...
"""

import io
import itertools
import sys
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import UTC, datetime
from pathlib import Path

from PIL import Image, ImageOps

from comparison import FORMATS, decode
from outbox import Outbox
from pictures import Memory, Picture, Watch, files_of, pictures_of
from pipeline import Unusable, say
from pipeline.connection import Kafka, Stop
from pipeline.copies import Copy
from pipeline.messages import SOURCE, ReceivedImage, image_id
from pipeline.settings import REPOSITORY, Parser, Settings, matching
from pipeline.store import (
    IMAGE_DATABASE,
    IMAGE_EVENT_ALERTS,
    IMAGE_EVENT_DATABASE,
    IMAGE_ORIGINAL,
    Database,
    digest,
    image_path,
)
from pipeline.stream import BATCH, printable

ORIGINAL = f"{IMAGE_ORIGINAL}/original_image.jpg"
BATCH_BYTES = 32 * 2**20  # of images, about; two batches are in memory


def main() -> None:
    """Receive as many images as asked for, of all sources at the same time."""
    options, settings = read_arguments()
    kafka = Kafka(settings, Stop(status=0 if options.watch else 1))
    # One receiver at a time for each source: two would count the same numbers.
    names = {source: f"image_receiving-{source}".rstrip("-") for source in options.sources}
    databases = {
        source: Database(settings.data, IMAGE_DATABASE, Copy(name, settings, most=1))
        for source, name in names.items()
    }
    say(f"image_receiving: Kafka at {settings.bootstrap_servers}")
    origin = printable(", ".join(options.paths)) or ORIGINAL
    say(f"image_receiving: from {origin} to {IMAGE_DATABASE} in {settings.data}")
    for line in options.left_alone:
        say(line)
    has_begun = all(one.has(one.find(image_id(source, 0))) for source, one in databases.items())
    original = b"" if has_begun or options.paths else read_original(settings)

    reasons: list[object] = []  # why a source could not go on

    def receive_from(source: str) -> tuple[int, int]:
        try:
            outbox = Outbox(kafka, databases[source], names[source])
            return receive(source, outbox, databases[source], original, options)
        except SystemExit as reason:
            reasons.append(reason.code)
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
    told = [reason for reason in reasons if isinstance(reason, str)]
    if told:
        sys.exit("; ".join(told))
    usable = len(options.files) - aside
    wanted = min(options.count, usable) if options.paths else options.count * len(names)
    if received < wanted and not options.watch:
        missing = wanted - received
        sys.exit(f"image_receiving: stopped; {missing} of {wanted} images are missing")
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

    last, path = images.last(source, outbox.known)
    first = last + 1
    aside: list[str] = []

    def set_aside(path: str, reason: Unusable) -> None:
        outbox.set_aside(source, path, reason)
        aside.append(path)
        say(f"set aside  {printable(path)}: {printable(str(reason))}")

    watched = options.paths[0] if options.watch else ""
    memory = Memory(images, outbox.name, first, watched)
    pictures: Iterator[Picture | None]
    if watched:
        pictures = Watch(watched, memory, set_aside, outbox.stop).pictures()
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
    memory: Memory,
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


def due(
    pictures: Iterator[Picture | None], options: Namespace, stop: Stop
) -> Iterator[Picture | None]:
    """So many pictures, each when its time has come; None: there is none now, and next it waits."""
    began = time.monotonic()
    taken = 0
    while taken < options.count and not stop:
        next_time = began + taken * options.interval
        if time.monotonic() < next_time:
            yield None
            stop.wait(next_time - time.monotonic())
            continue
        try:
            picture = next(pictures)
        except StopIteration:
            return
        taken += picture is not None
        yield picture
        if picture is None:  # what comes late doesn't come faster
            began = max(began, time.monotonic() - taken * options.interval)


def say_received(messages: Sequence[ReceivedImage], options: Namespace) -> None:
    """Say so of images that are stored, and that Kafka has acknowledged."""
    for message in messages:
        about = ", turned by 90 degrees" if message.number % 4 == 3 else ""
        if options.paths:
            about = f": {printable(message.original_name or 'a file whose name is no text')}"
        say(f"{message.image_id}  received{about}")


def read_original(settings: Settings) -> bytes:
    """The picture to begin with; ends the program if there is none."""
    originals = Database(settings.data, IMAGE_ORIGINAL)
    if isinstance(settings.data, str) and not originals.has(ORIGINAL):
        originals = Database(REPOSITORY, IMAGE_ORIGINAL)  # nobody has put one into the bucket
    return read_image(originals, ORIGINAL)


def read_image(database: Database, path: str) -> bytes:
    """An image's bytes; ends the program if there is none to begin with."""
    try:
        content = database.read(path)
        decode(content, path)
    except Unusable as reason:
        sys.exit(f"image_receiving: cannot begin: {reason}; put a picture there")
    return content


def mock(first: int, picture: Picture) -> Iterator[Picture]:
    """The pictures of the mock camera from number `first` on; `picture` is the one before it."""
    for number in itertools.count(first):
        content = next_image(number, picture.content) if number else picture.content
        picture = Picture(content, picture.extension)
        yield picture


def next_image(number: int, previous: bytes) -> bytes:
    """Image `number` as the mock camera sends it: the previous one's bytes, turned or not."""
    if number % 4 != 3:
        return previous
    content = io.BytesIO()
    try:
        image = Image.open(io.BytesIO(previous), formats=FORMATS)
        turned = ImageOps.exif_transpose(image).transpose(Image.Transpose.ROTATE_90)
        if image.format in ("JPEG", "MPO"):
            turned.save(content, "JPEG", quality=95)
        else:
            turned.save(content, image.format, lossless=True)  # which only WebP needs to be told
    except (OSError, ValueError) as error:
        sys.exit(
            f"image_receiving: the image before can't be turned: {error}; receive files with "
            "--from, or begin anew with another --source"
        )
    return content.getvalue()


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


def read_arguments(arguments: list[str] | None = None) -> tuple[Namespace, Settings]:
    """The options and settings; ends the program with 2 if one makes no sense."""
    parser = Parser("Receive images, from files or made from the original: store, publish them.")
    count = matching("0*[1-9][0-9]{0,8}", "a whole number from 1 to 999999999")
    source = matching(f"({SOURCE})?", "1 to 64 of a-z, 0-9 and _")
    about = "images of each source; default: 11, or all that the files have"
    parser.add_argument("--count", metavar="N", type=count, help=about)
    sources = matching("[1-9][0-9]{0,2}", "a whole number from 1 to 999")
    seconds = matching(r"[0-9]{1,5}(\.[0-9]+)?", "a number of seconds, from 0 to 99999")
    about = "default: one without a name; may be given several times"
    parser.add_argument("--source", metavar="NAME", type=source, action="append", help=about)
    about = "as --source cam1 --source cam2 ... up to this number"
    parser.add_argument("--sources", metavar="N", type=sources, help=about)
    about = "between two images of a source; default: 0, as fast as it goes"
    parser.add_argument("--interval", metavar="SECONDS", type=seconds, default="0", help=about)
    about = "files, and directories of them, in the order of their names: JPEG, PNG, TIFF, FITS"
    parser.add_argument(
        "--from", metavar="PATH", dest="paths", nargs="+", action="extend", default=[], help=about
    )
    about = "take what comes to this directory, too, until Ctrl-C; remembers what it has taken"
    parser.add_argument("--watch", action="store_true", help=about)
    options = parser.parse_args(arguments)
    if options.source and options.sources:
        parser.error("--source and --sources: give one of the two")
    numbered = [f"cam{number}" for number in range(1, int(options.sources or 0) + 1)]
    options.sources = numbered or list(dict.fromkeys(options.source or [""]))
    options.count = int(options.count or (10**9 if options.paths else 11))
    options.interval = float(options.interval)
    options.files, options.left_alone = [], []
    if options.watch and [Path(path).is_dir() for path in options.paths] != [True]:
        parser.error("--watch: give one directory with --from")
    if options.paths and len(options.sources) > 1:
        parser.error("--from: one source at a time")
    if options.paths and not options.watch:
        try:
            options.files, options.left_alone = files_of(options.paths)
        except Unusable as reason:
            parser.error(f"--from: {reason}")
    settings = parser.settings(options)
    if options.watch and isinstance(settings.data, Path):
        for name in (IMAGE_DATABASE, IMAGE_EVENT_DATABASE, IMAGE_EVENT_ALERTS):
            ours = settings.data / name
            if ours.exists() and ours.samefile(*options.paths):
                parser.error(f"--watch: {options.paths[0]!r} is the pipeline's own; watch another")
    return options, settings


if __name__ == "__main__":
    main()
