"""Analyse images: compare each image with the one before it; a change is an image event.

For each batch of messages from the topic `images`:

1. Take: read each image, and the image before it, from the image database.
2. Decide: an image that has changed enough is an image event; any other is none, for a reason.
3. Store: the event's difference image and description go into the image event database.
4. Publish: the event in the topic `image-events`, or the reason in `images-without-event`.
5. Commit: one Kafka transaction makes these messages and the batch's offsets true together.

Whenever this program is killed, a batch without its commit is consumed again from its beginning:
its files are written again with the same bytes, and its messages are published once. Ctrl-C or
SIGTERM ends the loops after the record in hand, which is committed (`pipeline/stop_signal.py`).

    python image_analysis.py [--threshold N] [--scene-change PERCENT] [--mask FILE]
"""

from pipeline.errors import InvalidInput
from pipeline.image_events import NewEvent, decide
from pipeline.messages import IMAGES_WITHOUT_EVENT, ReceivedImage, moment, parse, paths
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
    rule, settings = analysis_options()
    stage = Stage(settings, IMAGE_ANALYSIS)
    images = Database(settings.data, IMAGE_DATABASE)
    events = Database(settings.data, IMAGE_EVENT_DATABASE, stage.lock)
    previous_images = PreviousImages(images)
    warned_sources: set[str] = set()  # those whose images have another size than the mask
    say(f"image_analysis: Kafka at {settings.bootstrap_servers}")
    say(f"image_analysis: from {images.where} to {events.where}")

    for batch in stage.batches():
        with batch:  # a batch that isn't committed is consumed again
            # 1. Take; the records before a batch name the images before it, with their hashes
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

                # 2. Decide
                received = message.received or moment(record.timestamp / 1000)
                decision = decide(previous, image, rule, received)
                if not isinstance(decision, NewEvent):
                    batch.publish(record, decision.message, IMAGES_WITHOUT_EVENT)
                    batch.say_after_commit(f"{message.image_id}  {decision.summary}")
                    continue
                # Two messages with a time and the same bytes are the same message. One without a
                # time may be sent anew after the directories were emptied, and is then no repeat.
                may_be_repeated = message.received or events.has(decision.message.path)
                if may_be_repeated and batch.is_repeated(record, message):
                    batch.say_after_commit(
                        f"{message.image_id}  came twice; its event is there already"
                    )
                    continue

                # 3. Store
                for path, content in decision.files.items():
                    events.write(path, content)

                # 4. Publish
                batch.publish(record, decision.message)
                batch.say_after_commit(f"{message.image_id}  {decision.summary}")

            # 5. Commit, once all files are safely on the disk
            events.sync()
            batch.commit()


if __name__ == "__main__":
    run_program(main)
