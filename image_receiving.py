"""Receive images: make them from the original, store each in the image database, publish it.

The mock part is `next_image`: image n is a copy of image n - 1, turned by 90 degrees when
n % 4 == 3. A later run goes on counting where the image database ends.

    python image_receiving.py [--count N] [--source NAME]... [--sources N] [--interval SECONDS]
"""

import io
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from PIL import Image, ImageOps

from comparison import FORMATS, decode
from outbox import Outbox
from pipeline import Unusable, say
from pipeline.connection import Kafka, Stop
from pipeline.copies import Copy
from pipeline.messages import SOURCE, ReceivedImage, image_id
from pipeline.settings import REPOSITORY, Parser, Settings, matching
from pipeline.store import IMAGE_DATABASE, IMAGE_ORIGINAL, Database, digest
from pipeline.stream import BATCH

ORIGINAL = f"{IMAGE_ORIGINAL}/original_image.jpg"
BATCH_BYTES = 32 * 2**20  # of images, about; two batches are in memory


def main() -> None:
    """Receive as many images as asked for, of all sources at the same time."""
    options, settings = read_arguments()
    kafka = Kafka(settings, Stop(status=1))
    # One receiver at a time for each source: two would count the same numbers.
    names = {source: f"image_receiving-{source}".rstrip("-") for source in options.sources}
    databases = {
        source: Database(settings.data, IMAGE_DATABASE, Copy(name, str(settings.data), most=1))
        for source, name in names.items()
    }
    say(f"image_receiving: Kafka at {settings.bootstrap_servers}")
    say(f"image_receiving: from {ORIGINAL} to {IMAGE_DATABASE} in {settings.data}")
    has_begun = all(one.has(image_path(source, 0)) for source, one in databases.items())
    original = b"" if has_begun else read_original(settings)

    reasons: list[object] = []  # why a source could not go on

    def receive_from(source: str) -> int:
        try:
            outbox = Outbox(kafka, databases[source], names[source])
            return receive(source, outbox, databases[source], original, options)
        except SystemExit as reason:
            reasons.append(reason.code)
            return 0
        finally:
            if reasons:
                kafka.stop.ask()  # the others, too: nobody waits for half of the images

    with ThreadPoolExecutor(len(names)) as threads:
        received = sum(threads.map(receive_from, names))
    told = [reason for reason in reasons if isinstance(reason, str)]
    if told:
        sys.exit("; ".join(told))
    wanted = options.count * len(names)
    if received < wanted:
        sys.exit(f"image_receiving: stopped; {wanted - received} of {wanted} images are missing")
    say(f"image_receiving: received {received} images")


def receive(
    source: str, outbox: Outbox, images: Database, original: bytes, options: Namespace
) -> int:
    """Receive the images of one source; how many."""
    # A run before this one may have died between storing and publishing: that goes first.
    left = outbox.left()
    if left:
        outbox.put(left)
        outbox.publish()
    for message in outbox.settle():
        say(f"{message.image_id}  received by the run before, which was interrupted")

    first = number = images.next_number(source, outbox.known)
    end = first + options.count
    content = read_image(images, image_path(source, first - 1)) if first else original
    began = time.monotonic()
    while number < end and not outbox.stop:
        # As many as are due by now; without an interval, as many as are good to have in hand.
        batch: list[tuple[ReceivedImage, bytes]] = []
        size = 0
        while number < end and len(batch) < BATCH and size < BATCH_BYTES / len(options.sources):
            if time.monotonic() < began + (number - first) * options.interval:
                break
            content = next_image(number, content) if number else content
            batch.append((message_for(source, number, content), content))
            size += len(content)
            number += 1
        # While these were made, those before them were stored, and those before them published.
        images.sync()
        say_received(outbox.publish())
        if not batch:
            say_received(outbox.settle())
            outbox.stop.wait(began + (number - first) * options.interval - time.monotonic())
            continue
        outbox.put([message for message, _ in batch])
        for message, image in batch:
            images.write(message.path, image, is_new=True)
    images.sync()
    say_received(outbox.publish())
    say_received(outbox.settle())
    outbox.close()
    return number - first


def say_received(messages: Sequence[ReceivedImage]) -> None:
    """Say so of images that are stored, and that Kafka has acknowledged."""
    for message in messages:
        turned = ", turned by 90 degrees" if message.number % 4 == 3 else ""
        say(f"{message.image_id}  received{turned}")


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


def image_path(source: str, number: int) -> str:
    """Where an image is stored."""
    return f"{IMAGE_DATABASE}/{image_id(source, number)}.jpg"


def next_image(number: int, previous: bytes) -> bytes:
    """Image `number` as the mock camera sends it: the previous one's bytes, turned or not."""
    if number % 4 != 3:
        return previous
    image = Image.open(io.BytesIO(previous), formats=FORMATS)
    turned = ImageOps.exif_transpose(image).transpose(Image.Transpose.ROTATE_90)
    kind = "JPEG" if image.format == "MPO" else str(image.format)
    content = io.BytesIO()
    if kind == "JPEG":
        turned.save(content, kind, quality=95)
    else:
        turned.save(content, kind, lossless=True)  # which only WebP needs to be told
    return content.getvalue()


def message_for(source: str, number: int, content: bytes) -> ReceivedImage:
    """The message that an image is here."""
    return ReceivedImage(
        image_id=image_id(source, number),
        source=source,
        number=number,
        path=image_path(source, number),
        size=len(content),
        sha256=digest(content),
        received=datetime.now(UTC),
    )


def read_arguments(arguments: list[str] | None = None) -> tuple[Namespace, Settings]:
    """The options and settings; ends the program with 2 if one makes no sense."""
    parser = Parser("Receive images: make them from the original, store and publish them.")
    count = matching("0*[1-9][0-9]{0,8}", "a whole number from 1 to 999999999")
    source = matching(f"({SOURCE})?", "1 to 64 of a-z, 0-9 and _")
    about = "images of each source; default: 11"
    parser.add_argument("--count", metavar="N", type=count, default="11", help=about)
    sources = matching("[1-9][0-9]{0,2}", "a whole number from 1 to 999")
    seconds = matching(r"[0-9]{1,5}(\.[0-9]+)?", "a number of seconds, from 0 to 99999")
    about = "default: one without a name; may be given several times"
    parser.add_argument("--source", metavar="NAME", type=source, action="append", help=about)
    about = "as --source cam1 --source cam2 ... up to this number"
    parser.add_argument("--sources", metavar="N", type=sources, help=about)
    about = "between two images of a source; default: 0, as fast as it goes"
    parser.add_argument("--interval", metavar="SECONDS", type=seconds, default="0", help=about)
    options = parser.parse_args(arguments)
    if options.source and options.sources:
        parser.error("--source and --sources: give one of the two")
    numbered = [f"cam{number}" for number in range(1, int(options.sources or 0) + 1)]
    options.sources = numbered or list(dict.fromkeys(options.source or [""]))
    options.count, options.interval = int(options.count), float(options.interval)
    return options, parser.settings(options)


if __name__ == "__main__":
    main()
