"""Telling: sends what is in `notifications` to the recipients, and records there what was sent.

A notification says that a recipient is to be told of an event; a record behind it, in the same
partition, says that the recipient was told. So the topic itself is all that is remembered: who gets
a partition reads it from its beginning, and tells what isn't told yet. No offsets are committed.

Kafka gives each partition to one copy, so a recipient is told by one copy at a time. Each recipient
has a thread of its own while something is sent, so that a server that hangs holds up nobody else.
"""

import logging
import os
import re
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent import futures
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
from kafka import TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.coordinator.base import MemberState
from kafka.errors import KafkaError
from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_exponential

from pipeline.errors import FatalError, InvalidInput, TransientError
from pipeline.messages import NOTIFICATIONS, ImageEvent, Notification, Receipt, moment
from pipeline.notify.recipients import Recipient
from pipeline.settings import Location
from pipeline.store.database import Database
from pipeline.store.names import IMAGE_DATABASE, IMAGE_EVENT_ALERTS, IMAGE_EVENT_DATABASE, digest
from pipeline.stream.connection import Kafka
from pipeline.stream.dead_letters import dead_letter
from pipeline.stream.deduplication import cause
from pipeline.stream.groups import member_count
from pipeline.stream.membership import GroupMember, Membership
from pipeline.stream.positions import position_of
from pipeline.stream.transactions import outgoing_message, transact
from pipeline.terminal import one_line, printable, say

STAGE = "image_event_alert"
GROUP = f"{STAGE}-recipients"
SEND_SECONDS = 30  # to wait for one attempt, and for one of another copy that had the partition
FRESH_SECONDS = 5  # without a poll, until it may be that the group has gone on without us
END_SECONDS = 2.5  # to wait for what is just being sent, when told to stop
MOST_LISTED = 20  # events in one message; more are counted
MOST_ATTACHED = 20 * 2**20  # bytes
LONGEST = 4000  # characters of an alert
MOST_TOLD = 5000  # notifications that one record settles; so it stays under Kafka's 1 MiB

Key = tuple[int, str]  # partition, recipient


class DeliveryFailed(Exception):
    """Why a recipient could not be told this time."""


class Abandoned(Exception):
    """A message isn't this copy's to send any more, or not now."""


@dataclass
class Waiting:
    """An event that a recipient is to be told of."""

    notification: Notification
    since: datetime
    records: dict[int, ConsumerRecord]  # by offset; of the same value, if it came twice
    tried_since: float | None = None  # by the monotonic clock


class Inbox:
    """What waits for one recipient, and when it was told last, as far as a partition was read."""

    def __init__(self) -> None:
        self.waiting: dict[bytes, Waiting] = {}  # by the notification's SHA-256
        self.last: datetime | None = None
        self._sent: set[bytes] = set()
        self._hashes: dict[int, bytes] = {}

    def take(self, record: ConsumerRecord, message: Notification | Receipt, now: datetime) -> None:
        """Take the next record of the partition. Clocks that are ahead of ours don't count."""
        if isinstance(message, Notification):
            key = cause(record)
            if key not in self._sent:
                since = min(now, moment(record.timestamp / 1000))
                one = self.waiting.setdefault(key, Waiting(message, since, {}))
                one.records[record.offset] = record
                self._hashes[record.offset] = key
            return
        if message.outcome == "sent":
            self.last = max(min(now, message.at), self.last or message.at.min.replace(tzinfo=UTC))
        for offset in message.offsets:
            if offset in self._hashes:
                self._settle(offset, self._hashes.pop(offset), message.outcome == "sent")

    def _settle(self, offset: int, key: bytes, is_sent: bool) -> None:
        if is_sent:
            self._sent.add(key)
            self.waiting.pop(key, None)
        elif key in self.waiting:
            del self.waiting[key].records[offset]
            if not self.waiting[key].records:
                del self.waiting[key]


@dataclass
class Delivery:
    """A message that is under way to a recipient, until the topic says what became of it."""

    name: str
    recipient: Recipient
    partition: int
    events: list[Waiting]
    last: datetime | None
    offsets: set[int] = field(init=False)  # that the topic doesn't say were told
    sending: Future[str] | None = None
    outcome: str = ""  # a line for people
    is_sent: bool = False
    outgoing: list[list[dict[str, Any]]] = field(default_factory=list)  # to be recorded
    thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self.offsets = {offset for one in self.events for offset in one.records}

    @property
    def ids(self) -> list[str]:
        """The ids of the events."""
        return [one.notification.event.event_id for one in self.events]


