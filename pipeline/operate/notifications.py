"""Notifications: what each recipient was told and when, what waits, and what was given up."""

from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime

from pipeline.errors import InvalidInput
from pipeline.messages import NOTIFICATIONS, Receipt, moment
from pipeline.notify.inbox import Inbox, parse_notification
from pipeline.notify.message_text import some_ids
from pipeline.settings import Parser
from pipeline.stop_signal import StopSignal
from pipeline.stream.connection import Kafka
from pipeline.stream.topic_reader import TopicReader
from pipeline.terminal import say


def main(arguments: Sequence[str]) -> None:
    """Print a line for each message, by recipient and time, and a last one that counts them."""
    parser = Parser(
        "Show what each recipient was told, what waits to be told, and what was given up.",
        "python -m pipeline notifications",
    )
    kafka = Kafka(parser.settings(parser.parse_args(arguments)), StopSignal(status=1))
    with kafka.connect(TopicReader) as topics:
        boxes, all_told = read(topics)
    lines: list[tuple[str, datetime, str, Sequence[str]]] = [
        (told.recipient, told.at.astimezone(UTC), told.outcome, told.event_ids) for told in all_told
    ]
    for (_, recipient), box in boxes.items():
        for one in box.pending.values():
            event = one.notification.event
            lines.append((recipient, one.since, "waits", [event.event_id]))
    for recipient, at, what, ids in sorted(lines):
        say(f"{recipient:16}  {at:%Y-%m-%d %H:%M:%S} UTC  {what:8}  {some_ids(ids)}")
    counts = (f"{sum(one[2] == what for one in lines)} {what}" for what in ("sent", "given up"))
    waiting = sum(one[2] == "waits" for one in lines)
    say(f"{len({one[0] for one in lines})} recipients: {', '.join(counts)}, {waiting} wait")


def read(topics: TopicReader) -> tuple[dict[tuple[int, str], Inbox], list[Receipt]]:
    """What waits, by partition and recipient, and what was told. Raises `KafkaError`."""
    boxes: dict[tuple[int, str], Inbox] = {}
    told = []
    start, end = topics.beginning_offsets(NOTIFICATIONS), topics.end_offsets(NOTIFICATIONS)
    for record in topics.read(start, end):
        with suppress(InvalidInput):
            message = parse_notification(record.value)
            box = boxes.setdefault((record.partition, message.recipient), Inbox())
            box.add(record, message, moment(record.timestamp / 1000))
            if isinstance(message, Receipt):
                told.append(message)
    return boxes, told
