"""Analyse images: compare each with the one before it; a change is an image event.

An event is a difference image, a description for people, and a message. With a threshold, it takes
a change whose block difference (see pipeline/comparison) reaches it; of each image without an
event, the topic `images-without-event` says why.

    python image_analysis.py [--threshold N] [--mask FILE]
"""

from contextlib import suppress

from pipeline.comparison.measure import compare
from pipeline.comparison.rule import Rule
from pipeline.descriptions import event_of, no_event
from pipeline.errors import InvalidInput
from pipeline.messages import (
    IMAGE_EVENTS,
    IMAGES,
    IMAGES_WITHOUT_EVENT,
    ReceivedImage,
    moment,
    parse,
    paths,
)
from pipeline.options import add_rule, read_rule
from pipeline.pictures.previous_images import (
    Recent,
    StoredImage,
    image_before,
    keep,
    read_stored_image,
)
from pipeline.program import run_program
from pipeline.settings import Parser
from pipeline.store.database import Database
from pipeline.store.names import IMAGE_DATABASE, IMAGE_EVENT_DATABASE
from pipeline.stream.stage import Batch, Stage
from pipeline.terminal import say


def main() -> None:
    """Analyse images until told to stop."""
    parser = Parser("Analyse images: compare each with the one before it; a change is an event.")
    add_rule(parser)
    options = parser.parse_args()
    settings = parser.settings(options)
    rule = read_rule(parser, options)
    stage = Stage(settings, "image_analysis", takes=IMAGES, publishes=IMAGE_EVENTS)
    images = Database(settings.data, IMAGE_DATABASE)
    events = Database(settings.data, IMAGE_EVENT_DATABASE, stage.lock)
    latest: dict[str, StoredImage] = {}  # by source; the image database has them too
    recent: Recent = {}
    told_of_mask: set[str] = set()  # sources
    say(f"image_analysis: Kafka at {settings.bootstrap_servers}")
    say(f"image_analysis: from {images.where} to {events.where}")

    for batch in stage.batches():
        for record in batch.earlier():
            with suppress(InvalidInput):
                message = parse(record.value, ReceivedImage)
                recent[message.image_id] = message
        images.expect(paths(batch.values, ReceivedImage))
        for record in batch:
            try:
                message = parse(record.value, ReceivedImage)
                recent[message.image_id] = message
                previous = image_before(images, message, latest.get(message.source), recent)
                image = read_stored_image(images, message, previous)
                change = (
                    compare(previous.pixels, image.pixels, rule.mask, rule.threshold)
                    if previous
                    else None
                )
            except InvalidInput as reason:
                batch.set_aside(record, reason)
                continue
            keep(latest, image)
            tell_of_mask(batch, rule, image, told_of_mask)
            received = message.received or moment(record.timestamp / 1000)
            if previous is None or change is None or change.block_difference < rule.threshold:
                without, why = no_event(previous, image, change, rule, received)
                batch.publish(record, without, IMAGES_WITHOUT_EVENT)
                batch.say_after_commit(f"{message.image_id}  {why}")
                continue
            event, files = event_of(previous, image, change, received, rule)
            # Without its time, the image may be sent again on purpose, after a reset.
            known = message.received or events.has(event.path)
            if known and batch.is_repeated(record, message):
                batch.say_after_commit(
                    f"{message.image_id}  came twice; its event is there already"
                )
                continue
            for path, content in files.items():
                events.write(path, content)
            batch.publish(record, event)
            batch.say_after_commit(
                f"{message.image_id}  CHANGED: {change.percent} of the pixels, "
                f"RMS {change.rms:.4g}; see {event.difference_path}"
            )
        events.sync()
        batch.commit()
        if len(recent) > 10_000:
            recent.clear()


def tell_of_mask(batch: Batch, rule: Rule, image: StoredImage, told: set[str]) -> None:
    """Say once of a source that the mask has another size than its images."""
    message, size = image.message, image.pixels.size
    if rule.mask and rule.mask.size != size and message.source not in told:
        told.add(message.source)
        sizes = "{} x {} pixels, and the image {} x {}".format(*rule.mask.size, *size)
        batch.say_after_commit(
            f"{message.image_id}  the mask has {sizes}: what it doesn't cover counts"
        )


if __name__ == "__main__":
    run_program(main)
