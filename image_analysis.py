"""Analyse images: compare each with the one before it; a change is an image event.

An event is a difference image, a description for people, and a message. With a threshold, it takes
a change whose block difference (see comparison.py) reaches it; of each image without an event, the
topic `images-without-event` says why.

    python image_analysis.py [--threshold N] [--mask FILE]
"""

from argparse import Namespace
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from PIL import Image

from comparison import Change, compare, decode, draw, mask_of
from pictures import read_picture
from pipeline import Unusable, moment, say
from pipeline.messages import (
    IMAGE_EVENTS,
    IMAGES,
    IMAGES_WITHOUT_EVENT,
    ImageEvent,
    ImageWithoutEvent,
    ReceivedImage,
    image_id,
    parse,
    paths,
)
from pipeline.settings import Parser, matching
from pipeline.store import IMAGE_DATABASE, IMAGE_EVENT_DATABASE, Database, digest
from pipeline.stream import Batch, Stage, printable

Recent = dict[str, ReceivedImage]  # by image_id: by now, the file may be another one
LATEST_PIXELS = 200_000_000  # to keep of all sources together, up to 4 bytes each


@dataclass(frozen=True)
class Taken:
    """An image that has been read, to compare the next one with."""

    message: ReceivedImage
    content: bytes
    pixels: Image.Image


@dataclass(frozen=True)
class Rule:
    """What makes an image an event."""

    threshold: float = 0  # that the block difference must reach; 0: any difference will do
    mask: Image.Image | None = None  # of what is ignored
    mask_sha256: str | None = None  # of its file


ANY_DIFFERENCE = Rule()


def main() -> None:
    """Analyse images until told to stop."""
    parser = Parser("Analyse images: compare each with the one before it; a change is an event.")
    add_rule(parser)
    options = parser.parse_args()
    settings = parser.settings(options)
    rule = read_rule(parser, options)
    stage = Stage(settings, "image_analysis", takes=IMAGES, publishes=IMAGE_EVENTS)
    images = Database(settings.data, IMAGE_DATABASE)
    events = Database(settings.data, IMAGE_EVENT_DATABASE, stage.copy)
    latest: dict[str, Taken] = {}  # by source; the image database has them too
    recent: Recent = {}
    told_of_mask: set[str] = set()  # sources
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
                change = (
                    compare(previous.pixels, image.pixels, rule.mask, rule.threshold)
                    if previous
                    else None
                )
            except Unusable as reason:
                batch.set_aside(record, reason)
                continue
            keep(latest, image)
            tell_of_mask(batch, rule, image, told_of_mask)
            received = message.received or moment(record.timestamp / 1000)
            if previous is None or change is None or change.block_difference < rule.threshold:
                without, why = no_event(previous, image, change, rule, received)
                batch.publish(record, without, IMAGES_WITHOUT_EVENT)
                batch.tell(f"{message.image_id}  {why}")
                continue
            event, files = event_of(previous, image, change, received, rule)
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


def add_rule(parser: Parser) -> None:
    """The options that say what makes an image an event."""
    number = matching(r"[0-9]{1,10}(\.[0-9]{1,20})?(e-?[0-9]{1,2})?", "a number, as in 10")
    about = "the least block difference that is an event, in the image's own units; 0: any; "
    parser.add_setting("--threshold", "N", "0", number, about)
    about = "an image that isn't black where changes are to be ignored; "
    parser.add_setting("--mask", "FILE", None, about=about)


def read_rule(parser: Parser, options: Namespace) -> Rule:
    """The rule that the options say; ends the program with 2 if the mask can't be used."""
    threshold = float(options.threshold)
    if not options.mask:
        return Rule(threshold)
    try:
        content = read_picture(options.mask).content
        return Rule(threshold, mask_of(decode(content)), digest(content))
    except Unusable as reason:
        parser.error(f"--mask or PIPELINE_MASK: {reason}")


