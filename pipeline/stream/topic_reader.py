"""Reads the committed messages of topics, from any offset and without being in a group."""

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack

from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import CorruptRecordError, KafkaTimeoutError

from pipeline.stream.connection import Kafka
from pipeline.stream.kafka_python import Consumer, close_consumer, forget_fetched

PATIENCE = 60  # seconds without a record; Kafka ends the transaction of a dead program after 21


class TopicReader:
    """Reads committed messages of any topic. Each of its methods may raise `KafkaError`."""

    def __init__(self, kafka: Kafka, closing: ExitStack) -> None:
        committed = {"isolation_level": "read_committed", "auto_offset_reset": "earliest"}
        self._reader: KafkaConsumer = Consumer(
            **kafka.options,
            **committed,
            enable_auto_commit=False,
            # A fetch at the end of a partition waits so long for records, by default 500 ms, and
            # with it those of the next partition wait.
            fetch_max_wait_ms=20,
        )
        closing.callback(close_consumer, self._reader)
        # A read_committed consumer reports the last stable offset as the end. We want the high
        # watermark, behind open transactions, too; so a read_uncommitted consumer is asked.
        self._ends: KafkaConsumer = Consumer(**kafka.options, enable_auto_commit=False)
        closing.callback(close_consumer, self._ends)

    def beginning_offsets(self, topic: str) -> dict[TopicPartition, int]:
        """The offset of the oldest record of each partition."""
        return dict(self._reader.beginning_offsets(self._partitions(topic)))

    def end_offsets(self, topic: str) -> dict[TopicPartition, int]:
        """The offset after the last record of each partition, with those of open transactions."""
        return dict(self._ends.end_offsets(self._partitions(topic)))

    def readable_end_offsets(self, topic: str) -> dict[TopicPartition, int]:
        """The offset of each partition up to which it can be read now: no transaction is open."""
        return dict(self._reader.end_offsets(self._partitions(topic)))

    def since(self, topic: str, seconds: float) -> dict[TopicPartition, int]:
        """The offset of each partition's first record from this time on, or its end."""
        ends = self.end_offsets(topic)
        milliseconds = max(0, int(seconds * 1000))
        # These partitions have leaders that can be asked: the leaders have just said the ends.
        found = self._ends.offsets_for_times(dict.fromkeys(ends, milliseconds))
        return {
            partition: found[partition].offset if found.get(partition) else end
            for partition, end in ends.items()
        }

    def read(
        self, start: Mapping[TopicPartition, int], end: Mapping[TopicPartition, int]
    ) -> Iterator[ConsumerRecord]:
        """The records from `start` up to `end`; waits for the end of transactions in between.

        A partition that only one of the two has was added or taken away in between, and is left
        out.
        """
        for partition, offset in start.items():
            if partition not in end:
                continue
            for records in self._polls(partition, offset, end[partition]):
                yield from (record for record in records or () if record.offset < end[partition])

    def read_all(self, topic: str) -> Iterator[ConsumerRecord]:
        """All records of a topic."""
        return self.read(self.beginning_offsets(topic), self.end_offsets(topic))

    def skip(self, consumer: KafkaConsumer) -> list[tuple[TopicPartition, int]]:
        """Send a consumer past the records that made its poll fail; returns their positions.

        The error of the poll doesn't say which records these are. If one record of those that were
        sent together can't be read, none of them can.
        """
        skipped = []
        ends = self._reader.end_offsets(consumer.assignment())
        for partition, end in ends.items():
            offset = consumer.position(partition)
            if offset < end and None in self._polls(partition, offset, offset + 1):
                consumer.seek(partition, offset + 1)
                skipped.append((partition, offset))
        return skipped

    def _polls(
        self, partition: TopicPartition, offset: int, end: int
    ) -> Iterator[list[ConsumerRecord] | None]:
        """What each poll from `offset` to `end` has found; None for a record that can't be read."""
        forget_fetched(self._reader)
        self._reader.assign([partition])
        self._reader.seek(partition, offset)
        last = time.monotonic()
        try:
            while self._reader.position(partition) < end:
                try:
                    records = self._reader.poll(timeout_ms=500).get(partition, [])
                except CorruptRecordError:
                    self._reader.seek(partition, self._reader.position(partition) + 1)
                    yield None
                    continue
                yield records
                last = time.monotonic() if records else last
                if time.monotonic() - last > PATIENCE:
                    raise KafkaTimeoutError(f"a transaction stays open in {partition.topic}")
        finally:
            self._reader.assign([])  # or it would go on fetching

    def _partitions(self, topic: str) -> list[TopicPartition]:
        numbers = self._ends.partitions_for_topic(topic) or ()
        return [TopicPartition(topic, number) for number in sorted(numbers)]
