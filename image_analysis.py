"""Analyse images: compare each with the one before it; a change is an image event.

An event is a difference image and a description for people in the image event database, and a
message. Whether images differ, and how, is `comparison.py`'s to say.

    python image_analysis.py
"""

from dataclasses import dataclass
from datetime import UTC, datetime

from PIL import Image

from comparison import Change, compare, decode, draw
from pipeline import Unusable, say
from pipeline.messages import IMAGE_EVENTS, IMAGES, ImageEvent, ReceivedImage, image_id, parse
from pipeline.settings import Parser
from pipeline.store import IMAGE_DATABASE, IMAGE_EVENT_DATABASE, Database, digest
from pipeline.stream import Stage


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
    stage = Stage(settings, "image_analysis", IMAGES)
    images = Database(settings.data, IMAGE_DATABASE)
    events = Database(settings.data, IMAGE_EVENT_DATABASE, stage.copy)
    latest: dict[str, Taken] = {}  # by source; the image database has them too
    say(f"image_analysis: Kafka at {settings.bootstrap_servers}")
    say(f"image_analysis: from {images.directory} to {events.directory}")

    for batch in stage.batches():
        for record in batch:
            try:
                message = parse(record.value, ReceivedImage)
                previous = image_before(images, message, latest.get(message.source))
                image = take(images, message, previous)
            except Unusable as reason:
                batch.set_aside(record, reason)
                continue
            latest[message.source] = image
            if previous is None:
                batch.tell(f"{image.image_id}  first image")
                continue
            same = image.pixels is previous.pixels  # the same bytes
            change = None if same else compare(previous.pixels, image.pixels)
            if change is None:
                batch.tell(f"{image.image_id}  unchanged")
                continue
            received = message.received or datetime.fromtimestamp(record.timestamp / 1000, UTC)
            event = store_event(events, previous, image, change, received)
            batch.publish(IMAGE_EVENTS, message.source, event)
            batch.tell(
                f"{image.image_id}  CHANGED: {percent(change)} of the pixels, "
                f"RMS {change.rms:.4g}; see {event.difference_path}"
            )
        batch.commit()


def image_before(images: Database, message: ReceivedImage, latest: Taken | None) -> Taken | None:
    """The nearest earlier image of the source that can be used; None if there isn't any."""
    if latest and latest.number == message.number - 1:
        return latest
    for number in reversed(images.numbers(message.source)):
        if number < message.number:
            name = image_id(message.source, number)
            path = images.path(f"{name}.jpg")
            try:
                content = images.read(path)
                return Taken(name, number, path, content, decode(content))
            except Unusable:
                continue
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


def store_event(
    events: Database, previous: Taken, image: Taken, change: Change, received: datetime
) -> ImageEvent:
    """Put the difference image and the description in place and return the message."""
    name = f"image_event_{image.image_id}"
    difference_path = events.write(f"{name}.jpg", draw(change))
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
Pixels changed: {percent(change)} ({change.changed_pixels} of {change.pixels})
Changed box: {right - left} x {bottom - top} pixels at x {left}, y {top}
""".encode()
    return ImageEvent(
        event_id=image.image_id,
        image_id=image.image_id,
        previous_image_id=previous.image_id,
        path=events.write(f"{name}.txt", description),
        difference_path=difference_path,
        sha256=digest(description),
        l2_norm=change.l2_norm,
        rms=change.rms,
        changed_share=change.changed_share,
        box=change.box,
        received=received,
    )


def percent(change: Change) -> str:
    """The share of changed pixels, never rounded to 0 %."""
    return f"{100 * change.changed_share:.3g} %"


if __name__ == "__main__":
    main()
