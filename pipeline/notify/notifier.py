"""The notifier: a thread that sends what is due, beside a program that makes alerts.

The topic `notifications` is all that is remembered. Whoever gets a partition of it reads the
partition from its beginning, sends what has no receipt yet, and publishes a receipt for what was
sent. No offsets are committed.

Kafka gives each partition to one copy of the program, so that no recipient hears from two copies
at a time. Each delivery has a thread of its own: a server that stalls holds up no other recipient.
"""

import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from threading import Lock, Thread

from kafka import TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.coordinator.base import MemberState
from kafka.errors import KafkaError

from pipeline.errors import InvalidInput, PipelineError, Stopped
from pipeline.messages import NOTIFICATIONS, Receipt
from pipeline.notify.delivery import SEND_SECONDS, STAGE, Delivery
from pipeline.notify.inbox import Inbox, parse_notification
from pipeline.notify.recipients import Recipient
from pipeline.notify.sending import Sender
from pipeline.settings import Location
from pipeline.stream.connection import Kafka
from pipeline.stream.groups import member_count
from pipeline.stream.membership import GroupMember, Membership, Polled
from pipeline.stream.positions import position_of
from pipeline.stream.transactions import transact
from pipeline.terminal import one_line, printable, say

GROUP = f"{STAGE}-recipients"
FRESH_SECONDS = 5  # without a poll, after which the group may have gone on without this copy
END_SECONDS = 2.5  # to wait for deliveries when the program is asked to stop
PAUSE_SECONDS = 5  # after an error, until the notifier starts anew


@dataclass
class OwnedPartition:
    """A partition of `notifications` that Kafka has given to this copy."""

    end: int  # the end offset when the partition was given
    free_at: float  # monotonic time at which no other copy still sends what is before the end
    is_read: bool = False  # up to the end
    inboxes: dict[str, Inbox] = field(default_factory=dict)  # by recipient


@dataclass
class Assignment:
    """The partitions that the group has given to this copy in one of its generations."""

    membership: Membership
    generation: int
    partitions: dict[int, OwnedPartition]
    is_valid: bool = True  # until the group is about to share out the partitions anew


