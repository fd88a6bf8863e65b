"""A copy of a program as a member of its consumer group: it joins, polls, and joins again.

Kafka gives each partition of a topic to one member of a group, so copies of a stage share its work.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.coordinator.base import MemberState
from kafka.errors import CorruptRecordError, KafkaError

from pipeline.store.instance_lock import InstanceLock
from pipeline.stream.connection import Kafka
from pipeline.stream.create_topics import TopicIds
from pipeline.stream.deduplication import Deduplicator
from pipeline.stream.expired import OFFSET_ERRORS, ExpiredMessages
from pipeline.stream.groups import leave_stuck_group
from pipeline.stream.hanging import end_if_hanging
from pipeline.stream.kafka_python import POLL_MILLISECONDS, TRANSIENT, Consumer, close_consumer
from pipeline.stream.positions import RecordPosition
from pipeline.stream.source_order import SourceOrder
from pipeline.stream.topic_reader import TopicReader
from pipeline.stream.transactions import transactional_producer
from pipeline.terminal import one_line, say

MAX_BATCH = 200  # records of one poll at most; a transaction takes 10 ms however many it holds
CHECK_SECONDS = 10  # between two checks of a member whether its group is well

Polled = Mapping[TopicPartition, list[ConsumerRecord]]


@dataclass(eq=False)
class Membership:
    """What a copy has from one joining of the group to the next."""

    consumer: KafkaConsumer
    producer: KafkaProducer
    topics: TopicReader
    deduplicator: Deduplicator
    order: SourceOrder
    topic_ids: TopicIds  # when the copy joined
    # Partitions whose records have come, each with the group's generation then.
    seen: set[tuple[TopicPartition, int]] = field(default_factory=set)
    preceding: list[ConsumerRecord] = field(default_factory=list)  # for the next batch
    is_lost: bool = False  # set by whoever uses the membership: the copy must join again


class GroupMember:
    """A member of the group `name`, which consumes one topic and commits no offsets itself."""

    offset_reset = "earliest"  # where to begin in a partition without committed offset

    def __init__(self, kafka: Kafka, name: str, consumes: str, publishes: str) -> None:
        self.kafka = kafka
        self.name = name
        self.consumes = consumes
        self.publishes = publishes
        self.lock = InstanceLock(name, kafka.settings)
        self._expired = ExpiredMessages(name)
        self._failures = 0  # since the last records

    def polls(self) -> Iterator[tuple[Membership, Polled]]:
        """What each poll finds, maybe nothing, until the program is asked to stop."""
        while not self.kafka.stop:
            with self.kafka.connect(self._join) as membership:
                try:
                    yield from self._polls(membership)
                except KafkaError as error:
                    self.kafka.end_if_forbidden(error)
                    say(f"Kafka: {one_line(error)}; connecting again")
            self.kafka.stop.wait(min(2**self._failures / 8, 10))
            self._failures += 1

    def _join(self, kafka: Kafka, closing: ExitStack) -> Membership:
        topic_ids = kafka.topics.ids
        kafka.check()
        producer = transactional_producer(kafka, self.lock.name, closing)
        consumer = Consumer(
            self.consumes,
            **kafka.options,
            group_id=self.name,
            # Static membership: a copy that starts again has its partitions back at once.
            group_instance_id=self.lock.name,
            session_timeout_ms=10_000,
            max_poll_interval_ms=1_800_000,  # a batch of the largest images takes minutes
            isolation_level="read_committed",
            auto_offset_reset=self.offset_reset,
            enable_auto_commit=False,
        )
        closing.callback(close_consumer, consumer)
        topics = TopicReader(kafka, closing)
        deduplicator = Deduplicator(topics, self.publishes)
        order = SourceOrder(kafka, topics, self.name, self.consumes)
        return Membership(consumer, producer, topics, deduplicator, order, topic_ids)

    def _polls(self, membership: Membership) -> Iterator[tuple[Membership, Polled]]:
        """Polls until the membership is lost, or the group is not well."""
        checked = time.monotonic()
        while not self.kafka.stop:
            try:
                polled = membership.consumer.poll(POLL_MILLISECONDS, max_records=MAX_BATCH)
            except CorruptRecordError:
                if self._skip_unreadable(membership):
                    continue
                raise
            except OFFSET_ERRORS as error:
                self._expired.skip(membership.consumer, membership.topics, error)
                continue
            yield membership, self._in_order(membership, polled)
            if membership.is_lost:
                return
            if polled:
                self._failures = 0
            if time.monotonic() - checked > CHECK_SECONDS:
                if not self._is_well(membership):
                    return
                checked = time.monotonic()

    def _in_order(self, _membership: Membership, polled: Polled) -> Polled:
        """The records that may be processed now; the others come again with a later poll."""
        return polled

    def _is_well(self, membership: Membership) -> bool:
        """Whether this member gets the records of its partitions as soon as there are any.

        Ends the program if Kafka has lost the end of the program's last transaction.
        """
        if membership.consumer.group_metadata().state != MemberState.STABLE:
            return False
        try:
            self.kafka.make_topics()
            if self.kafka.topics.ids != membership.topic_ids:  # a topic was deleted and made again
                return False
            end_if_hanging(self.kafka, self.lock.name)
            return not leave_stuck_group(self.kafka, self.name, self.consumes, self.lock.name)
        except TRANSIENT:  # Kafka can't say now, and is asked again at the next check
            return True

    def _skip_unreadable(self, membership: Membership) -> bool:
        """Skip the records that made a poll fail because they can't be read; whether any did."""
        skipped = membership.topics.skip(membership.consumer)
        for partition, offset in skipped:
            position = RecordPosition(partition.topic, partition.partition, offset)
            say(f"{position} can't be read, and is left where it is")
        return bool(skipped)
