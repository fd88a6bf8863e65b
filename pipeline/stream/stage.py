"""A stage: batches of records in, transactions out.

A stage consumes a batch of records, stores its files, and then commits: the messages that the batch
publishes and the offsets of its records become true together, in one transaction, or not at all.
Nothing is sent before the commit, so whatever goes wrong, the batch is consumed again from its
beginning.
"""

from collections.abc import Iterator
from itertools import takewhile
from types import TracebackType
from typing import Any

from kafka import OffsetAndMetadata, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import KafkaError

from pipeline.errors import InvalidInput
from pipeline.messages import ImageMessage, Message
from pipeline.settings import Settings
from pipeline.stages import StageDefinition
from pipeline.stop_signal import StopSignal
from pipeline.stream.connection import Kafka
from pipeline.stream.dead_letters import dead_letter
from pipeline.stream.deduplication import CAUSE, cause
from pipeline.stream.membership import GroupMember, Membership, Polled
from pipeline.stream.positions import position_of
from pipeline.stream.transactions import outgoing_message, transact
from pipeline.terminal import one_line, say

PRECEDING = 200  # records of a partition to look at before its first batch
WAIT_SECONDS = 0.2  # between two looks whether messages in other partitions are processed


class Batch:
    """Records that a stage consumes together, and what they cause, up to the commit.

    It is used in a `with` block: if Kafka fails there, the batch is consumed again.
    """

    def __init__(self, stage: "Stage", membership: Membership, polled: Polled) -> None:
        self.is_committed = False
        self._stage = stage
        self._membership = membership
        self._polled = polled
        # Read before the batch is worked on: if the group rebalances meanwhile, the commit carries
        # a stale generation, and Kafka refuses it.
        self._group = membership.consumer.group_metadata()
        self._preceding, membership.preceding = membership.preceding, []
        self._offsets: dict[TopicPartition, OffsetAndMetadata] = {}
        self._outgoing: list[dict[str, Any]] = []
        self._lines: list[str] = []

    def __enter__(self) -> "Batch":
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> bool:
        """Go on after a `KafkaError`: the batch is not committed, and so is consumed again."""
        if not isinstance(error, KafkaError):
            return False
        self._stage.kafka.end_if_forbidden(error)
        say(f"Kafka did not confirm the commit: {one_line(error)}; trying again")
        return True

    def __iter__(self) -> Iterator[ConsumerRecord]:
        """The records in order; fewer if the program is asked to stop meanwhile."""
        for partition, records in self._polled.items():
            for record in records:
                if self._stage.kafka.stop:
                    return
                self._offsets[partition] = OffsetAndMetadata(record.offset + 1, "", -1)
                yield record

    @property
    def values(self) -> Iterator[bytes | None]:
        """The values of all records, to look ahead."""
        return (record.value for records in self._polled.values() for record in records)

    def preceding(self) -> list[ConsumerRecord]:
        """Some records from before this batch, of partitions that this copy has just been given."""
        return self._preceding

    def is_repeated(self, record: ConsumerRecord, message: ImageMessage) -> bool:
        """Whether the same message came before, and what it causes is published.

        Raises `KafkaError`.
        """
        header = (CAUSE, cause(record))
        is_in_this_batch = any(
            outgoing["topic"] == self._stage.publishes and header in outgoing["headers"]
            for outgoing in self._outgoing
        )
        return is_in_this_batch or self._membership.deduplicator.is_processed(
            record, message, self._group.generation_id
        )

    def publish(self, record: ConsumerRecord, message: Message, topic: str = "") -> None:
        """Send the message that this record causes with the commit."""
        outgoing = outgoing_message(topic or self._stage.publishes, message)
        self._outgoing.append({**outgoing, "headers": [(CAUSE, cause(record))]})

    def set_aside(self, record: ConsumerRecord, reason: InvalidInput) -> None:
        """Send this record to the dead letters with the commit, as it came, and say so."""
        outgoing, why = dead_letter(record, self._stage.name, reason)
        self._outgoing.append(outgoing)
        self.say_after_commit(f"set aside  {position_of(record)}: {why}")

    def say_after_commit(self, line: str) -> None:
        """Say this line once the commit has made it true."""
        self._lines.append(line)

    def commit(self) -> None:
        """Make the messages and the records' offsets true together. Raises `KafkaError`."""
        if self._offsets:
            transact(self._membership.producer, self._outgoing, self._offsets, self._group)
        self.is_committed = True
        for line in self._lines:
            say(line)


class Stage(GroupMember):
    """A stage of the pipeline, which shares the records of a topic with its other copies."""

    # Where Kafka has deleted messages that the stage has not read, "none" makes a poll raise one of
    # OFFSET_ERRORS, and the stage can say which messages these are.
    offset_reset = "none"

    def __init__(self, settings: Settings, definition: StageDefinition) -> None:
        kafka = Kafka(settings, StopSignal())
        super().__init__(kafka, definition.name, definition.consumes, definition.publishes)

    def batches(self) -> Iterator[Batch]:
        """Batches, each from the end of the last commit on, until the program is asked to stop."""
        for membership, polled in self.polls():
            if polled:
                batch = Batch(self, membership, polled)
                yield batch
                membership.is_lost = not batch.is_committed

    def _in_order(self, membership: Membership, polled: Polled) -> Polled:
        """Leave for a later poll what must wait for messages in other partitions."""
        generation, seen = membership.consumer.group_metadata().generation_id, membership.seen
        new = {
            partition: records[0].offset
            for partition, records in polled.items()
            if (partition, generation) not in seen
        }
        start = {partition: max(0, offset - PRECEDING) for partition, offset in new.items()}
        preceding = list(membership.topics.read(start, new))
        membership.preceding += preceding
        membership.order.begin(preceding)
        seen.update((partition, generation) for partition in new)
        ready = {}
        for partition, records in polled.items():
            ready[partition] = list(
                takewhile(lambda record: not membership.order.must_wait(record), records)
            )
            left = records[len(ready[partition]) :]
            if left:
                membership.consumer.seek(partition, left[0].offset)
        if polled and not any(ready.values()):
            self.kafka.stop.wait(WAIT_SECONDS)
        return {partition: records for partition, records in ready.items() if records}

    def _skip_unreadable(self, membership: Membership) -> bool:
        polled = {
            partition: [_unreadable(partition, offset)]
            for partition, offset in membership.topics.skip(membership.consumer)
        }
        with Batch(self, membership, polled) as batch:
            for record in batch:
                batch.set_aside(record, InvalidInput("it can't be read, and is left where it is"))
            batch.commit()
        return bool(polled) and batch.is_committed


def _unreadable(partition: TopicPartition, offset: int) -> ConsumerRecord:
    """All that is known of a record that can't be read."""
    unknown = dict.fromkeys(ConsumerRecord._fields)
    known = {"topic": partition.topic, "partition": partition.partition, "offset": offset}
    return ConsumerRecord(**{**unknown, **known, "headers": []})
