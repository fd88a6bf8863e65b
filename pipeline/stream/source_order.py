"""Keeps the order of a source's messages after somebody has added partitions to a topic.

Kafka keeps the order within a partition alone. With more partitions, a source's next message may
come to another partition than those before it, and that one to another copy of the stage. So the
first message of a source in a partition waits until the group has processed the source's messages
with lower numbers in all other partitions.
"""

from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from kafka import TopicPartition
from kafka.consumer.fetcher import ConsumerRecord

from pipeline.errors import InvalidInput
from pipeline.messages import MESSAGE_TYPES, ImageMessage, parse
from pipeline.stream.connection import Kafka
from pipeline.stream.dead_letters import SENT_AGAIN
from pipeline.stream.groups import committed_offsets
from pipeline.stream.positions import partition_name
from pipeline.stream.topic_reader import TopicReader
from pipeline.terminal import say


@dataclass
class Waiting:
    """The messages of a source in a partition that the group had not processed."""

    lowest: int  # number of them
    last: int  # offset of them


class SourceOrder:
    """Knows which records of a topic must wait for others of the topic."""

    def __init__(self, kafka: Kafka, topics: TopicReader, group: str, topic: str) -> None:
        self._kafka = kafka
        self._topics = topics
        self._group = group
        self._topic = topic
        self._begun: set[tuple[TopicPartition, str]] = set()  # sources, each in a partition
        self._waiting: dict[str, dict[TopicPartition, Waiting]] = {}  # by source
        self._end: dict[TopicPartition, int] = {}  # up to which the topic was looked through
        self._said: set[tuple[TopicPartition, str]] = set()

    def begin(self, records: Iterable[ConsumerRecord]) -> None:
        """Note that the group has processed these records."""
        for record in records:
            for message in self._message(record):
                self._begun.add((_partition(record), message.source))

    def must_wait(self, record: ConsumerRecord) -> bool:
        """Whether earlier messages of the record's source wait elsewhere. Raises `KafkaError`."""
        for message in self._message(record):
            partition = _partition(record)
            if (partition, message.source) in self._begun:
                continue
            earlier = self._earlier(record, message)
            if earlier is None:
                self._begun.add((partition, message.source))
                continue
            if (partition, message.source) not in self._said:
                self._said.add((partition, message.source))
                say(
                    f"{message.image_id} is in {partition_name(partition)} and waits for the "
                    f"messages before it in {partition_name(earlier)}: partitions were added"
                )
            return True
        return False

    def _earlier(self, record: ConsumerRecord, message: ImageMessage) -> TopicPartition | None:
        """Another partition in which messages of the source with lower numbers wait."""
        if record.offset >= self._end.get(_partition(record), 0):
            self._look_through()
        found = {
            partition: waiting.last
            for partition, waiting in self._waiting.get(message.source, {}).items()
            if partition != _partition(record) and waiting.lowest < message.number
        }
        if not found:
            return None
        offsets = committed_offsets(self._kafka, self._group)
        beginnings = self._topics.beginning_offsets(self._topic)  # Kafka may delete what waits
        for partition, last in found.items():
            if max(offsets.get(partition, 0), beginnings.get(partition, 0)) <= last:
                return partition
        return None

    def _look_through(self) -> None:
        """Look through all that the group has not processed yet."""
        self._waiting = defaultdict(dict)
        start = self._topics.beginning_offsets(self._topic)
        start |= committed_offsets(self._kafka, self._group)
        end = self._topics.end_offsets(self._topic)
        for record in self._topics.read(start, end):
            # What is sent again comes behind later messages in any case.
            if SENT_AGAIN.isdisjoint(name for name, _ in record.headers):
                for message in self._message(record):
                    of_source, partition = self._waiting[message.source], _partition(record)
                    found = of_source.setdefault(partition, Waiting(message.number, record.offset))
                    found.lowest = min(found.lowest, message.number)
                    found.last = record.offset
        self._end = end

    def _message(self, record: ConsumerRecord) -> Iterable[ImageMessage]:
        """The record's message; nothing if it is none."""
        with suppress(InvalidInput):
            yield parse(record.value, MESSAGE_TYPES[self._topic])


def _partition(record: ConsumerRecord) -> TopicPartition:
    return TopicPartition(record.topic, record.partition)
