"""Analyse images: compare each image with the one before it; a change is an image event.

For each batch of messages from the topic `images`:

1. take the batch: read each image, and the image before it, from `image_database/`;
2. decide: an image that has changed enough is an image event, and any other is none for a reason;
3. store the event's difference image and description in `image_event_database/`;
4. publish the event in the topic `image-events`, or the reason in `images-without-event`;
5. commit: the messages and the offsets of the batch become visible in one transaction.

The program can be killed at any time: a batch without its commit is taken again, the files are
written again with the same bytes, and a message that comes twice causes one event.

    python image_analysis.py [--threshold N] [--mask FILE]
"""

from pipeline.errors import InvalidInput
from pipeline.image_events import NewEvent, decide
from pipeline.messages import (
    IMAGE_EVENTS,
    IMAGES_WITHOUT_EVENT,
    ReceivedImage,
    moment,
    parse,
    paths,
)
from pipeline.options import analysis_options
from pipeline.pictures.previous_images import PreviousImages
from pipeline.program import run_program
from pipeline.stages import IMAGE_ANALYSIS
from pipeline.store.database import Database
from pipeline.store.names import IMAGE_DATABASE, IMAGE_EVENT_DATABASE
from pipeline.stream.stage import Stage
from pipeline.terminal import say


def main() -> None:
    """Analyse images until the program is asked to stop."""
    options = analysis_options()
    settings, rule = options.settings, options.rule
    stage = Stage(settings, IMAGE_ANALYSIS)
    images = Database(settings.data, IMAGE_DATABASE)
    events = Database(settings.data, IMAGE_EVENT_DATABASE, stage.lock)
    previous_images = PreviousImages(images)
    warned_sources: set[str] = set()  # whose images have another size than the mask
    say(f"image_analysis: Kafka at {settings.bootstrap_servers}")
    say(f"image_analysis: from {images.where} to {events.where}")

    for batch in stage.batches():
        with batch:  # without its commit, it is taken again
            # 1. Take the batch.
            previous_images.remember(record.value for record in batch.preceding())
            images.prefetch(paths(batch.values, ReceivedImage))
            for record in batch:
                try:
                    message = parse(record.value, ReceivedImage)
                    previous, image = previous_images.read(message)
                except InvalidInput as reason:
                    batch.set_aside(record, reason)
                    continue
                warning = rule.mask_warning(image.pixels.size)
                if warning and message.source not in warned_sources:
                    warned_sources.add(message.source)
                    batch.say_after_commit(f"{message.image_id}  {warning}")

                # 2. Decide.
                received = message.received or moment(record.timestamp / 1000)
                decision = decide(previous, image, rule, received)
                if isinstance(decision, NewEvent):
                    # After a reset, a message without a time may be sent again on purpose. Such a
                    # message counts as repeated only while its event's file is there.
                    may_be_repeated = message.received or events.has(decision.message.path)
                    if may_be_repeated and batch.is_repeated(record, message):
                        batch.say_after_commit(
                            f"{message.image_id}  came twice; its event is there already"
                        )
                        continue

                    # 3. Store the event's files.
                    for path, content in decision.files.items():
                        events.write(path, content)

                # 4. Publish the event, or the reason that there is none.
                topic = IMAGE_EVENTS if isinstance(decision, NewEvent) else IMAGES_WITHOUT_EVENT
                batch.publish(record, decision.message, topic)
                batch.say_after_commit(f"{message.image_id}  {decision.summary}")

            # 5. Commit, once all files are safely in place.
            events.sync()
            batch.commit()


if __name__ == "__main__":
    run_program(main)
