"""Where a record is: its topic, partition and offset, and how these are written for people."""

from typing import NamedTuple

from kafka import TopicPartition
from kafka.consumer.fetcher import ConsumerRecord


class RecordPosition(NamedTuple):
    """The position of a record, printed as `topic[partition] offset`."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}] {self.offset}"


def position_of(record: ConsumerRecord) -> RecordPosition:
    """Where the record is."""
    return RecordPosition(record.topic, record.partition, record.offset)


def origin_of(dead_letter: ConsumerRecord) -> RecordPosition:
    """Where the record was that became this dead letter.

    A dead letter of another program may not say; its origin then has no topic, or the offset -1.
    """
    headers = dict(dead_letter.headers)
    topic, *numbers = (
        (headers.get(f"__connect.errors.{name}") or b"").decode(errors="replace")
        for name in ("topic", "partition", "offset")
    )
    partition, offset = (int(number) if number.isdecimal() else -1 for number in numbers)
    return RecordPosition(topic, partition, offset)


def partition_name(partition: TopicPartition) -> str:
    """The partition as people write it: `topic[partition]`."""
    return f"{partition.topic}[{partition.partition}]"