class Notifier:
    """Sends what is due to the recipients."""

    def __init__(self, kafka: Kafka, data: Location, recipients: Mapping[str, Recipient]) -> None:
        self._member = GroupMember(kafka, GROUP, NOTIFICATIONS, NOTIFICATIONS)
        self._stop = kafka.stop
        self._recipients = recipients
        self._sender = Sender(data)
        self._thread = Thread(target=self._run, daemon=True)
        self._membership: Membership  # of the last poll, which has the producer
        self._assignment: Assignment | None = None
        self._deliveries: dict[tuple[int, str], Delivery] = {}  # by partition and recipient
        self._recording = Lock()  # the producer has one transaction at a time
        self._last_poll = float("inf")  # its monotonic time
        self._not_before = 0.0  # the monotonic time before which no message is sent
        self._said: set[str] = set()

    def start(self) -> None:
        """Begin to notify the recipients."""
        self._thread.start()

    def finish(self) -> None:
        """When the program is asked to stop, wait shortly for what is just being sent."""
        self._thread.join()

    def _run(self) -> None:
        """Notify until the program is asked to stop.

        Whatever goes wrong is said, and the notifier starts anew: alerts go on meanwhile.
        """
        while not self._stop:
            if failure := self._notify():
                say(f"notifications: {failure}; trying again in {PAUSE_SECONDS} s")
                self._stop.wait(PAUSE_SECONDS)

    def _notify(self) -> str:
        """Notify until the program is asked to stop, or something fails; why it failed."""
        try:
            for membership, polled in self._member.polls():
                try:
                    self._after_poll(membership, polled)
                except KafkaError as error:
                    self._member.kafka.end_if_forbidden(error)
                    say(f"Kafka: {one_line(error)}; connecting again")
                    membership.is_lost = True
                if self._stop:
                    end = time.monotonic() + END_SECONDS
                    for delivery in self._deliveries.values():
                        delivery.thread.join(max(0.0, end - time.monotonic()))
        except Stopped:
            return ""
        except Exception as error:
            return describe_failure(error)
        return ""

    def _after_poll(self, membership: Membership, polled: Polled) -> None:
        """Read what a poll has found, and begin to send what is due."""
        now = time.monotonic()
        if now - self._last_poll > FRESH_SECONDS:
            # This copy was frozen. Soon Kafka says whether the partitions are still its own.
            self._not_before = now + FRESH_SECONDS
        self._last_poll = now
        self._membership = membership
        if membership.is_lost:
            return
        if not self._is_assignment_current(membership):
            self._begin_assignment(membership)
            return
        self._read(membership, polled)
        self._continue_deliveries()
        for number, partition in self._partitions.items():
            for name, inbox in partition.inboxes.items() if partition.is_read else ():
                if name in self._recipients:
                    self._deliver_what_is_due(number, name, inbox)
                elif inbox.pending:
                    self._say_once(
                        f"{name} is no recipient any more; what waits for it stays, until there is "
                        "a table for it again"
                    )

    @property
    def _partitions(self) -> dict[int, OwnedPartition]:
        """The partitions that are this copy's own now, by number."""
        assignment = self._assignment
        return assignment.partitions if assignment and assignment.is_valid else {}

    def _is_assignment_current(self, membership: Membership) -> bool:
        """Whether the group is well, and the partitions are those of the poll before."""
        group, assignment = membership.consumer.group_metadata(), self._assignment
        return (
            group.state == MemberState.STABLE
            and assignment is not None
            and assignment.is_valid
            and assignment.membership is membership
            and assignment.generation == group.generation_id
            and assignment.partitions.keys() == _assigned(membership)
        )

    def _begin_assignment(self, membership: Membership) -> None:
        """End the old assignment and, once the group is stable, read the new partitions."""
        group, old = membership.consumer.group_metadata(), self._assignment
        if old:
            old.is_valid = False
        if group.state != MemberState.STABLE:
            return
        owned = _assigned(membership)
        # If the generations follow each other, no other copy had the partitions in between.
        is_next = old and 0 <= group.generation_id - old.generation <= 1
        kept = old.partitions if old and is_next else {}
        ends = membership.topics.end_offsets(NOTIFICATIONS)
        is_free = owned <= kept.keys() or member_count(self._member.kafka, GROUP) < 2
        free_at = 0.0 if is_free else time.monotonic() + SEND_SECONDS
        if any(TopicPartition(NOTIFICATIONS, number) not in ends for number in owned):
            return  # somebody has just added partitions; the next poll finds where they end
        partitions = {
            number: OwnedPartition(
                end=ends[TopicPartition(NOTIFICATIONS, number)],
                free_at=kept[number].free_at if number in kept else free_at,
            )
            for number in owned
        }
        if owned:
            membership.consumer.seek_to_beginning(*membership.consumer.assignment())
        self._assignment = Assignment(membership, group.generation_id, partitions)

    def _read(self, membership: Membership, polled: Polled) -> None:
        """Put the records of a poll into the inboxes, and note which partitions are read."""
        for records in polled.values():
            for record in records:
                self._read_record(record)
        for number, partition in self._partitions.items():
            if not partition.is_read:
                where = TopicPartition(NOTIFICATIONS, number)
                position = membership.consumer.position(where, timeout_ms=1000)
                partition.is_read = position is not None and position >= partition.end

    def _read_record(self, record: ConsumerRecord) -> None:
        try:
            message = parse_notification(record.value)
        except InvalidInput as reason:
            where = position_of(record)
            self._say_once(f"{where}: {printable(str(reason))}; it is left where it is")
            return
        name, number = message.recipient, record.partition
        inbox = self._partitions[number].inboxes.setdefault(name, Inbox())
        inbox.add(record, message, datetime.now(UTC))
        delivery = self._deliveries.get((number, name))
        if delivery and isinstance(message, Receipt):
            delivery.unsettled.difference_update(message.offsets)

    def _say_once(self, line: str) -> None:
        """Say a line, but not again when the topic is read again."""
        if line not in self._said:
            self._said.add(line)
            say(line)

    def _continue_deliveries(self) -> None:
        """Record what could not be recorded before, and drop deliveries that have their receipt."""
        for key, delivery in list(self._deliveries.items()):
            partition = self._partitions.get(delivery.partition)
            if delivery.thread.is_alive() or (partition and not partition.is_read):
                continue
            if delivery.outcome and delivery.unsettled and delivery.unrecorded:
                self._record(delivery)
            elif not delivery.unsettled or not partition:
                del self._deliveries[key]
                # The channel works: the events behind waited for their turn, not for the channel.
                if partition and delivery.outcome and not delivery.failure:
                    _restart_time_to_give_up(partition.inboxes[delivery.name])

    def _deliver_what_is_due(self, number: int, name: str, inbox: Inbox) -> None:
        recipient, now = self._recipients[name], time.monotonic()
        partition = self._partitions[number]
        # Another copy may still be sending what came before this copy got the partition.
        is_free = now >= partition.free_at
        events = [
            event
            for event in inbox.pending.values()
            if is_free or min(event.records) >= partition.end
        ]
        if not events:
            return
        first, utc = events[0], datetime.now(UTC)
        if recipient.due(first.since, inbox.last_sent, utc) > utc:
            # The quiet hours may have begun: after them, there is the whole time to try again.
            _restart_time_to_give_up(inbox)
            return
        for event in events:
            event.due_since = event.due_since or now
        if (number, name) in self._deliveries or now < self._not_before:
            return
        if recipient.collects(first.since):
            events = [event for event in events if recipient.collects(event.since)]
        else:
            events = [first]
        delivery = Delivery(name, recipient, number, events, inbox.last_sent)
        delivery.thread = Thread(target=self._deliver, args=(delivery,), daemon=True)
        delivery.thread.start()
        self._deliveries[number, name] = delivery

    def _deliver(self, delivery: Delivery) -> None:
        """Send a message and record the outcome, in the thread of the delivery."""
        notifications = [event.notification for event in delivery.events]
        may_send = partial(self._may_send, delivery)
        send = partial(
            self._sender.send, delivery.recipient, notifications, may_send, self._stop.wait
        )
        try:
            delivery.run(send, self._stop)
            if delivery.outcome:
                self._record(delivery)
        except Exception as error:
            say(f"{delivery.name}: {describe_failure(error)}; trying again in {PAUSE_SECONDS} s")
            self._stop.wait(PAUSE_SECONDS)
            if not delivery.outcome:  # it is as if it had never been tried
                delivery.unsettled.clear()

    def _may_send(self, delivery: Delivery) -> bool:
        """Whether the message is still to be sent, by this copy and now."""
        now = time.monotonic()
        partition = self._partitions.get(delivery.partition)
        return (
            not self._stop
            and not delivery.outcome  # as when it was given up while the attempt waited
            and partition is not None
            and partition.is_read
            and now - self._last_poll < FRESH_SECONDS
            and now >= self._not_before
            and delivery.is_due()
        )

    def _record(self, delivery: Delivery) -> None:
        """Publish the receipts of a delivery.

        When that fails, this copy joins the group again, reads which receipts there are, and
        publishes those that are missing.
        """
        membership = self._membership
        with self._recording:
            try:
                while delivery.unrecorded:
                    transact(membership.producer, delivery.unrecorded[0])
                    del delivery.unrecorded[0]
            except Exception as error:
                membership.is_lost = True
                say(f"Kafka did not record what was told: {describe_failure(error)}; trying again")
            else:
                say(delivery.outcome)


def _assigned(membership: Membership) -> set[int]:
    """The numbers of the partitions that Kafka has given to this copy."""
    return {partition.partition for partition in membership.consumer.assignment()}


def _restart_time_to_give_up(inbox: Inbox) -> None:
    for event in inbox.pending.values():
        event.due_since = None


def describe_failure(error: Exception) -> str:
    """An error in one line. Of an unexpected error its text is left out: it may hold a secret."""
    if isinstance(error, PipelineError | KafkaError):
        return one_line(error)
    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(frame.filename).name}, line {frame.lineno}"
    return f"unexpected {type(error).__name__} in {where}"
