"""What Kafka adds to the files: what was set aside and why, and why an image is no event."""

import dataclasses
import math
from collections.abc import Iterable, Iterator
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
    ReceivedImage,
    moment,
    parse,
)
from pipeline.settings import Settings
from pipeline.stop_signal import StopSignal
from pipeline.stream.connection import Kafka
from pipeline.stream.dead_letters import Letter
from pipeline.stream.topic_reader import TopicReader
from pipeline.terminal import one_line, printable
from pipeline.viewer.index import LETTERS, TOGETHER, Index

# How many records of each partition to go back at the start.
MOST = 50  # dead letters at a time: each may have 2 MiB
TAKEN = {DEAD_LETTERS: LETTERS, IMAGES_WITHOUT_EVENT: 100_000, IMAGE_EVENTS: 0}
BEGINNING = 600  # of a value, in bytes; of a reason, in characters
PLACE = {"topic", "partition", "offset"}
REASONS = {
    "first image": "first image of its source",
    "same bytes": "the same bytes as the image before",
    "same pixels": "the same pixels as the image before",
}


class Watched(Kafka):
    """The way to Kafka for somebody who only looks.

    It makes no topics, waits without end, and what is wrong is for the pages, not the terminal.
    """

    def __init__(self, settings: Settings, stop: StopSignal, index: Index) -> None:
        self._index = index
        super().__init__(dataclasses.replace(settings, kafka_wait=math.inf), stop)
        self.options["request_timeout_ms"] = 10_000  # so long it asks a new Kafka for old topics

    def _make_topics(self) -> None:
        """None: those that aren't there have nothing to show."""

    def _is_away(self, reason: str, patience: float = 0) -> None:  # noqa: ARG002
        words = "Events are shown without it; what was set aside, and why, isn't."
        self._index.tell("kafka", f"Kafka at {self._where} can't be reached: {reason}. {words}")

    def _is_there(self) -> None:
        self._index.tell("kafka", "")


def follow(kafka: Watched, index: Index) -> None:
    """Take in what comes into the topics until told to stop; Kafka may come and go."""
    positions: dict[TopicPartition, int] = {}
    while not kafka.stop:
        try:
            with kafka.connect(TopicReader) as topics:
                while not kafka.stop:
                    for topic in TAKEN:
                        take(topics, topic, positions, index)
                    index.tell("kafka", "")
                    kafka.stop.wait(1)
        except FatalError as reason:  # what would have ended a stage
            index.tell("kafka", f"{reason}.")
        except Exception as error:  # whatever kafka-python stumbles over must not end this thread
            what = "" if isinstance(error, KafkaError) else f"{type(error).__name__}: "
            index.tell("kafka", f"Kafka can't be read: {what}{one_line(error)}.")
        kafka.stop.wait(5)


def take(
    topics: TopicReader, topic: str, positions: dict[TopicPartition, int], index: Index
) -> None:
    """Take in what is new in a topic."""
    ends = topics.end_offsets(topic)
    for partition in [one for one in positions if one.topic == topic]:
        if positions[partition] > ends.get(partition, 0):  # another Kafka stands in its place
            del positions[partition]
            if topic == DEAD_LETTERS:
                index.put("DELETE FROM letters WHERE partition = ?", [(partition.partition,)])
    for partition, end in ends.items():
        start = positions.get(partition, max(0, end - TAKEN[topic]))
        records = topics.read({partition: start}, {partition: end}) if start < end else iter(())
        while some := list(islice(records, MOST if topic == DEAD_LETTERS else TOGETHER)):
            PUT[topic](some, index)
        positions[partition] = end


def put_letters(records: Iterable[ConsumerRecord], index: Index) -> None:
    """Take in dead letters; the newest stay."""
    rows = []
    for record in records:
        value = record.value or b""
        about = {name: one[:BEGINNING] for name, one in Letter(record).about.items()}
        image_id = None
        with suppress(InvalidInput):
            image_id = parse(value, ReceivedImage).image_id
        rows.append(
            (
                *(record.partition, record.offset, record.timestamp),
                about.get("stage", ""),
                "{topic}[{partition}] {offset}".format(**about) if about.keys() >= PLACE else "",
                about.get("key"),
                about.get("exception.message", ""),
                printable(value[:BEGINNING].decode(errors="backslashreplace")),
                *(len(value), image_id),
            )
        )
    index.put("INSERT OR REPLACE INTO letters VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
    index.put(
        "DELETE FROM letters WHERE rowid IN (SELECT rowid FROM letters "
        "ORDER BY time DESC, partition DESC, offset DESC LIMIT -1 OFFSET ?)",
        [(LETTERS,)],
    )


def put_decisions(records: Iterable[ConsumerRecord], index: Index) -> None:
    """Take in why images are no events."""

    def rows() -> Iterator[tuple[object, ...]]:
        for record in records:
            with suppress(InvalidInput):
                one = parse(record.value, ImageWithoutEvent)
                reason = REASONS.get(
                    one.reason, f"{one.reason}: {one.block_difference or 0:g} of {one.threshold:g}"
                )
                received = one.received or moment(record.timestamp / 1000)
                yield one.image_id, one.source, one.number, int(received.timestamp()), reason

    index.put(
        "INSERT INTO images (id, source, number, time, reason) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT DO UPDATE SET time = excluded.time, reason = excluded.reason",
        rows(),
    )


def put_hints(records: Iterable[ConsumerRecord], index: Index) -> None:
    """Say which events are new: where listing takes long, they are seen at once all the same."""
    for record in records:
        with suppress(InvalidInput):
            index.hint(parse(record.value, ImageEvent).event_id)


PUT = {DEAD_LETTERS: put_letters, IMAGES_WITHOUT_EVENT: put_decisions, IMAGE_EVENTS: put_hints}
