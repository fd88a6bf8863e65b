"""Notifications: what each recipient was told and when, what waits, and what was given up."""

import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime

from kafka.errors import KafkaError

from pipeline import Unusable, moment, say
from pipeline.connection import Kafka, Stop, text
from pipeline.messages import NOTIFICATIONS, Told
from pipeline.settings import Parser
from pipeline.topics import Topics
from telling import Box, names, parse


def main(arguments: Sequence[str]) -> None:
    """Print a line for each message, by recipient and time, and a last one that counts them."""
    parser = Parser(
        "Show what each recipient was told, what waits to be told, and what was given up.",
        "python -m pipeline notifications",
    )
    kafka = Kafka(parser.settings(parser.parse_args(arguments)), Stop(status=1))
    topics, closing = kafka.connect(lambda inner: Topics(kafka, inner))
    with closing:
        try:
            boxes, all_told = read(topics)
        except KafkaError as error:
            sys.exit(f"Kafka: {text(error)}; try again")
    lines: list[tuple[str, datetime, str, Sequence[str]]] = [
        (told.recipient, told.at.astimezone(UTC), told.outcome, told.event_ids) for told in all_told
    ]
    for (_, recipient), box in boxes.items():
        for one in box.waiting.values():
            event = one.notification.event
            lines.append((recipient, one.since, "waits", [event.event_id]))
    for recipient, at, what, ids in sorted(lines):
        say(f"{recipient:16}  {at:%Y-%m-%d %H:%M:%S} UTC  {what:8}  {names(ids)}")
    counts = (f"{sum(one[2] == what for one in lines)} {what}" for what in ("sent", "given up"))
    waiting = sum(one[2] == "waits" for one in lines)
    say(f"{len({one[0] for one in lines})} recipients: {', '.join(counts)}, {waiting} wait")


def read(topics: Topics) -> tuple[dict[tuple[int, str], Box], list[Told]]:
    """What waits, by partition and recipient, and what was told. Raises `KafkaError`."""
    boxes: dict[tuple[int, str], Box] = {}
    told = []
    start, end = topics.beginnings(NOTIFICATIONS), topics.ends(NOTIFICATIONS)
    for record in topics.read(start, end):
        with suppress(Unusable):
            message = parse(record.value)
            box = boxes.setdefault((record.partition, message.recipient), Box())
            box.take(record, message, moment(record.timestamp / 1000))
            if isinstance(message, Told):
                told.append(message)
    return boxes, told
