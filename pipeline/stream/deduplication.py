"""Deduplication: a message that comes twice causes one message.

Each message that a stage publishes has a header with the SHA-256 of the message that caused it. So
the topic that a stage publishes says which messages were processed, whichever copy of the stage did
it. The topic is read only if a message may be repeated: as long as the numbers of a source's images
rise, none is.
"""

from contextlib import suppress
from hashlib import sha256

from kafka import TopicPartition
from kafka.consumer.fetcher import ConsumerRecord

from pipeline.errors import InvalidInput
from pipeline.messages import MESSAGE_TYPES, ImageMessage, parse
from pipeline.stream.topic_reader import TopicReader

CAUSE = "cause"
CLOCK_DIFFERENCE = 600  # seconds that the clocks of two machines may differ


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
        # The offsets between which the topic has been read.
        self._start: dict[TopicPartition, int] = {}
        self._end: dict[TopicPartition, int] = {}

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
            since = 0.0
            if message.received and message.received.timestamp() <= record.timestamp / 1000:
                since = message.received.timestamp() - CLOCK_DIFFERENCE
            self._read(since)
        self._note(message)
        return not is_new and cause(record) in self._causes

    def _note(self, message: ImageMessage) -> None:
        newest = self._newest.get(message.source, 0)
        self._newest[message.source] = max(newest, message.number)

    def _read(self, since: float) -> None:
        """Read the topic from this time to its end, without what has been read already."""
        topics, topic = self._topics, self._topic
        start = topics.since(topic, since) if since else topics.beginning_offsets(topic)
        end = topics.end_offsets(topic)
        gaps = [(start, self._start), (self._end, end)] if self._end else [(start, end)]
        for first, last in gaps:
            for record in topics.read(first, last):
                self._causes.update(value for name, value in record.headers if name == CAUSE)
                with suppress(InvalidInput):
                    self._note(parse(record.value, MESSAGE_TYPES[topic]))
        self._start = {
            partition: min(offset, self._start.get(partition, offset))
            for partition, offset in start.items()
        }
        self._end = end
