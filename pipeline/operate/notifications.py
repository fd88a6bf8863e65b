"""Notifications: what each recipient was sent and when, what waits, and what was given up."""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime

from pipeline.errors import InvalidInput
from pipeline.messages import NOTIFICATIONS, Receipt, moment
from pipeline.notify.inbox import Inbox, parse_notification
from pipeline.notify.message_text import some_ids
from pipeline.own_kafka import find_kafka
from pipeline.settings import Parser
from pipeline.stop_signal import StopSignal
from pipeline.stream.connection import Kafka
from pipeline.stream.topic_reader import TopicReader
from pipeline.terminal import say
from pipeline.wording import count_of


def main(arguments: Sequence[str]) -> None:
    """Print a line for each notification, by recipient and time, then a line with the counts."""
    parser = Parser(
        "Show what each recipient was told, what waits to be told, and what was given up.",
        "python -m pipeline notifications",
    )
    settings = find_kafka(parser.settings(parser.parse_args(arguments)), "notifications")
    kafka = Kafka(settings, StopSignal(status=1))
    with kafka.connect(TopicReader) as topics:
        inboxes, receipts = read(topics)
    lines: list[tuple[str, datetime, str, Sequence[str]]] = [
        (receipt.recipient, receipt.at.astimezone(UTC), receipt.outcome, receipt.event_ids)
        for receipt in receipts
    ]
    for (_, recipient), inbox in inboxes.items():
        for waiting in inbox.pending.values():
            event_id = waiting.notification.event.event_id
            lines.append((recipient, waiting.since, "waits", [event_id]))
    for recipient, at, outcome, event_ids in sorted(lines):
        say(f"{recipient:16}  {at:%Y-%m-%d %H:%M:%S} UTC  {outcome:8}  {some_ids(event_ids)}")
    recipients = {recipient for recipient, *_ in lines}
    counts = Counter(outcome for _, _, outcome, _ in lines)
    say(
        f"{count_of(len(recipients), 'recipient')}: {counts['sent']} sent, "
        f"{counts['given up']} given up, {counts['waits']} waiting"
    )


def read(topics: TopicReader) -> tuple[dict[tuple[int, str], Inbox], list[Receipt]]:
    """What waits, by partition and recipient, and what was sent. Raises `KafkaError`."""
    inboxes: dict[tuple[int, str], Inbox] = {}
    receipts = []
    for record in topics.read_all(NOTIFICATIONS):
        with suppress(InvalidInput):
            message = parse_notification(record.value)
            inbox = inboxes.setdefault((record.partition, message.recipient), Inbox())
            inbox.add(record, message, moment(record.timestamp / 1000))
            if isinstance(message, Receipt):
                receipts.append(message)
    return inboxes, receipts
