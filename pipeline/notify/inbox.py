"""The inbox of a recipient: the image events that wait for it in the topic `notifications`.

A `Notification` in the topic says that a recipient shall hear of an image event. A `Receipt` behind
it, in the same partition, says that the message was sent, or that it was given up.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec
from kafka.consumer.fetcher import ConsumerRecord

from pipeline.errors import InvalidInput
from pipeline.messages import Notification, Receipt, moment
from pipeline.stream.clock import CLOCK
from pipeline.stream.deduplication import cause
from pipeline.wording import decoding_fault


@dataclass
class PendingEvent:
    """An image event that the recipient has not been notified of yet."""

    notification: Notification
    since: datetime
    records: dict[int, ConsumerRecord]  # by offset; several if the same notification came twice
    due_since: float | None = None  # by the monotonic clock; the time to give up counts from here


class Inbox:
    """What waits for one recipient in one partition, as far as the partition has been read."""

    def __init__(self) -> None:
        self.pending: dict[bytes, PendingEvent] = {}  # by the SHA-256 of the notification
        self.last_sent: datetime | None = None
        self._sent: set[bytes] = set()
        self._hashes: dict[int, bytes] = {}  # of the notifications without a receipt, by offset

    def add(self, record: ConsumerRecord, message: Notification | Receipt, now: datetime) -> None:
        """Add the next record of the partition.

        `now` is of this computer's clock, and the record's time of Kafka's: what is known of their
        difference is added. A time in the future all the same counts as `now`.
        """
        if isinstance(message, Receipt):
            self._settle(message, now)
            return
        sha256 = cause(record)
        if sha256 not in self._sent:
            since = min(now, moment(record.timestamp / 1000 + CLOCK.seconds_ahead))
            event = self.pending.setdefault(sha256, PendingEvent(message, since, {}))
            event.records[record.offset] = record
            self._hashes[record.offset] = sha256

    def _settle(self, receipt: Receipt, now: datetime) -> None:
        """Remove what the receipt is about. What was given up may be sent back, and waits anew."""
        is_sent = receipt.outcome == "sent"
        if is_sent:
            at = min(now, receipt.at)
            self.last_sent = max(at, self.last_sent or at)
        for offset in receipt.offsets:
            sha256 = self._hashes.pop(offset, b"")
            if is_sent and sha256:
                self._sent.add(sha256)
                self.pending.pop(sha256, None)
            elif event := self.pending.get(sha256):
                del event.records[offset]
                if not event.records:
                    del self.pending[sha256]


def parse_notification(value: bytes | None) -> Notification | Receipt:
    """The message in a record of `notifications`. Raises `InvalidInput`."""
    try:
        message = msgspec.json.decode(value or b"", type=Notification | Receipt)
        at = message.at if isinstance(message, Receipt) else message.event.received
        if at:
            at.astimezone(UTC)  # fails where the time zone leads out of the calendar
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OverflowError) as error:
        fault = decoding_fault(error)
        raise InvalidInput(f"the message is no Notification or Receipt: {fault}") from error
    return message
