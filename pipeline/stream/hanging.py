"""Hanging transactions: finds those that Kafka has acknowledged and not ended, and ends them.

Kafka ends a transaction in two steps. Its coordinator writes down the end (PrepareCommit), and
acknowledges it; then a marker goes to each partition of the transaction, and the coordinator writes
that all is done (CompleteCommit). Kafka 4.3.1 and 4.4.0 that are killed between the two write
CompleteCommit at their next start, without the markers (KAFKA-20734). A partition without its
marker hangs: readers of committed messages see nothing beyond the transaction's first record, and a
group whose offsets were in the transaction can't be asked for them, for ever.

The next transaction of the same transactional id that has the partition ends both, in its own way:
if it commits, the hanging records become true, and if it aborts, they are lost. So an empty
transaction over the partitions that hang ends them, in the right way as long as Kafka still knows
how the hanging transaction ended. It forgets that when a producer asks for the id anew
(InitProducerId, a producer's `init_transactions`), which is why a program must look before. A
transaction that hangs behind a later one which is still open can't be seen. If its messages are
aborted with that one, the audit sends them again.
"""

import re
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, groupby
from typing import NamedTuple

from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from kafka.admin import TransactionDescription, TransactionState
from kafka.errors import (
    AuthorizationError,
    CoordinatorLoadInProgressError,
    CoordinatorNotAvailableError,
    KafkaTimeoutError,
    TransactionalIdNotFoundError,
    UnsupportedVersionError,
)

from pipeline.errors import FatalError
from pipeline.stages import CONSUMING_STAGES, IMAGE_EVENT_ALERT, IMAGE_RECEIVING
from pipeline.stream.connection import Kafka
from pipeline.stream.create_topics import TOPICS
from pipeline.stream.kafka_python import end_empty_transaction
from pipeline.stream.positions import partition_name

OFFSETS = "__consumer_offsets"
# Our programs' transactional ids; the copies of a stage share a group of the stage's name.
NAMES = "|".join(stage.name for stage in CONSUMING_STAGES)
OURS = re.compile(
    rf"(?P<stage>{NAMES})-(?!recipients-).+"
    rf"|(?P<receiver>{IMAGE_RECEIVING.name}(-.+)?)"
    rf"|{IMAGE_EVENT_ALERT.name}-recipients-.+|audit|dead-letters"
)
ENDS = {
    TransactionState.COMPLETE_COMMIT: "commit",
    TransactionState.COMPLETE_ABORT: "abort",
    TransactionState.EMPTY: "unknown",
}
ENDING = (
    TransactionState.PREPARE_COMMIT,
    TransactionState.PREPARE_ABORT,
    TransactionState.PREPARE_EPOCH_FENCE,
)
PATIENCE = 10  # seconds; the markers take milliseconds, and a coordinator loads for a second
PAUSE = 0.02  # seconds between two questions
SECOND_LOOK = 3  # seconds after the first look, which both must find that a transaction hangs


class _Open(NamedTuple):
    """A transaction that a partition has begun and not ended."""

    partition: TopicPartition
    producer_id: int
    epoch: int  # of the producer
    start: int  # offset of its first record


@dataclass(frozen=True)
class Hanging:
    """The last transaction of a transactional id, which has not ended in some partitions."""

    transactional_id: str
    producer_id: int  # which Kafka gave to the transactional id
    end: str  # commit, abort or unknown
    partitions: tuple[TopicPartition, ...]
    group: str  # whose offsets were in it; empty if it has none


def group_of(transactional_id: str) -> str:
    """The group whose offsets a program of ours commits under this id; empty if there is none."""
    found = OURS.fullmatch(transactional_id)
    return (found["stage"] or found["receiver"] or "") if found else ""


def hanging(
    admin: KafkaAdminClient, transactional_id: str, partitions: Iterable[TopicPartition], group: str
) -> Hanging | None:
    """The last transaction of this id if it is over and hangs in some of the partitions.

    If there is a group, the partitions of `__consumer_offsets` are looked at as well. Partitions
    that we have no right to ask about are left out, and a Kafka before 3.0 can't be asked at all.
    While Kafka is still ending a transaction, this waits. Raises `KafkaError`.

    There is no false alarm: Kafka begins a transaction before its first record is written, and says
    that it is over after its last marker is written. So a transaction that is open in a partition,
    then over, and then still open there from the same offset on, has lost its marker.
    """
    first = _described(admin, transactional_id)
    if not first:
        return None
    asked = [*partitions, *(_partitions(admin, [OFFSETS]) if group else ())]
    suspects = {
        transaction
        for transaction in _open(admin, asked)
        if transaction.producer_id == first.producer_id
    }
    if not suspects:
        return None
    time.sleep(SECOND_LOOK)
    second = _described(admin, transactional_id)
    found = suspects & _open(admin, {transaction.partition for transaction in suspects})
    if not second or not found:
        return None
    # Kafka knows how the id's last transaction ended, which had this epoch, and not the others.
    is_last = all(transaction.epoch == second.producer_epoch for transaction in found)
    return Hanging(
        transactional_id,
        second.producer_id,
        ENDS[second.state] if is_last else "unknown",
        tuple(sorted({transaction.partition for transaction in found})),
        group,
    )


