"""Receive images: make them from the original, store each in the image database, publish it.

The mock part is `next_image`: image n is a copy of image n - 1, turned by 90 degrees when
n % 4 == 3. A later run goes on counting where the image database ends.

    python image_receiving.py [--count N] [--source NAME]
"""

import io
import sys
from argparse import Namespace
from datetime import UTC, datetime

from PIL import Image, ImageOps

from comparison import FORMATS, decode
from outbox import Outbox
from pipeline import Unusable, say
from pipeline.connection import Stop
from pipeline.messages import SOURCE, ReceivedImage, image_id
from pipeline.settings import Parser, Settings, matching
from pipeline.store import IMAGE_DATABASE, IMAGE_ORIGINAL, Copy, Database, digest
from pipeline.stream import BATCH

ORIGINAL = f"{IMAGE_ORIGINAL}/original_image.jpg"


def main() -> None:
    """Receive as many images as asked for."""
    options, settings = read_arguments()
    stop = Stop(status=1)
    name = f"image_receiving-{options.source}".rstrip("-")
    # One at a time for each source: two would count the same numbers.
    images = Database(settings.data, IMAGE_DATABASE, Copy(name, str(settings.data), most=1))
    originals = Database(settings.data, IMAGE_ORIGINAL)
    say(f"image_receiving: Kafka at {settings.bootstrap_servers}")
    say(f"image_receiving: from {settings.data / ORIGINAL} to {images.directory}")

    numbers = images.numbers(options.source)
    first = numbers[-1] + 1 if numbers else 0
    end = first + options.count
    last = f"{IMAGE_DATABASE}/{image_id(options.source, first - 1)}.jpg"
    begin_with, database = (last, images) if numbers else (ORIGINAL, originals)
    try:
        content = database.read(begin_with)
        decode(content, begin_with)
    except Unusable as reason:
        sys.exit(f"image_receiving: cannot begin: {reason}; put a picture there")

    outbox = Outbox(settings, images, name, stop)

    # A run before this one may have died between storing and publishing: that goes first.
    left = outbox.left()
    if left:
        outbox.publish(left)
    for message in left:
        say(f"{message.image_id}  received by the run before, which was interrupted")

    while first < end and not stop:
        batch = []
        for number in range(first, min(first + BATCH, end)):
            content = next_image(number, content) if number else content
            batch.append((message_for(options.source, number, content), content))
        messages = [message for message, _ in batch]
        outbox.put(messages)
        for message, image in batch:
            images.write(message.path, image, is_new=True)
        outbox.publish(messages)
        for message in messages:
            turned = ", turned by 90 degrees" if message.number % 4 == 3 else ""
            say(f"{message.image_id}  received{turned}")
        first += len(batch)
    outbox.close()
    if first < end:
        sys.exit(f"image_receiving: stopped; {end - first} of {options.count} images are missing")
    say(f"image_receiving: received {options.count} images")


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
    name = image_id(source, number)
    return ReceivedImage(
        image_id=name,
        source=source,
        number=number,
        path=f"{IMAGE_DATABASE}/{name}.jpg",
        size=len(content),
        sha256=digest(content),
        received=datetime.now(UTC),
    )


def read_arguments(arguments: list[str] | None = None) -> tuple[Namespace, Settings]:
    """The options and settings; ends the program with 2 if one makes no sense."""
    parser = Parser("Receive images: make them from the original, store and publish them.")
    count = matching("0*[1-9][0-9]{0,8}", "a whole number from 1 to 999999999")
    source = matching(f"({SOURCE})?", "1 to 64 of a-z, 0-9 and _")
    parser.add_argument("--count", metavar="N", type=count, default="11", help="default: 11")
    parser.add_argument("--source", metavar="NAME", type=source, default="", help="default: none")
    options = parser.parse_args(arguments)
    options.count = int(options.count)
    return options, parser.settings(options)


if __name__ == "__main__":
    main()
