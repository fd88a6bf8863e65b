"""Receive images: store each in the image database, and publish a message of it to `images`.

All sources are received at the same time. For each of them, batch by batch:

1. Take: pictures come from files, from a watched directory, or from the mock camera.
2. Decide: each picture gets the next number of its source, which makes it an image.
3. Store: the outbox remembers the messages on disk, then the images go into the image database.
4. Publish: all messages of the batch, in one Kafka transaction.
5. Commit: the same transaction commits how far the source has come, for the next run to read.

Whenever this program is killed, the next run completes the batch: no image is lost, and none is
published twice (see `pipeline/stream/outbox.py`). Ctrl-C or SIGTERM ends the loop after the picture
in hand (`pipeline/stop_signal.py`).

    python image_receiving.py [--count N] [--source NAME]... [--sources N] [--interval SECONDS]
    python image_receiving.py --from PATH... [--watch] [--accept-damaged] [--source NAME] ...
    python image_receiving.py --from PATH... --source-from PATTERN ...
"""

from collections import Counter
from collections.abc import Iterator

from pipeline.concurrently import run_concurrently
from pipeline.errors import FatalError
from pipeline.options import ReceivingOptions, receiving_options
from pipeline.pictures.batches import batches, paced
from pipeline.pictures.files import pictures_of
from pipeline.pictures.mock import ORIGINAL, check_original, mock_pictures
from pipeline.pictures.picture import Picture, image_message
from pipeline.pictures.watch import DirectoryWatcher
from pipeline.program import run_program
from pipeline.stop_signal import StopSignal
from pipeline.store.database import Database
from pipeline.store.instance_lock import InstanceLock
from pipeline.store.names import IMAGE_DATABASE
from pipeline.store.numbering import last_image
from pipeline.stream.connection import Kafka
from pipeline.stream.membership import MAX_BATCH
from pipeline.stream.outbox import Outbox, receiver_name
from pipeline.terminal import printable, say
from pipeline.wording import count_of

BATCH_BYTES = 32 * 2**20  # of images in the batches of all sources; each has two in memory
FOUND_SOURCES = 8  # for which there is room, where the names of files make the sources


def main() -> None:
    """Receive as many images as asked for, from all sources at the same time."""
    options, settings = receiving_options()
    kafka = Kafka(settings, StopSignal(status=0 if options.watched else 1))
    # In the order of their names, so that two receivers never wait for each other.
    databases = {source: open_database(source, kafka) for source in sorted(options.sources)}
    say(f"image_receiving: Kafka at {settings.bootstrap_servers}")
    origin = printable(", ".join(options.paths)) or ORIGINAL
    say(f"image_receiving: from {origin} to {IMAGE_DATABASE} in {settings.data}")
    for line in options.ignored:
        say(line)
    if not options.paths:
        check_original(settings, databases)

    def receive_from(source: str) -> Counter[str]:
        # A source that a file's name has made was not there when the others were opened.
        images = databases.get(source) or open_database(source, kafka)
        return receive(source, images, kafka, options)

    counts = run_concurrently(receive_from, options.sources_to_receive(kafka.stop), kafka.stop)
    total = sum(counts.values(), Counter[str]())
    expected = options.expected_count({name: count["set aside"] for name, count in counts.items()})
    missing = expected - total["received"]
    if missing > 0:
        raise FatalError(
            f"image_receiving: stopped; {missing} of {count_of(expected, 'image')} missing"
        )
    set_aside = f"; {total['set aside']} set aside" if options.paths else ""
    say(f"image_receiving: received {count_of(total['received'], 'image')}{set_aside}")


def open_database(source: str, kafka: Kafka) -> Database:
    """The image database, locked: two receivers of one source would give out the same numbers.

    A second receiver waits until the first has ended.
    """
    lock = InstanceLock(receiver_name(source), kafka.settings, only_one=kafka.stop)
    return Database(kafka.settings.data, IMAGE_DATABASE, lock)


def receive(source: str, images: Database, kafka: Kafka, options: ReceivingOptions) -> Counter[str]:
    """Receive the images of one source; how many were received, and how many files set aside."""
    outbox = Outbox(kafka, images, source)
    outbox.recover()
    last, last_path = last_image(images, source, outbox.published_count)
    number = last + 1
    outbox.seen.forget_from(number)

    pictures: Iterator[Picture | None]
    if options.watched:
        watcher = DirectoryWatcher(
            *(options.watched, source, outbox.seen, outbox.set_aside, kafka.stop),
            accept_damaged=options.accept_damaged,
        )
        pictures = watcher.pictures()
    elif options.paths:
        pictures = pictures_of(options.files[source], outbox.set_aside, options.accept_damaged)
    else:
        pictures = mock_pictures(number, images, last_path, kafka.settings)
    pictures = paced(pictures, options.count, options.interval, kafka.stop)

    batch_bytes = BATCH_BYTES // (len(options.sources) or FOUND_SOURCES)
    for batch in batches(pictures, MAX_BATCH, batch_bytes):  # 1. Take
        # 2. Decide
        messages = [image_message(picture, source, n) for n, picture in enumerate(batch, number)]

        # 3. Store
        lines = []
        outbox.remember(messages, [picture.fingerprint for picture in batch])
        for message, picture in zip(messages, batch, strict=True):
            images.write(message.path, picture.content, is_new=True)
            lines.append(f"{message.image_id}  received{picture.remark}")

        # 4. Publish and 5. Commit, in the background
        outbox.publish(messages, say_when_published=lines)
        number += len(batch)
    outbox.close()
    return Counter({"received": number - last - 1, "set aside": outbox.set_aside_count})


if __name__ == "__main__":
    run_program(main)
