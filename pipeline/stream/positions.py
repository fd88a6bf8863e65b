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


def partition_name(partition: TopicPartition) -> str:
    """The partition as people write it: `topic[partition]`."""
    return f"{partition.topic}[{partition.partition}]"
