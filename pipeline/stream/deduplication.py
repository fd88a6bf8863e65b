"""Whether a message came twice: what it causes is published once all the same.

Each message that a stage publishes carries the SHA-256 of the one that caused it, in a header. So
the stage's own topic says what has been answered, whichever copy did it. It is asked only where
there is doubt: not while a source's numbers rise, as they do when nothing comes twice.
"""

from contextlib import suppress
from hashlib import sha256

from kafka import TopicPartition
from kafka.consumer.fetcher import ConsumerRecord

from pipeline.errors import InvalidInput
from pipeline.messages import MESSAGE_TYPES, ImageMessage, parse
from pipeline.stream.topic_reader import TopicReader

CAUSE = "cause"
SLACK = 600  # seconds that the clocks of two machines may differ


def cause(record: ConsumerRecord) -> bytes:
    """What marks the messages that this record causes."""
    return sha256(record.value or b"").digest()


class Deduplicator:
    """What a stage's topic says of the records that the stage takes."""

    def __init__(self, topics: TopicReader, topic: str) -> None:
        self._topics = topics
        self._topic = topic
        self._generation = -1
        self._asked: set[str] = set()  # sources, in this generation
        self._newest: dict[str, int] = {}  # by source: the highest number that may be answered
        self._answered: set[bytes] = set()
        self._start: dict[TopicPartition, int] = {}  # what has been read of the topic
        self._end: dict[TopicPartition, int] = {}

    def is_processed(self, record: ConsumerRecord, message: ImageMessage, generation: int) -> bool:
        """Whether the topic has what this record causes. Raises `KafkaError`.

        In each generation of the group another copy may have come and gone in between.
        """
        if generation != self._generation:
            self._generation = generation
            self._asked.clear()
        is_new = message.source in self._asked and message.number > self._newest[message.source]
        self._asked.add(message.source)
        if not is_new:
            since = 0.0
            if message.received and message.received.timestamp() <= record.timestamp / 1000:
                since = message.received.timestamp() - SLACK
            self._read(since)
        self._note(message)
        return not is_new and cause(record) in self._answered

    def _note(self, message: ImageMessage) -> None:
        newest = self._newest.get(message.source, 0)
        self._newest[message.source] = max(newest, message.number)

    def _read(self, since: float) -> None:
        """Read the topic from this time to its end, but for what has been read already."""
        topics, topic = self._topics, self._topic
        start = topics.since(topic, since) if since else topics.beginning_offsets(topic)
        end = topics.end_offsets(topic)
        for low, high in [(start, self._start), (self._end, end)] if self._end else [(start, end)]:
            for record in topics.read(low, high):
                self._answered.update(value for name, value in record.headers if name == CAUSE)
                with suppress(InvalidInput):
                    self._note(parse(record.value, MESSAGE_TYPES[topic]))
        self._start = {one: min(low, self._start.get(one, low)) for one, low in start.items()}
        self._end = end
