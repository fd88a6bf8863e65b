"""Keeps the index up to date with what only Kafka knows.

That is what was set aside and why, why an image is no event, and which events are new.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice

from kafka import TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import KafkaError

from pipeline.errors import FatalError, InvalidInput
from pipeline.messages import (
    DEAD_LETTERS,
    IMAGE_EVENTS,
    IMAGES_WITHOUT_EVENT,
    ImageEvent,
    ImageWithoutEvent,
    moment,
    parse,
)
from pipeline.settings import Settings
from pipeline.stop_signal import StopSignal
from pipeline.stream.availability import Availability
from pipeline.stream.connection import Kafka
from pipeline.stream.dead_letters import DeadLetter
from pipeline.stream.topic_reader import TopicReader
from pipeline.terminal import one_line, printable
from pipeline.viewer.files import FileFollower
from pipeline.viewer.index import Index

MAX_LETTERS = 10_000  # in the index
# How many records of each partition to read at the start, back from its end.
HISTORY = {DEAD_LETTERS: MAX_LETTERS, IMAGES_WITHOUT_EVENT: 100_000, IMAGE_EVENTS: 0}
# How many records to read together: a dead letter may have 2 MiB.
TOGETHER = {DEAD_LETTERS: 50, IMAGES_WITHOUT_EVENT: 500, IMAGE_EVENTS: 500}
BEGINNING = 600  # bytes of a value, or characters of a reason, that are shown
ORIGIN = {"topic", "partition", "offset"}
REASONS = {
    "first image": "first image of its source",
    "same bytes": "the same bytes as the image before",
    "same pixels": "the same pixels as the image before",
}


class ShownAvailability(Availability):
    """Shows on the pages that Kafka is away, and waits without end."""

    def __init__(self, settings: Settings, index: Index) -> None:
        super().__init__(settings)
        self._index = index

    def away(self, reason: str, patience: float = 0) -> None:  # noqa: ARG002
        """Show that Kafka is away."""
        words = "Events are shown without it; what was set aside, and why, isn't."
        self._index.set_trouble(
            "kafka", f"Kafka at {self.where} can't be reached: {reason}. {words}"
        )

    def there(self) -> None:
        """Show that Kafka can be reached again."""
        self._index.set_trouble("kafka", "")


class ReadOnlyKafka(Kafka):
    """Connections to Kafka for a program that only reads: it creates no topics."""

    def __init__(self, settings: Settings, stop: StopSignal, index: Index) -> None:
        super().__init__(settings, stop, ShownAvailability(settings, index))
        self.options["request_timeout_ms"] = (
            10_000  # or it asks a new Kafka for old topics for minutes
        )

    def make_topics(self) -> None:
        """Create none: a topic that isn't there has nothing to show."""


class TopicFollower:
    """Reads the topics again and again, and brings what is new into the index."""

    def __init__(
        self, settings: Settings, stop: StopSignal, index: Index, files: FileFollower
    ) -> None:
        self._kafka = ReadOnlyKafka(settings, stop, index)
        self._stop = stop
        self._index = index
        self._files = files
        self._positions: dict[TopicPartition, int] = {}

    def follow(self) -> None:
        """Follow the topics until the program is asked to stop; Kafka may come and go."""
        while not self._stop:
            try:
                with self._kafka.connect(TopicReader) as topics:
                    while not self._stop:
                        for topic in HISTORY:
                            self._read_new(topics, topic)
                        self._index.set_trouble("kafka", "")
                        self._stop.wait(1)
            except FatalError as reason:  # a stage would end here
                self._index.set_trouble("kafka", f"{reason}.")
            except Exception as error:  # kafka-python raises other errors than its own, too
                kind = "" if isinstance(error, KafkaError) else f"{type(error).__name__}: "
                trouble = f"Kafka can't be read: {kind}{one_line(error)}."
                self._index.set_trouble("kafka", trouble)
            self._stop.wait(5)

    def _read_new(self, topics: TopicReader, topic: str) -> None:
        """Read the records of a topic that are new."""
        ends = topics.end_offsets(topic)
        for partition in [known for known in self._positions if known.topic == topic]:
            if self._positions[partition] > ends.get(partition, 0):
                # Another Kafka has taken the place of the one before.
                del self._positions[partition]
                if topic == DEAD_LETTERS:
                    delete = "DELETE FROM letters WHERE partition = ?"
                    self._index.write(delete, [(partition.partition,)])
        for partition, end in ends.items():
            start = self._positions.get(partition, max(0, end - HISTORY[topic]))
            records = topics.read({partition: start}, {partition: end}) if start < end else iter(())
            while some := list(islice(records, TOGETHER[topic])):
                if topic == DEAD_LETTERS:
                    self._add_letters(some)
                elif topic == IMAGES_WITHOUT_EVENT:
                    self._index.write(
                        "INSERT INTO images (id, source, number, time, reason) "
                        "VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE "
                        "SET time = excluded.time, reason = excluded.reason",
                        _decisions(some),
                    )
                else:
                    self._announce_events(some)
            self._positions[partition] = end

    def _add_letters(self, records: Sequence[ConsumerRecord]) -> None:
        """Add dead letters to the index, in which only the newest stay."""
        rows = []
        for record in records:
            value = record.value or b""
            letter = DeadLetter(record)
            about = {name: text[:BEGINNING] for name, text in letter.origin.items()}
            has_origin = about.keys() >= ORIGIN
            rows.append(
                (
                    *(record.partition, record.offset, record.timestamp),
                    about.get("stage", ""),
                    "{topic}[{partition}] {offset}".format(**about) if has_origin else "",
                    about.get("key"),
                    about.get("exception.message", ""),
                    printable(value[:BEGINNING].decode(errors="backslashreplace")),
                    *(len(value), letter.image_id),
                )
            )
        insert = "INSERT OR REPLACE INTO letters VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        self._index.write(insert, rows)
        self._index.write(
            "DELETE FROM letters WHERE rowid IN (SELECT rowid FROM letters "
            "ORDER BY time DESC, partition DESC, offset DESC LIMIT -1 OFFSET ?)",
            [(MAX_LETTERS,)],
        )

    def _announce_events(self, records: Sequence[ConsumerRecord]) -> None:
        """Have new events read at once, since it may take long to list all files."""
        for record in records:
            with suppress(InvalidInput):
                self._files.announce(parse(record.value, ImageEvent).event_id)


def _decisions(records: Sequence[ConsumerRecord]) -> Iterator[tuple[object, ...]]:
    """Why images are no events, as rows of the index."""
    for record in records:
        with suppress(InvalidInput):
            image = parse(record.value, ImageWithoutEvent)
            measured = f"{image.block_difference or 0:g} of {image.threshold:g}"
            reason = REASONS.get(image.reason, f"{image.reason}: {measured}")
            received = image.received or moment(record.timestamp / 1000)
            yield image.image_id, image.source, image.number, int(received.timestamp()), reason