class Notifier:
    """The thread that takes `notifications`, and those that send them."""

    def __init__(self, kafka: Kafka, data: Location, recipients: Mapping[str, Recipient]) -> None:
        self._stage = GroupMember(kafka, GROUP, NOTIFICATIONS, NOTIFICATIONS)
        self._recipients = recipients
        self._databases = {
            name: Database(data, name)
            for name in (IMAGE_DATABASE, IMAGE_EVENT_DATABASE, IMAGE_EVENT_ALERTS)
        }
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._place: Membership
        self._recording = threading.Lock()  # one transaction at a time
        # What we had when the group was well last: the place, the generation, the partitions.
        self._member: tuple[Membership, int, frozenset[int]] | None = None
        self._is_reading = False
        self._ends: dict[int, int] = {}  # of the partitions, when we got them
        self._behind: set[int] = set()  # partitions that haven't been read up to there
        self._ready: frozenset[int] = frozenset()
        self._free: dict[int, float] = {}  # when nobody else can be sending what is before there
        self._polled = float("inf")  # by the monotonic clock
        self._not_before = 0.0
        self._boxes: dict[Key, Inbox] = {}
        self._underway: dict[Key, Delivery] = {}
        self._said: set[str] = set()

    def start(self) -> None:
        """Begin to tell the recipients, beside whatever the program does."""
        # Without any of its own, Python would print what libraries log, with addresses in it.
        logging.getLogger().addHandler(logging.NullHandler())
        # Only so does Apprise say why it could not connect.
        logging.getLogger("apprise").setLevel(logging.DEBUG)
        self._thread.start()

    def finish(self) -> None:
        """Wait, when the program is told to stop, until what is just being sent is recorded."""
        self._thread.join()

    def _run(self) -> None:
        try:
            for place, polled in self._stage.polls():
                try:
                    self._look(place, polled)
                except KafkaError as error:
                    self._stage.kafka.end_if_forbidden(error)
                    say(f"Kafka: {one_line(error)}; connecting again")
                    place.is_lost = True
                if self._stage.kafka.stop:
                    end = time.monotonic() + END_SECONDS
                    for delivery in self._underway.values():
                        delivery.thread.join(max(0.0, end - time.monotonic()))
        except FatalError as end_of_all:
            if not self._stage.kafka.stop:  # in a thread it would end nothing but that
                say(str(end_of_all))
                os._exit(1)
        except Exception:
            traceback.print_exc()
            os._exit(1)

    def _look(
        self, place: Membership, polled: Mapping[TopicPartition, list[ConsumerRecord]]
    ) -> None:
        """Take what a poll has found, and begin to send what is due."""
        now = time.monotonic()
        if now - self._polled > FRESH_SECONDS:
            # We were frozen, or away. Soon Kafka says whether the partitions are still ours.
            self._not_before = now + FRESH_SECONDS
        self._polled = now
        if place.is_lost or self._is_new(place):
            return
        for records in polled.values():
            for record in records:
                self._take(record)
        for number in list(self._behind):
            partition = TopicPartition(NOTIFICATIONS, number)
            position = place.consumer.position(partition, timeout_ms=1000)
            if position is not None and position >= self._ends[number]:
                self._behind.remove(number)
        self._ready = frozenset(self._ends.keys() - self._behind)
        self._go_on_with_what_is_under_way()
        for (number, name), box in self._boxes.items():
            if name in self._recipients and number in self._ready:
                self._deliver_what_is_due(number, name, box)

    def _is_new(self, place: Membership) -> bool:
        """Whether the partitions aren't those that we had; if so, read ours from the beginning."""
        self._place = place
        group = place.consumer.group_metadata()
        partitions = frozenset(one.partition for one in place.consumer.assignment())
        member = (place, group.generation_id, partitions)
        if self._is_reading and self._member == member and group.state == MemberState.STABLE:
            return False
        self._is_reading, self._ready = False, frozenset()
        self._boxes.clear()
        if group.state != MemberState.STABLE:
            return True
        had: frozenset[int] = frozenset()
        if self._member and 0 <= group.generation_id - self._member[1] <= 1:
            had = self._member[2]  # and nobody else had them in between
        ends = place.topics.end_offsets(NOTIFICATIONS)
        self._ends = {one.partition: ends[one] for one in place.consumer.assignment()}
        self._behind = set(partitions)
        is_free = partitions <= had or member_count(self._stage.kafka, GROUP) < 2
        free = time.monotonic() + SEND_SECONDS
        self._free = {one: 0.0 if is_free or one in had else free for one in partitions}
        if partitions:
            place.consumer.seek_to_beginning(*place.consumer.assignment())
        self._member, self._is_reading = member, True
        return True

    def _take(self, record: ConsumerRecord) -> None:
        try:
            message = parse_notification(record.value)
        except InvalidInput as reason:
            self._say_once(
                f"{position_of(record)}: {printable(str(reason))}; it is left where it is"
            )
            return
        key = record.partition, message.recipient
        self._boxes.setdefault(key, Inbox()).take(record, message, datetime.now(UTC))
        if isinstance(message, Receipt) and key in self._underway:
            self._underway[key].offsets -= set(message.offsets)
        if message.recipient not in self._recipients and isinstance(message, Notification):
            self._say_once(f"{message.recipient} is no recipient any more; what it waits for stays")

    def _say_once(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            say(line)

    def _go_on_with_what_is_under_way(self) -> None:
        """Record what could not be recorded at once, and forget what the topic knows."""
        for key, delivery in list(self._underway.items()):
            if delivery.thread.is_alive() or delivery.partition in self._behind:
                continue
            if delivery.outgoing and delivery.offsets:
                self._record(delivery)
            elif not delivery.offsets or delivery.partition not in self._ready:
                del self._underway[key]
                # The channel works: those behind have waited for their turn, not for it.
                box = self._boxes.get(key) if delivery.is_sent else None
                for one in box.waiting.values() if box else ():
                    one.tried_since = None

    def _deliver_what_is_due(self, partition: int, name: str, box: Inbox) -> None:
        recipient, now, clock = self._recipients[name], datetime.now(UTC), time.monotonic()
        # Of what was there when we got the partition, another copy may just be sending some.
        is_free, end = clock >= self._free[partition], self._ends[partition]
        ours = (one for one in box.waiting.values() if is_free or min(one.records) >= end)
        first = next(ours, None)
        if not first:
            return
        if recipient.due(first.since, box.last, now) > now:
            if first.tried_since:  # before the quiet hours, say; after them it is tried anew
                for one in box.waiting.values():
                    one.tried_since = None
            return
        waiting = [first, *ours]
        for one in waiting:
            one.tried_since = one.tried_since or clock
        if (partition, name) in self._underway or clock < self._not_before:
            return
        events = [first]
        if recipient.collects(first.since):
            events = [one for one in waiting if recipient.collects(one.since)]
        delivery = Delivery(name, recipient, partition, events, box.last)
        delivery.thread = threading.Thread(target=self._deliver, args=(delivery,), daemon=True)
        self._underway[partition, name] = delivery
        delivery.thread.start()

    def _deliver(self, delivery: Delivery) -> None:
        """Send a message until it is sent, given up or not ours any more, and record that."""
        recipient, name = delivery.recipient, delivery.name
        what = some_ids(delivery.ids)
        started = max(one.tried_since or 0 for one in delivery.events)

        def is_enough(_: RetryCallState) -> bool:
            return time.monotonic() - started >= recipient.give_up_after

        def say_again(state: RetryCallState) -> None:
            reason = state.outcome and state.outcome.exception()
            pause = f"trying again in {state.upcoming_sleep:g} s"
            say(f"{what}  {name} could not be told ({reason}); {pause}")

        again = Retrying(
            retry=retry_if_exception_type(DeliveryFailed),
            wait=wait_exponential(max=60),
            stop=is_enough,
            sleep=self._stage.kafka.stop.wait,
            before_sleep=say_again,
            reraise=True,
        )
        try:
            again(self._attempt, delivery)
        except Abandoned:
            delivery.offsets.clear()
            return
        except RuntimeError as error:  # no thread is to be had
            say(f"{what}  {name} could not be told ({error}); trying again")
            delivery.offsets.clear()
            return
        except DeliveryFailed as error:
            reason = f"{name} could not be told in {recipient.give_up_after:g} s: {error}"
            delivery.outcome = f"{what}  given up, and set aside: {reason}"
            delivery.outgoing = list(_settling(delivery, InvalidInput(reason)))
        else:
            delivery.is_sent = True
            delivery.outcome = f"{what}  told {name}"
            delivery.outgoing = list(_settling(delivery))
        self._record(delivery)

    def _attempt(self, delivery: Delivery) -> None:
        """Send the message, once. Raises `NotTold` or `Abandoned`."""
        if not delivery.sending:
            send = partial(self._send, delivery)
            delivery.sending = Future()
            threading.Thread(target=_run_into, args=(delivery.sending, send), daemon=True).start()
        if not futures.wait([delivery.sending], SEND_SECONDS).done:
            # It may be sent all the same: better wait on than send it again.
            raise DeliveryFailed(f"no answer in {SEND_SECONDS} s")
        try:
            reason = delivery.sending.result()
        except Abandoned:
            raise
        except Exception as error:
            delivery.sending = None
            raise DeliveryFailed(delivery.recipient.redacted(f"{error!r}")) from error
        delivery.sending = None
        if reason:
            raise DeliveryFailed(reason)

    def _may_send(self, delivery: Delivery) -> bool:
        """Whether the message is still ours, and the hour isn't quiet."""
        clock, now = time.monotonic(), datetime.now(UTC)
        return (
            not self._stage.kafka.stop
            and not delivery.outcome  # given up, while we waited for something
            and delivery.partition in self._ready
            and clock - self._polled < FRESH_SECONDS
            and clock >= self._not_before
            and delivery.recipient.due(delivery.events[0].since, delivery.last, now) <= now
        )

    def _send(self, delivery: Delivery) -> str:
        """Send the message; why that failed, empty if it didn't."""
        # The recipients were checked with it; who has none doesn't wait for it.
        import apprise  # noqa: PLC0415

        channel = delivery.recipient.channel
        events = [one.notification for one in delivery.events]
        with tempfile.TemporaryDirectory(prefix="image-pipeline-") as directory:
            lines: list[str] = []
            files: list[Path] = []
            if delivery.recipient.attach and channel.attachment_support:
                lines, files = self._pictures(most_changed(events).event, Path(directory))
            body = "\n".join([self._body(events), *lines])
            sender = apprise.Apprise(asset=channel.asset)
            sender.add(channel)
            # Apprise lets a channel rest after each message: here, so that nothing changes after.
            rested = datetime.now() - (channel._last_io_datetime or datetime.min)
            self._stage.kafka.stop.wait(channel.request_rate_per_sec - rested.total_seconds())
            if not self._may_send(delivery):
                raise Abandoned
            result = sender.notify(
                title=title(events),
                body=body,
                body_format=apprise.NotifyFormat.TEXT,
                attach=[f"file://{quote(str(file))}" for file in files] or None,
                log_level=logging.DEBUG,
            )
        if result:
            return ""
        said = [entry for entry in result.logs() if not entry.message.startswith("Response")]
        reasons = [one.message for one in said if one.level in ("WARNING", "ERROR", "CRITICAL")]
        causes = [one.message for one in said if one.message.startswith("Socket Exception: ")]
        # What requests says wraps the cause, which comes last.
        causes = [one.rpartition(": ")[2].removesuffix('"))') for one in causes]
        return delivery.recipient.redacted(": ".join(reasons[-1:] + causes[-1:])) or "it failed"

    def _body(self, notifications: list[Notification]) -> str:
        """What a message says: the alert's own text, or a list if there are several."""
        if len(notifications) > 1:
            return listed(notifications)
        notification = notifications[0]
        try:
            # What can't be read now is left out: waiting for a disk, nobody would be told.
            alert = self._databases[IMAGE_EVENT_ALERTS].files.read(notification.alert_path)
        except (InvalidInput, TransientError) as reason:
            return f"{line(notification.event)}\nThe alert is gone: {printable(str(reason))}"
        said = alert.decode(errors="replace")[:LONGEST]
        return "\n".join(printable(one) for one in said.splitlines())

    def _pictures(self, event: ImageEvent, directory: Path) -> tuple[list[str], list[Path]]:
        """The event's three pictures, as files; and a line for each that can't be attached."""
        lines: list[str] = []
        files: list[Path] = []
        size = 0
        # Where another program's event doesn't say, its images have the usual names.
        image = event.image_path or f"{IMAGE_DATABASE}/{event.image_id}.jpg"
        previous = event.previous_image_path or f"{IMAGE_DATABASE}/{event.previous_image_id}.jpg"
        for database, path, sha256 in (
            (IMAGE_DATABASE, image, None),
            (IMAGE_DATABASE, previous, None),
            (IMAGE_EVENT_DATABASE, event.difference_path, event.difference_sha256),
        ):
            if path is None:
                continue
            try:
                content = self._databases[database].files.read(path)
                if sha256 not in (None, digest(content)):
                    raise InvalidInput(f"{path} has other bytes than when it was stored")
                if size + len(content) > MOST_ATTACHED:
                    raise InvalidInput(f"{path} is too large, {len(content)} bytes")
                # The name goes into headers that not every channel quotes.
                file = directory / re.sub(r"[^\w.-]", "_", Path(path).name, flags=re.ASCII)
                file.write_bytes(content)
            except (InvalidInput, TransientError, OSError) as reason:
                lines.append(f"Not attached: {printable(str(reason))}")
                continue
            if file not in files:
                files.append(file)
                size += len(content)
        return lines, files

    def _record(self, delivery: Delivery) -> None:
        """Make it true that the recipient was told, or is given up; if it can't, leave the place.

        The next place begins by reading what became of it.
        """
        place = self._place
        with self._recording:
            try:
                while delivery.outgoing:
                    transact(place.producer, delivery.outgoing[0])
                    del delivery.outgoing[0]
            except KafkaError as error:
                place.is_lost = True
                self._stage.kafka.end_if_forbidden(error)
                say(f"Kafka did not record what was told: {one_line(error)}; trying again")
            else:
                say(delivery.outcome)


def _settling(
    delivery: Delivery, reason: InvalidInput | None = None
) -> Iterator[list[dict[str, Any]]]:
    """The records that settle a delivery, those of each transaction; given up for this reason."""
    for start in range(0, len(delivery.events), MOST_TOLD):
        events = delivery.events[start : start + MOST_TOLD]
        records = [record for one in events for record in list(one.records.values())]
        told = Receipt(
            recipient=delivery.name,
            offsets=[record.offset for record in records],
            event_ids=[one.notification.event.event_id for one in events],
            outcome="given up" if reason else "sent",
            at=datetime.now(UTC),
        )
        letters = [dead_letter(one, STAGE, reason)[0] for one in records] if reason else []
        # Where its notifications are, even if there are more partitions by now.
        where = {"partition": delivery.partition}
        yield [{**outgoing_message(NOTIFICATIONS, told), **where}, *letters]


def _run_into(future: Future[str], function: Callable[[], str]) -> None:
    try:
        future.set_result(function())
    except Exception as error:
        future.set_exception(error)


def parse_notification(value: bytes | None) -> Notification | Receipt:
    """The message in a record of `notifications`. Raises `Unusable`."""
    try:
        message = msgspec.json.decode(value or b"", type=Notification | Receipt)
        at = message.at if isinstance(message, Receipt) else message.event.received
        if at:
            at.astimezone(UTC)  # at either end of the calendar there is no such time
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OverflowError) as error:
        raise InvalidInput(f"the message is no Notification or Told: {error}") from error
    return message


