"""Records in, transactions out: what the stages need of Kafka.

A stage takes a batch of records, puts its files in place, and then commits: its messages and the
records' offsets become true together, in one transaction, or not at all. Nothing is sent before
that, so whatever goes wrong, the batch is taken again from its beginning.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from kafka import (
    KafkaConsumer,
    KafkaProducer,
    OffsetAndMetadata,
    TopicPartition,
)
from kafka.admin import MemberToRemove
from kafka.consumer.fetcher import ConsumerRecord
from kafka.coordinator.base import MemberState
from kafka.errors import CorruptRecordError, KafkaError

from pipeline.errors import InvalidInput
from pipeline.messages import ImageEvent, Message, ReceivedImage
from pipeline.settings import Settings
from pipeline.stop_signal import StopSignal
from pipeline.store.instance_lock import InstanceLock
from pipeline.stream.connection import TRANSIENT, Kafka
from pipeline.stream.create_topics import TopicIds
from pipeline.stream.dead_letters import dead_letter
from pipeline.stream.deduplication import CAUSE, Deduplicator, cause
from pipeline.stream.expired import OFFSET_ERRORS, ExpiredMessages
from pipeline.stream.hanging import end_if_hanging
from pipeline.stream.topic_reader import TopicReader
from pipeline.stream.transactions import outgoing_message, transact, transactional_producer
from pipeline.terminal import one_line, say

BATCH = 200  # records at most; a transaction costs about 10 ms however many it holds
EARLIER = 200  # records of a partition to look at before its first batch
LOOK_SECONDS = 10  # without records, until a copy looks whether its group is well

Polled = Mapping[TopicPartition, list[ConsumerRecord]]


@dataclass(eq=False)
class Membership:
    """What a copy has while Kafka is there: its membership in the group, and a producer."""

    consumer: KafkaConsumer
    producer: KafkaProducer
    topics: TopicReader
    deduplicator: Deduplicator
    seen: set[tuple[TopicPartition, int]]  # partitions that were taken, each with the generation
    topic_ids: TopicIds  # to see whether a topic is made again
    is_lost: bool = False  # it can't go on here: join again


class Batch:
    """Records to take, and what comes of them, up to the commit."""

    def __init__(self, stage: "Stage", place: Membership, polled: Polled) -> None:
        self.committed = False
        self._stage = stage
        self._place = place
        self._polled = polled
        # As it is now: a copy that the group has left behind by the commit must fail there.
        self._group = place.consumer.group_metadata()
        self._offsets: dict[TopicPartition, OffsetAndMetadata] = {}
        self._outgoing: list[dict[str, Any]] = []
        self._lines: list[str] = []
        self._error: KafkaError | None = None  # which keeps the batch from its commit

    def __iter__(self) -> Iterator[ConsumerRecord]:
        """The records, in order; fewer when the program is told to stop."""
        for partition, records in self._polled.items():
            for record in records:
                if self._stage.kafka.stop or self._error:
                    return
                self._offsets[partition] = OffsetAndMetadata(record.offset + 1, "", -1)
                yield record

    @property
    def values(self) -> Iterator[bytes | None]:
        """The values of all the records, to look ahead."""
        return (record.value for records in self._polled.values() for record in records)

    def earlier(self) -> list[ConsumerRecord]:
        """Some records from before this batch, of the partitions that this copy has just got."""
        generation = self._group.generation_id
        new = {
            partition: records[0].offset
            for partition, records in self._polled.items()
            if (partition, generation) not in self._place.seen
        }
        start = {partition: max(0, offset - EARLIER) for partition, offset in new.items()}
        try:
            earlier = list(self._place.topics.read(start, new))
        except KafkaError as error:
            self._error = error
            return []
        self._place.seen.update((partition, generation) for partition in new)
        return earlier

    def is_repeated(self, record: ConsumerRecord, message: ReceivedImage | ImageEvent) -> bool:
        """Whether this very message came before, and what it causes is published."""
        because = (CAUSE, cause(record))
        published = [one for one in self._outgoing if one["topic"] == self._stage.publishes]
        if any(because in one["headers"] for one in published):
            return True
        try:
            generation = self._group.generation_id
            return self._place.deduplicator.is_processed(record, message, generation)
        except KafkaError as error:
            self._error = error
            return True

    def publish(self, record: ConsumerRecord, message: Message, topic: str = "") -> None:
        """Send the message that this record causes with the commit."""
        outgoing = outgoing_message(topic or self._stage.publishes, message)
        self._outgoing.append({**outgoing, "headers": [(CAUSE, cause(record))]})

    def set_aside(self, record: ConsumerRecord, reason: InvalidInput) -> None:
        """Send this record to the dead letters with the commit, as it came, and say so."""
        outgoing, why = dead_letter(record, self._stage.name, reason)
        self._outgoing.append(outgoing)
        self.say_after_commit(
            f"set aside  {record.topic}[{record.partition}] {record.offset}: {why}"
        )

    def say_after_commit(self, line: str) -> None:
        """Say this line once it has become true, with the commit."""
        self._lines.append(line)

    def commit(self) -> None:
        """Make the messages and the records' offsets true together.

        If Kafka doesn't let us, it says so, and the stage takes the records again.
        """
        try:
            if self._error:
                raise self._error
            if self._offsets:
                transact(self._place.producer, self._outgoing, self._offsets, self._group)
        except KafkaError as error:
            self._stage.kafka.end_if_forbidden(error)
            say(f"Kafka did not confirm the commit: {one_line(error)}; trying again")
            return
        for line in self._lines:
            say(line)
        self.committed = True


class Stage:
    """A program's place in the pipeline: takes a topic's records, shared with its other copies."""

    def __init__(
        self,
        settings: Settings | Kafka,
        name: str,
        takes: str,
        publishes: str,
        *,
        commits: bool = True,
    ) -> None:
        """A second one in the same program shares the first one's way to Kafka.

        Without `commits` it leaves no offsets: a reader of polls knows itself where it is.
        """
        self.name = name
        self.takes = takes
        self.publishes = publishes
        self.kafka = settings if isinstance(settings, Kafka) else Kafka(settings, StopSignal())
        self.lock = InstanceLock(name, self.kafka.settings)
        self._commits = commits
        self._expired = ExpiredMessages(name)
        self._failures = 0  # since the last records that were dealt with

    def batches(self) -> Iterator[Batch]:
        """Batches of records, each from where the last commit ended, until told to stop."""
        for place, polled in self.polls():
            if polled:
                batch = Batch(self, place, polled)
                yield batch
                place.is_lost = not batch.committed

    def polls(self) -> Iterator[tuple[Membership, Polled]]:
        """What each poll has found, which may be nothing, twice a second until told to stop."""
        while not self.kafka.stop:
            with self.kafka.connect(self._join) as place:
                try:
                    yield from self._polls(place)
                except KafkaError as error:
                    self.kafka.end_if_forbidden(error)
                    say(f"Kafka: {one_line(error)}; connecting again")
            self.kafka.stop.wait(min(2**self._failures / 8, 10))
            self._failures += 1

    def _join(self, kafka: Kafka, closing: ExitStack) -> Membership:
        topic_ids = kafka.topic_ids
        kafka.check()
        producer = transactional_producer(kafka, self.lock.name, closing)
        consumer = KafkaConsumer(
            self.takes,
            **kafka.options,
            group_id=self.name,
            # Static membership: a copy that starts again takes up its partitions at once.
            group_instance_id=self.lock.name,
            session_timeout_ms=10_000,
            max_poll_interval_ms=1_800_000,  # a batch of the largest images takes minutes
            isolation_level="read_committed",
            # "none" raises OFFSET_ERRORS where messages were deleted that we have not read.
            auto_offset_reset="none" if self._commits else "earliest",
            enable_auto_commit=False,
        )
        closing.callback(consumer.close, autocommit=False, timeout_ms=1000)
        topics = TopicReader(kafka, closing)
        repeats = Deduplicator(topics, self.publishes)
        return Membership(consumer, producer, topics, repeats, set(), topic_ids)

    def _polls(self, place: Membership) -> Iterator[tuple[Membership, Polled]]:
        """Polls until the place is lost, or finds nothing because the group is stuck."""
        looked = time.monotonic()
        while not self.kafka.stop:
            # kafka-python loses a join to the group for good when a shorter poll interrupts it.
            try:
                polled = place.consumer.poll(timeout_ms=500, max_records=BATCH)
            except CorruptRecordError:
                if self._set_aside_unreadable(place):
                    continue
                return
            except OFFSET_ERRORS as error:
                self._expired.skip(place.consumer, place.topics, error)
                continue
            yield place, polled
            if place.is_lost:
                return
            if polled:
                self._failures = 0
            elif time.monotonic() - looked > LOOK_SECONDS:
                if not self._is_well(place):
                    return
                looked = time.monotonic()

    def _is_well(self, place: Membership) -> bool:
        """Whether records would be found if there were any, now that none has come for a while.

        Ends the program if Kafka has lost the end of its last transaction.
        """
        if place.consumer.group_metadata().state != MemberState.STABLE:
            return False
        try:
            if self.kafka.are_topics_new(place.topic_ids):
                return False
            end_if_hanging(self.kafka, self.lock.name)
            return bool(place.consumer.assignment()) or not self._is_stuck()
        except TRANSIENT:  # nobody knows now; it is asked again
            return True

    def _set_aside_unreadable(self, place: Membership) -> bool:
        """Go past records that kafka-python can't read; whether that was it, and is committed."""
        skipped = place.topics.skip(place.consumer)
        if not self._commits:
            for partition, offset in skipped:
                where = f"{partition.topic}[{partition.partition}] {offset}"
                say(f"{where} can't be read, and is left where it is")
            return bool(skipped)
        polled = {partition: [_unreadable(partition, offset)] for partition, offset in skipped}
        batch = Batch(self, place, polled)
        for record in batch:
            batch.set_aside(record, InvalidInput("it can't be read, and is left where it is"))
        batch.commit()
        return bool(polled) and batch.committed

    def is_alone(self) -> bool:
        """Whether Kafka counts no other copy in the group. Raises `KafkaError`."""
        with self.kafka.admin() as admin:
            return len(admin.describe_groups([self.name])[self.name]["members"]) < 2

    def _is_stuck(self) -> bool:
        """Whether the group is content although nobody takes some partition; if so, leave it.

        A Kafka that is killed while it shares out the partitions comes back so, and copies that
        join again under their old names take the old sharing for good. Leaving makes a new one.
        """
        with self.kafka.admin() as admin:
            group = admin.describe_groups([self.name])[self.name]
            taken = {
                partition
                for member in group["members"]
                for topic in (member["member_assignment"] or {}).get("assigned_partitions", ())
                for partition in topic["partitions"]
            }
            partitions = admin.describe_topics([self.takes])[0]["partitions"]
            is_stuck = group["group_state"] == "Stable" and len(taken) < len(partitions)
            if is_stuck:
                admin.remove_group_members(
                    self.name, [MemberToRemove(group_instance_id=self.lock.name)]
                )
            return is_stuck


def _unreadable(partition: TopicPartition, offset: int) -> ConsumerRecord:
    """All that is known of a record that can't be read."""
    unknown = dict.fromkeys(ConsumerRecord._fields)
    about = {"topic": partition.topic, "partition": partition.partition, "offset": offset}
    return ConsumerRecord(**{**unknown, **about, "headers": []})
