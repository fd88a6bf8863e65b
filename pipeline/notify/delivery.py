"""A delivery: one message to one recipient, tried until it is sent or given up."""

import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property, partial
from threading import Thread
from typing import Any

from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_exponential

from pipeline.concurrently import run_in_thread
from pipeline.errors import InvalidInput
from pipeline.messages import NOTIFICATIONS, Receipt
from pipeline.notify.inbox import PendingEvent
from pipeline.notify.message_text import some_ids
from pipeline.notify.recipients import Recipient
from pipeline.notify.sending import Abandoned, DeliveryFailed, Room
from pipeline.stop_signal import StopSignal
from pipeline.stream.dead_letters import dead_letter
from pipeline.stream.transactions import outgoing_message
from pipeline.terminal import say

STAGE = "image_event_alert"
SEND_SECONDS = 30  # to wait for the answer to an attempt
Send = Callable[..., str]  # makes an attempt, and returns what is to be said of the pictures
MAX_EVENTS = 5000  # in one receipt, which so stays under Kafka's 1 MiB


@dataclass
class Delivery:
    """A message that is being sent, until a receipt for it is read from the topic."""

    name: str
    recipient: Recipient
    partition: int
    events: list[PendingEvent]
    last_sent: datetime | None  # when the recipient got its previous message
    unsettled: set[int] = field(init=False)  # offsets for which no receipt was read yet
    outcome: str = ""  # a line for people, once the message is sent or given up
    failure: InvalidInput | None = None  # why it was given up
    thread: Thread = field(init=False)
    _answer: Future[str] | None = None  # of the attempt that is being made

    def __post_init__(self) -> None:
        self.unsettled = {offset for event in self.events for offset in event.records}

    def is_due(self) -> bool:
        """Whether the message is due now: the quiet hours may have begun since it was tried."""
        now = datetime.now(UTC)
        return self.recipient.due(self.events[0].since, self.last_sent, now) <= now

    def run(self, send: Send, stop: StopSignal) -> None:
        """Try to send the message, with growing pauses, until there is an outcome.

        `send` makes one attempt. After `Abandoned` there is no outcome, and the events wait on.
        Before the message is given up, it is tried without pictures, which may be what the channel
        doesn't take.
        """
        ids = some_ids([event.notification.event.event_id for event in self.events])
        started = max(event.due_since or 0 for event in self.events)

        def is_time_to_give_up(_: RetryCallState) -> bool:
            return time.monotonic() - started >= self.recipient.give_up_after

        def say_retry(state: RetryCallState) -> None:
            reason = state.outcome and state.outcome.exception()
            pause = f"trying again in {state.upcoming_sleep:g} s"
            say(f"{ids}  {self.name} could not be told ({reason}); {pause}")

        attempts = Retrying(
            retry=retry_if_exception_type(DeliveryFailed),
            wait=wait_exponential(max=60),
            stop=is_time_to_give_up,
            sleep=stop.wait,
            before_sleep=say_retry,
            reraise=True,
        )
        try:
            try:
                remark = attempts(self._attempt, send)
            except DeliveryFailed as error:
                if self._answer or not self.recipient.attach:
                    raise
                room = Room(0, f"the message could not be sent with them: {error}")
                remark = self._attempt(partial(send, room=room))
            self.outcome = f"{ids}  told {self.name}{remark and '; '}{remark}"
        except Abandoned:
            self.unsettled.clear()
        except DeliveryFailed as error:
            seconds = f"{self.recipient.give_up_after:g} s"
            self.failure = InvalidInput(f"{self.name} could not be told in {seconds}: {error}")
            self.outcome = f"{ids}  given up, and set aside: {self.failure}"

    def _attempt(self, send: Send) -> str:
        """Begin an attempt and wait for its answer. Raises `DeliveryFailed` or `Abandoned`."""
        # An attempt without an answer may succeed later: waiting on is better than sending twice.
        if not self._answer:
            try:
                self._answer = run_in_thread(send)
            except RuntimeError as error:  # the machine has no thread left
                raise DeliveryFailed(str(error)) from error
        if not wait([self._answer], SEND_SECONDS).done:
            raise DeliveryFailed(f"no answer in {SEND_SECONDS} s")
        answer, self._answer = self._answer, None
        try:
            return answer.result()
        except (Abandoned, DeliveryFailed):
            raise
        except Exception as error:  # Apprise has a hundred channels, which raise what they like
            raise DeliveryFailed(self.recipient.redacted(f"{error!r}")) from error

    @cached_property
    def unrecorded(self) -> list[list[dict[str, Any]]]:
        """The messages that record the outcome, by transaction; removed as they are published.

        They are receipts, and dead letters if the message was given up.
        """
        return [
            self._messages(self.events[start : start + MAX_EVENTS])
            for start in range(0, len(self.events), MAX_EVENTS)
        ]

    def _messages(self, events: list[PendingEvent]) -> list[dict[str, Any]]:
        # A copy: the notifier adds a record when the same notification comes again.
        records = [record for event in events for record in list(event.records.values())]
        receipt = Receipt(
            recipient=self.name,
            offsets=[record.offset for record in records],
            event_ids=[event.notification.event.event_id for event in events],
            outcome="given up" if self.failure else "sent",
            at=datetime.now(UTC),
        )
        letters = []
        if self.failure:
            letters = [dead_letter(record, STAGE, self.failure)[0] for record in records]
        # The partition is named: a topic with more partitions by now would choose another.
        return [
            {**outgoing_message(NOTIFICATIONS, receipt), "partition": self.partition},
            *letters,
        ]