def some_ids(ids: Sequence[str]) -> str:
    """Some ids, and how many more there are."""
    return ", ".join(ids) if len(ids) < 4 else f"{', '.join(ids[:2])} and {len(ids) - 2} more"


def title(notifications: Sequence[Notification]) -> str:
    """What a message is about."""
    if len(notifications) > 1:
        return f"{len(notifications)} image events"
    event = notifications[0].event
    return f"Image {event.image_id} differs from image {event.previous_image_id}"


def line(event: ImageEvent) -> str:
    """An event in one line."""
    facts = [
        f"{event.changed_share:.3g} of the pixels" if event.changed_share is not None else "",
        f"RMS {event.rms:.4g}" if event.rms is not None else "",
        f"{event.received.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if event.received else "",
    ]
    return "  ".join([event.event_id, ", ".join(filter(None, facts))]).rstrip()


def listed(notifications: Sequence[Notification]) -> str:
    """Several events in one message."""
    lines = [line(one.event) for one in notifications[:MOST_LISTED]]
    if len(notifications) > MOST_LISTED:
        lines.append(f"and {len(notifications) - MOST_LISTED} more")
    most = most_changed(notifications).event.event_id
    return "\n".join([f"{title(notifications)}:", *lines, "", f"The largest change is {most}."])


def most_changed(notifications: Iterable[Notification]) -> Notification:
    """The one whose picture has changed most."""
    return max(notifications, key=lambda one: one.event.changed_share or 0)
