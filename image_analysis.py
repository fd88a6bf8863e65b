"""Analyse images: compare each with the one before it; a change is an image event.

An event is a difference image and a description for people in the image event database, and a
message. Whether images differ, and how, is `comparison.py`'s to say.

    python image_analysis.py
"""

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from PIL import Image

from comparison import Change, compare, decode, draw
from pipeline import Unusable, say
from pipeline.messages import IMAGE_EVENTS, IMAGES, ImageEvent, ReceivedImage, image_id, parse
from pipeline.settings import Parser
from pipeline.store import IMAGE_DATABASE, IMAGE_EVENT_DATABASE, Database, digest
from pipeline.stream import Stage

Sums = dict[str, str | None]  # what messages say of recent images: SHA-256 by image_id


@dataclass(frozen=True)
class Taken:
    """An image that has been read, to compare the next one with."""

    image_id: str
    number: int
    path: str
    content: bytes
    pixels: Image.Image


def main() -> None:
    """Analyse images until told to stop."""
    parser = Parser("Analyse images: compare each with the one before it; a change is an event.")
    settings = parser.settings(parser.parse_args())
    stage = Stage(settings, "image_analysis", takes=IMAGES, publishes=IMAGE_EVENTS)
    images = Database(settings.data, IMAGE_DATABASE)
    events = Database(settings.data, IMAGE_EVENT_DATABASE, stage.copy)
    latest: dict[str, Taken] = {}  # by source; the image database has them too
    sums: Sums = {}
    say(f"image_analysis: Kafka at {settings.bootstrap_servers}")
    say(f"image_analysis: from {images.directory} to {events.directory}")

    for batch in stage.batches():
        for record in batch.earlier():
            with suppress(Unusable):
                remember(sums, parse(record.value, ReceivedImage))
        for record in batch:
            try:
                message = parse(record.value, ReceivedImage)
                remember(sums, message)
                previous = image_before(images, message, latest.get(message.source), sums)
                image = take(images, message, previous)
                change = compare(previous.pixels, image.pixels) if previous else None
            except Unusable as reason:
                batch.set_aside(record, reason)
                continue
            latest[message.source] = image
            if change is None or previous is None:
                batch.tell(f"{image.image_id}  {'unchanged' if previous else 'first image'}")
                continue
            received = message.received or datetime.fromtimestamp(record.timestamp / 1000, UTC)
            event, files = event_of(previous, image, change, received)
            # Without its time, the image may be sent again on purpose, after a reset.
            known = message.received or events.has(event.path)
            if known and batch.is_repeated(record, message):
                batch.tell(f"{image.image_id}  came twice; its event is there already")
                continue
            for path, content in files.items():
                events.write(path, content)
            batch.publish(record, event)
            batch.tell(
                f"{image.image_id}  CHANGED: {change.percent} of the pixels, "
                f"RMS {change.rms:.4g}; see {event.difference_path}"
            )
        batch.commit()


def remember(sums: Sums, message: ReceivedImage) -> None:
    """Keep an image's SHA-256: its file may be another by the time the next one is compared."""
    sums[message.image_id] = message.sha256
    if len(sums) > 10_000:
        del sums[next(iter(sums))]


def image_before(
    images: Database, message: ReceivedImage, latest: Taken | None, sums: Sums
) -> Taken | None:
    """The nearest earlier image of the source that can be used; None if there isn't any."""
    if latest and latest.number == message.number - 1:
        return latest
    for number in reversed(images.numbers(message.source)):
        if number < message.number:
            name = image_id(message.source, number)
            if latest and latest.image_id == name:
                return latest
            path = f"{IMAGE_DATABASE}/{name}.jpg"
            with suppress(Unusable):
                content = images.read(path, sums.get(name))
                return Taken(name, number, path, content, decode(content))
    return None


def take(images: Database, message: ReceivedImage, previous: Taken | None) -> Taken:
    """The image that a message names. Raises `Unusable`."""
    content = images.read(message.path, message.sha256)
    if previous and content == previous.content:
        pixels = previous.pixels
    else:
        try:
            pixels = decode(content)
        except Unusable as reason:
            raise Unusable(f"{message.path} {reason}") from reason
    return Taken(message.image_id, message.number, message.path, content, pixels)


def event_of(
    previous: Taken, image: Taken, change: Change, received: datetime
) -> tuple[ImageEvent, dict[str, bytes]]:
    """The image event of a change: the message, and the files for people by their paths."""
    path = f"{IMAGE_EVENT_DATABASE}/image_event_{image.image_id}.txt"
    difference_path = f"{IMAGE_EVENT_DATABASE}/image_event_{image.image_id}.jpg"
    difference = draw(change)
    left, top, right, bottom = change.box
    size, before = (f"{one.pixels.width} x {one.pixels.height}" for one in (image, previous))
    description = f"""\
Image event: {image.image_id}
Image: {image.path}
Previous image: {previous.path}
Difference image: {difference_path}
Received: {received.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC
Size: {size if size == before else f"{size}, before {before}"}
L2 norm: {change.l2_norm:.10g}
RMS difference: {change.rms:.6g} of {change.full_scale}
Pixels changed: {change.percent} ({change.changed_pixels} of {change.pixels})
Changed box: {right - left} x {bottom - top} pixels at x {left}, y {top}
""".encode()
    event = ImageEvent(
        event_id=image.image_id,
        image_id=image.image_id,
        previous_image_id=previous.image_id,
        path=path,
        sha256=digest(description),
        difference_path=difference_path,
        difference_sha256=digest(difference),
        l2_norm=change.l2_norm,
        rms=change.rms,
        changed_share=change.changed_share,
        box=change.box,
        received=received,
    )
    return event, {difference_path: difference, path: description}


if __name__ == "__main__":
    main()