def all_hanging(admin: KafkaAdminClient) -> list[Hanging]:
    """The hanging transactions of all our programs, as far as we may ask. Raises `KafkaError`."""
    try:
        listed = list(chain.from_iterable(admin.list_transactions().values()))
    except UnsupportedVersionError:
        return []
    partitions = _partitions(admin, TOPICS)
    # There may be many ids, also of other hosts. Hardly any of them has an open transaction.
    looked_at = [*partitions, *_partitions(admin, [OFFSETS])]
    producers = {transaction.producer_id for transaction in _open(admin, looked_at)}
    ids = sorted(
        transaction.transactional_id
        for transaction in listed
        if transaction.producer_id in producers and OURS.fullmatch(transaction.transactional_id)
    )
    found = [hanging(admin, name, partitions, group_of(name)) for name in ids]
    return [transaction for transaction in found if transaction]


def end_if_hanging(kafka: Kafka, transactional_id: str, leader_seconds: float = 0) -> None:
    """Raise `FatalError` if the last transaction of this id hangs.

    It must be called before `init_transactions`, which makes Kafka forget how the transaction
    ended. The program must not go on: it would read nothing, or, if its next transaction were
    aborted, lose what was acknowledged. Raises `KafkaError`.
    """
    with kafka.admin() as admin:
        known = _partitions(admin, [*TOPICS, OFFSETS], leader_seconds)
        partitions = [partition for partition in known if partition.topic != OFFSETS]
        found = hanging(admin, transactional_id, partitions, group_of(transactional_id))
    if found:
        raise FatalError(
            f"{describe(found)}; run python -m pipeline audit --repair, then start this program "
            "again, and use another Kafka, such as 4.2"
        )


def describe(found: Hanging) -> str:
    """What has happened to the transaction, in one line for people."""
    first, *more = map(partition_name, found.partitions)
    where = f"{first} and {len(more)} more" if more else first
    return (
        f"Kafka acknowledged a transaction of {found.transactional_id} and then lost its end in "
        f"{where}, as Kafka 4.3 and 4.4 do when they are killed (KAFKA-20734); whoever reads there "
        "waits for ever"
    )


def end_transaction(admin: KafkaAdminClient, producer: KafkaProducer, found: Hanging) -> str:
    """End a hanging transaction after all; returns how, for people. Raises `KafkaError`.

    The producer is a new one of the same transactional id. What Kafka knows to be committed is
    committed. Everything else is aborted, whether it is known to be aborted or not known at all.
    In doubt that is right for our programs, since what is lost by it comes again, while a message
    that is there twice can't be taken back:

    - If the group's offsets hang too, they are aborted with the messages, and the stage consumes
      its input again. It recognizes what it has published already by the header `cause`.
      In the same way `image_receiving.py` sends again what is in its outbox.
    - If the group's offsets don't hang, the input is consumed, and either the messages were
      published by a later try, or they are lost. The audit sees which it is, and sends the images,
      image events and alerts that are missing.

    In the second case three kinds of lost messages are not made again: why an image is no event,
    notifications, and dead letters. The audit only reports which dead letters are missing.
    """
    is_commit = found.end == "commit"
    # The group takes part even if we may not look whether its offsets hang: that does no harm.
    end_empty_transaction(
        producer,
        [partition for partition in found.partitions if partition.topic != OFFSETS],
        found.group,
        is_commit=is_commit,
        seconds=PATIENCE,
    )
    # Kafka answers before it writes the markers.
    end = time.monotonic() + PATIENCE
    while any(
        transaction.producer_id == found.producer_id
        for transaction in _open(admin, found.partitions)
    ):
        if time.monotonic() > end:
            raise KafkaTimeoutError(f"a transaction of {found.transactional_id} still hangs")
        time.sleep(PAUSE)
    return "committed" if is_commit else "aborted"


def _described(admin: KafkaAdminClient, transactional_id: str) -> TransactionDescription | None:
    """What Kafka says of the id's last transaction, if it is over and we may ask."""
    end = time.monotonic() + PATIENCE
    while True:
        is_late = time.monotonic() > end
        try:
            found = admin.describe_transactions([transactional_id])[transactional_id]
        except (TransactionalIdNotFoundError, AuthorizationError, UnsupportedVersionError):
            return None
        except (CoordinatorLoadInProgressError, CoordinatorNotAvailableError):
            # Kafka has just been started, or has created its topic of transactions.
            if is_late:
                raise
        else:
            if found.state in ENDS:
                return found
            if found.state not in ENDING:
                return None
            if is_late:
                raise KafkaTimeoutError(f"Kafka still ends a transaction of {transactional_id}")
        time.sleep(PAUSE)


def _open(admin: KafkaAdminClient, partitions: Iterable[TopicPartition]) -> set[_Open]:
    """The transactions that are open in these partitions, without topics that we may not read."""
    found = set()
    for _, some in groupby(sorted(set(partitions)), key=lambda partition: partition.topic):
        with suppress(AuthorizationError):
            for partition, state in admin.describe_producers(list(some)).items():
                found |= {
                    _Open(
                        partition,
                        producer.producer_id,
                        producer.producer_epoch,
                        producer.current_transaction_start_offset,
                    )
                    for producer in state.active_producers
                    if producer.current_transaction_start_offset >= 0
                }
    return found


def _partitions(
    admin: KafkaAdminClient, topics: Iterable[str], leader_seconds: float = 0
) -> list[TopicPartition]:
    """The partitions of these topics that we may see and that have a leader to ask.

    In a Kafka that has just started, partitions have none for a moment, and nothing would seem to
    hang. This waits so long until each has one; those of a dead broker may have none for longer.
    """
    end = time.monotonic() + leader_seconds
    while True:
        has_leader = {
            TopicPartition(topic["name"], partition["partition_index"]): partition["leader_id"] >= 0
            for topic in admin.describe_topics(list(topics))
            for partition in topic["partitions"]
        }
        if all(has_leader.values()) or time.monotonic() >= end:
            return [partition for partition, has in has_leader.items() if has]
        time.sleep(PAUSE)
