"""Deduplication: a message that comes twice causes one message.

Each message that a stage publishes has a header with the SHA-256 of the message that caused it. So
the topic that a stage publishes says which messages were processed, whichever copy of the stage did
it. The topic is read only if a message may be repeated: as long as the numbers of a source's images
rise, none is. It is read from its beginning, once, since no clock says when the same message came
before; and in the source's partition only, unless somebody has added partitions.
"""

from contextlib import suppress
from hashlib import sha256

from kafka import TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.partitioner.default import murmur2

from pipeline.errors import InvalidInput
from pipeline.messages import MESSAGE_TYPES, ImageMessage, parse
from pipeline.stream.create_topics import PARTITIONS
from pipeline.stream.topic_reader import TopicReader

CAUSE = "cause"


def cause(record: ConsumerRecord) -> bytes:
    """The header value of the messages that this record causes."""
    return sha256(record.value or b"").digest()


class Deduplicator:
    """Knows which records a stage has processed: their effects are in the topic it publishes."""

    def __init__(self, topics: TopicReader, topic: str) -> None:
        self._topics = topics
        self._topic = topic
        self._generation = -1
        self._seen_sources: set[str] = set()  # in this generation of the group
        self._newest: dict[str, int] = {}  # by source: the highest number that may be processed
        self._causes: set[bytes] = set()  # of messages that are published
        self._end: dict[TopicPartition, int] = {}  # up to which the topic has been read

    def is_processed(self, record: ConsumerRecord, message: ImageMessage, generation: int) -> bool:
        """Whether the topic has what this record causes. Raises `KafkaError`.

        In a new generation of the group, this copy may get a partition back which another copy had
        meanwhile, so it no longer knows whether a source's next number is new.
        """
        if generation != self._generation:
            self._generation = generation
            self._seen_sources.clear()
        is_new = (
            message.source in self._seen_sources and message.number > self._newest[message.source]
        )
        self._seen_sources.add(message.source)
        if not is_new:
            self._read(message.source)
        self._note(message)
        return not is_new and cause(record) in self._causes

    def _note(self, message: ImageMessage) -> None:
        newest = self._newest.get(message.source, 0)
        self._newest[message.source] = max(newest, message.number)

    def _read(self, source: str) -> None:
        """Read what the topic may have of the source, without what has been read already."""
        start = {**self._topics.beginning_offsets(self._topic), **self._end}
        end = self._topics.end_offsets(self._topic)
        if len(end) == PARTITIONS:  # otherwise the source may have been in any of them
            # As a producer chooses the partition of a key.
            number = (murmur2(source.encode()) & 0x7FFFFFFF) % PARTITIONS
            partition = TopicPartition(self._topic, number)
            end = {partition: end[partition]}
        for record in self._topics.read(start, end):
            self._causes.update(value for name, value in record.headers if name == CAUSE)
            with suppress(InvalidInput):
                self._note(parse(record.value, MESSAGE_TYPES[self._topic]))
        self._end |= end
