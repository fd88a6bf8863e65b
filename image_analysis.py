"""Analyse images: compare each with the one before it; a change is an image event.

An event is a difference image, a description for people, and a message.

    python image_analysis.py
"""

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from PIL import Image

from comparison import Change, compare, decode, draw
from pipeline import Unusable, moment, say
from pipeline.messages import (
    IMAGE_EVENTS,
    IMAGES,
    ImageEvent,
    ReceivedImage,
    image_id,
    parse,
    paths,
)
from pipeline.settings import Parser
from pipeline.store import IMAGE_DATABASE, IMAGE_EVENT_DATABASE, Database, digest
from pipeline.stream import Stage

Recent = dict[str, ReceivedImage]  # by image_id: by now, the file may be another one
LATEST_PIXELS = 200_000_000  # to keep of all sources together, up to 4 bytes each


@dataclass(frozen=True)
class Taken:
    """An image that has been read, to compare the next one with."""

    message: ReceivedImage
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
    recent: Recent = {}
    say(f"image_analysis: Kafka at {settings.bootstrap_servers}")
    say(f"image_analysis: from {images.where} to {events.where}")

    for batch in stage.batches():
        for record in batch.earlier():
            with suppress(Unusable):
                message = parse(record.value, ReceivedImage)
                recent[message.image_id] = message
        images.expect(paths(batch.values, ReceivedImage))
        for record in batch:
            try:
                message = parse(record.value, ReceivedImage)
                recent[message.image_id] = message
                previous = image_before(images, message, latest.get(message.source), recent)
                image = take(images, message, previous)
                change = compare(previous.pixels, image.pixels) if previous else None
            except Unusable as reason:
                batch.set_aside(record, reason)
                continue
            keep(latest, image)
            if change is None or previous is None:
                batch.tell(f"{message.image_id}  {'unchanged' if previous else 'first image'}")
                continue
            received = message.received or moment(record.timestamp / 1000)
            event, files = event_of(previous, image, change, received)
            # Without its time, the image may be sent again on purpose, after a reset.
            known = message.received or events.has(event.path)
            if known and batch.is_repeated(record, message):
                batch.tell(f"{message.image_id}  came twice; its event is there already")
                continue
            for path, content in files.items():
                events.write(path, content)
            batch.publish(record, event)
            batch.tell(
                f"{message.image_id}  CHANGED: {change.percent} of the pixels, "
                f"RMS {change.rms:.4g}; see {event.difference_path}"
            )
        events.sync()
        batch.commit()
        if len(recent) > 10_000:
            recent.clear()


def keep(latest: dict[str, Taken], image: Taken) -> None:
    """Keep a source's latest image; of too many sources, forget the one that was idle longest."""
    before = latest.pop(image.message.source, None)
    latest[image.message.source] = image
    is_larger = before is None or before.pixels.size != image.pixels.size
    while is_larger and len(latest) > 1:
        if sum(one.pixels.width * one.pixels.height for one in latest.values()) < LATEST_PIXELS:
            break
        del latest[next(iter(latest))]


def image_before(
    images: Database, message: ReceivedImage, latest: Taken | None, recent: Recent
) -> Taken | None:
    """The nearest earlier image of the source that can be used; None if there isn't any."""
    if latest and latest.message.number == message.number - 1:
        return latest
    source = message.source
    for number in images.numbers_before(source, message.number):
        if latest and latest.message.number == number:
            return latest
        name = image_id(source, number)
        path = f"{IMAGE_DATABASE}/{name}.jpg"
        stored = ReceivedImage(image_id=name, source=source, number=number, path=path)
        with suppress(Unusable):
            return take(images, recent.get(name, stored))
    return None


def take(images: Database, message: ReceivedImage, previous: Taken | None = None) -> Taken:
    """The image that a message names. Raises `Unusable`."""
    content = images.read(message.path, message.sha256)
    if previous and previous.content == content:
        return Taken(message, content, previous.pixels)
    return Taken(message, content, decode(content, message.path))


def event_of(
    previous: Taken, image: Taken, change: Change, received: datetime
) -> tuple[ImageEvent, dict[str, bytes]]:
    """The image event of a change: the message, and the files for people by their paths."""
    name, before = image.message.image_id, previous.message.image_id
    path = f"{IMAGE_EVENT_DATABASE}/image_event_{name}.txt"
    difference_path = f"{IMAGE_EVENT_DATABASE}/image_event_{name}.jpg"
    difference = draw(change)
    left, top, right, bottom = change.box
    size, size_before = (f"{one.pixels.width} x {one.pixels.height}" for one in (image, previous))
    description = f"""\
Image event: {name}
Image: {image.message.path}
Previous image: {previous.message.path}
Difference image: {difference_path}
Received: {received.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC
Size: {size if size == size_before else f"{size}, before {size_before}"}
L2 norm: {change.l2_norm:.10g}
RMS difference: {change.rms:.6g} of {change.full_scale}
Pixels changed: {change.percent} ({change.changed_pixels} of {change.pixels})
Changed box: {right - left} x {bottom - top} pixels at x {left}, y {top}
""".encode()
    event = ImageEvent(
        event_id=name,
        image_id=name,
        previous_image_id=before,
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
