"""What the topics hold, read beside the stages' groups as readers of committed messages see it."""

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack

from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import CorruptRecordError, KafkaTimeoutError

from pipeline.stream.connection import Kafka
from pipeline.stream.kafka_python import forget_fetched, partition_offsets

PATIENCE = 60  # seconds without a record; Kafka ends a dead program's transaction in 21 at most


class TopicReader:
    """A reader of any topic, from any offset. Whatever it does may raise `KafkaError`."""

    def __init__(self, kafka: Kafka, closing: ExitStack) -> None:
        committed = {"isolation_level": "read_committed", "auto_offset_reset": "earliest"}
        self._reader = KafkaConsumer(
            **kafka.options,
            **committed,
            enable_auto_commit=False,
            # At a partition's end the next partition's records would wait so long, 500 by default.
            fetch_max_wait_ms=20,
        )
        closing.callback(self._reader.close, autocommit=False, timeout_ms=1000)
        # Another one for the ends: the reader's would leave out what is just being committed.
        self._ends = KafkaConsumer(**kafka.options, enable_auto_commit=False)
        closing.callback(self._ends.close, autocommit=False, timeout_ms=1000)

    def beginning_offsets(self, topic: str) -> dict[TopicPartition, int]:
        """The oldest offset of each partition that there is still."""
        return partition_offsets(self._reader.beginning_offsets, self._partitions(topic))

    def end_offsets(self, topic: str) -> dict[TopicPartition, int]:
        """The offset after each partition's last record, open transactions' records counted."""
        return partition_offsets(self._ends.end_offsets, self._partitions(topic))

    def since(self, topic: str, seconds: float) -> dict[TopicPartition, int]:
        """The offset of each partition's first record from this time on, or its end."""
        ends = self.end_offsets(topic)
        milliseconds = max(0, int(seconds * 1000))
        # Asked in the same way, so that each partition has a leader, who tells.
        found = self._ends.offsets_for_times(dict.fromkeys(ends, milliseconds))
        return {one: found[one].offset if found.get(one) else end for one, end in ends.items()}

    def read(
        self, start: Mapping[TopicPartition, int], end: Mapping[TopicPartition, int]
    ) -> Iterator[ConsumerRecord]:
        """The records from `start` up to `end`; waits for transactions that are open there."""
        for partition, offset in start.items():
            for records in self._polls(partition, offset, end[partition]):
                yield from (record for record in records or () if record.offset < end[partition])

    def read_all(self, topic: str) -> Iterator[ConsumerRecord]:
        """All records of a topic."""
        return self.read(self.beginning_offsets(topic), self.end_offsets(topic))

    def skip(self, consumer: KafkaConsumer) -> list[tuple[TopicPartition, int]]:
        """Lead a consumer whose poll has failed past the records that can't be read: these.

        The error of the poll doesn't say which these are. Records that were sent together with one
        that can't be read can't be read, either.
        """
        skipped = []
        ends = partition_offsets(self._reader.end_offsets, consumer.assignment())
        for partition, end in ends.items():
            offset = consumer.position(partition)
            if offset < end and None in self._polls(partition, offset, offset + 1):
                consumer.seek(partition, offset + 1)
                skipped.append((partition, offset))
        return skipped

    def _polls(
        self, partition: TopicPartition, offset: int, end: int
    ) -> Iterator[list[ConsumerRecord] | None]:
        """What each poll has found on the way from `offset` to `end`; None: what can't be read."""
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
            self._reader.assign([])  # or it would ask for more all the time

    def _partitions(self, topic: str) -> list[TopicPartition]:
        numbers = self._ends.partitions_for_topic(topic) or ()
        return [TopicPartition(topic, number) for number in sorted(numbers)]