def tell_of_mask(batch: Batch, rule: Rule, image: Taken, told: set[str]) -> None:
    """Say once of a source that the mask has another size than its images."""
    message, size = image.message, image.pixels.size
    if rule.mask and rule.mask.size != size and message.source not in told:
        told.add(message.source)
        sizes = "{} x {} pixels, and the image {} x {}".format(*rule.mask.size, *size)
        batch.tell(f"{message.image_id}  the mask has {sizes}: what it doesn't cover counts")


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
        stored = recent.get(name) or ReceivedImage(
            image_id=name, source=source, number=number, path=images.find(name)
        )
        with suppress(Unusable):
            return take(images, stored)
    return None


def take(images: Database, message: ReceivedImage, previous: Taken | None = None) -> Taken:
    """The image that a message names. Raises `Unusable`."""
    content = images.read(message.path, message.sha256)
    if previous and previous.content == content:
        return Taken(message, content, previous.pixels)
    return Taken(message, content, decode(content, message.path))


def no_event(
    previous: Taken | None, image: Taken, change: Change | None, rule: Rule, received: datetime
) -> tuple[ImageWithoutEvent, str]:
    """Why an image is no event: the message, and the words for the terminal."""
    reason: Literal["first image", "same bytes", "same pixels", "below threshold"]
    words = "unchanged"
    if previous is None:
        reason = words = "first image"
    elif change:
        reason = "below threshold"
        measured = f"largest block difference {change.block_difference:.4g}"
        words = f"no event: {measured} is under the threshold {rule.threshold:.10g}"
    else:
        reason = "same bytes" if previous.pixels is image.pixels else "same pixels"
    without = ImageWithoutEvent(
        image_id=image.message.image_id,
        reason=reason,
        previous_image_id=previous.message.image_id if previous else None,
        block_difference=change.block_difference if change else None,
        threshold=rule.threshold,
        mask_sha256=rule.mask_sha256,
        received=received,
    )
    return without, words


def event_of(
    previous: Taken, image: Taken, change: Change, received: datetime, rule: Rule = ANY_DIFFERENCE
) -> tuple[ImageEvent, dict[str, bytes]]:
    """The image event of a change: the message, and the files for people by their paths."""
    name, before = image.message.image_id, previous.message.image_id
    path = f"{IMAGE_EVENT_DATABASE}/image_event_{name}.txt"
    difference_path = f"{IMAGE_EVENT_DATABASE}/image_event_{name}.jpg"
    difference = draw(change)
    left, top, right, bottom = change.box
    size, size_before = (f"{one.pixels.width} x {one.pixels.height}" for one in (image, previous))
    full = f"of {change.full_scale:.6g}"
    in_a_block = ", in a block of 8 x 8 pixels"
    lines = {
        "Image event": name,
        "Image": image.message.path,
        "Previous image": previous.message.path,
        "Original file": printable(image.message.original_name or ""),
        "Difference image": difference_path,
        "Received": f"{received.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC",
        "Size": size if size == size_before else f"{size}, before {size_before}",
        "L2 norm": f"{change.l2_norm:.10g}",
        "RMS difference": f"{change.rms:.6g} {full}",
        "Largest block difference": f"{change.block_difference:.6g} {full}{in_a_block}",
        "Threshold": f"{rule.threshold:.10g}" if rule.threshold else "any difference",
        "Mask": f"SHA-256 {rule.mask_sha256}" if rule.mask_sha256 else "",
        "Pixels changed": f"{change.percent} ({change.changed_pixels} of {change.pixels})",
        "Changed box": f"{right - left} x {bottom - top} pixels at x {left}, y {top}",
    }
    known = (f"{name}: {value}\n" for name, value in lines.items() if value)
    description = "".join(known).encode()
    event = ImageEvent(
        event_id=name,
        image_id=name,
        previous_image_id=before,
        path=path,
        sha256=digest(description),
        difference_path=difference_path,
        difference_sha256=digest(difference),
        image_path=image.message.path,
        previous_image_path=previous.message.path,
        l2_norm=change.l2_norm,
        rms=change.rms,
        changed_share=change.changed_share,
        box=change.box,
        block_difference=change.block_difference,
        threshold=rule.threshold,
        mask_sha256=rule.mask_sha256,
        received=received,
    )
    return event, {difference_path: difference, path: description}


if __name__ == "__main__":
    main()
