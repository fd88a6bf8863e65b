"""Alert: tell the interested parties of each image event, and keep each alert.

They are whoever reads this terminal, `image_event_alerts/` or the topic `alerts`; and those whom
`recipients.toml` names, by mail, chat and the like. Who of these is told of what is decided here,
together with the alert. The sending is `telling.py`'s, beside it: it holds up no alert.

    python image_event_alert.py
"""

import argparse
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from kafka.errors import KafkaError

from pipeline import Unusable, moment, say
from pipeline.connection import Kafka, Stop, text
from pipeline.messages import (
    ALERTS,
    IMAGE_EVENTS,
    NOTIFICATIONS,
    Alert,
    ImageEvent,
    Notification,
    parse,
    paths,
)
from pipeline.settings import REPOSITORY, Parser
from pipeline.store import IMAGE_EVENT_ALERTS, IMAGE_EVENT_DATABASE, Database, digest
from pipeline.stream import Stage, printable
from pipeline.topics import Topics
from recipients import Recipient, read_recipients
from telling import Teller, names, title


def main() -> None:
    """Send alerts until told to stop."""
    parser = Parser("Alert: tell the interested parties of each image event.")
    add_recipients(parser)
    about = "only say who would be told of which of the events that there are, and when"
    parser.add_argument("--dry-run", action="store_true", help=about)
    options = parser.parse_args()
    settings = parser.settings(options)
    recipients = recipients_of(parser, options.recipients, settings.data)
    if options.dry_run:
        rehearse(Kafka(settings, Stop(status=1)), recipients)
        return
    stage = Stage(settings, "image_event_alert", takes=IMAGE_EVENTS, publishes=ALERTS)
    events = Database(settings.data, IMAGE_EVENT_DATABASE)
    alerts = Database(settings.data, IMAGE_EVENT_ALERTS, stage.copy)
    say(f"image_event_alert: Kafka at {settings.bootstrap_servers}")
    say(f"image_event_alert: from {events.where} to {alerts.where}")
    teller = Teller(stage.kafka, settings.data, recipients) if recipients else None
    if teller:
        say(f"image_event_alert: tells {names(list(recipients))}")
        teller.start()

    for batch in stage.batches():
        events.expect(paths(batch.values, ImageEvent))
        for record in batch:
            try:
                event = parse(record.value, ImageEvent)
                alert, text = alert_of(event, read_description(events, event))
            except Unusable as reason:
                batch.set_aside(record, reason)
                continue
            # Without its time, the event may be sent again on purpose, after a reset.
            known = event.received or alerts.has(alert.path)
            if known and batch.is_repeated(record, event):
                batch.tell(f"{event.event_id}  came twice; there is an alert already")
                continue
            alerts.write(alert.path, text)
            batch.publish(record, alert)
            for name, recipient in recipients.items():
                if not recipient.why_not(event):
                    to_tell = Notification(recipient=name, event=event, alert_path=alert.path)
                    batch.publish(record, to_tell, NOTIFICATIONS)
            batch.tell(
                f"{event.event_id}  ALERT: image {event.image_id} differs from image "
                f"{event.previous_image_id}; see {alert.path}"
            )
        alerts.sync()
        batch.commit()
    if teller:
        teller.finish()


def add_recipients(parser: Parser) -> None:
    """The option that says who else is told."""
    about = "who else is told; not given, recipients.toml beside the data, if there is one; "
    parser.add_setting("--recipients", "FILE", None, about=about)


def recipients_of(
    parser: argparse.ArgumentParser, named: str | None, data: Path | str
) -> dict[str, Recipient]:
    """Those of the file, none if it isn't named and isn't there; ends with 2 on a bad one."""
    path = (data if isinstance(data, Path) else REPOSITORY) / "recipients.toml"
    if not named and not os.path.lexists(path):
        return {}
    try:
        return read_recipients(Path(named) if named else path)
    except Unusable as reason:
        parser.exit(2, f"{parser.prog}: {reason}\n")


def read_description(events: Database, event: ImageEvent) -> str:
    """The image event's description, for people. Raises `Unusable`."""
    try:
        return events.read(event.path, event.sha256).decode()
    except UnicodeDecodeError as error:
        raise Unusable(f"{event.path} is no text: {error}") from error


def alert_of(event: ImageEvent, description: str) -> tuple[Alert, bytes]:
    """The alert of an image event: the message, and the file's text for people."""
    text = (
        f"Alert: image {event.image_id} differs from image {event.previous_image_id}\n"
        f"{description}"
        f"Description: {event.path}\n"
    ).encode()
    alert = Alert(
        event_id=event.event_id,
        image_id=event.image_id,
        path=f"{IMAGE_EVENT_ALERTS}/image_event_alert_{event.event_id}.txt",
        sha256=digest(text),
        previous_image_id=event.previous_image_id,
        received=event.received,
    )
    return alert, text


def rehearse(kafka: Kafka, recipients: Mapping[str, Recipient]) -> None:
    """Say who would be told what and when, and who not and why, of all events; send nothing."""
    if not recipients:
        say("nobody: there are no recipients; write a recipients.toml, or name it by --recipients")
        return
    topics, closing = kafka.connect(lambda inner: Topics(kafka, inner))
    with closing:
        try:
            records = list(topics.read(topics.beginnings(IMAGE_EVENTS), topics.ends(IMAGE_EVENTS)))
        except KafkaError as error:
            sys.exit(f"Kafka: {text(error)}; try again")
    last: dict[str, datetime] = {}  # when the message before this one would go out
    for record in sorted(records, key=lambda one: one.timestamp):
        try:
            event = parse(record.value, ImageEvent)
        except Unusable as reason:
            say(f"{record.topic}[{record.partition}] {record.offset}: {printable(str(reason))}")
            continue
        came = moment(record.timestamp / 1000)
        for name, recipient in recipients.items():
            if reason_not := recipient.why_not(event):
                say(f"{event.event_id}  not {name}: {reason_not}")
                continue
            if name not in last or last[name] < came:
                last[name] = recipient.due(came, last.get(name), came)
            when = "at once"
            if last[name] > came:
                when = (
                    f"with what else comes until {last[name].astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
                )
            to_tell = Notification(recipient=name, event=event, alert_path=event.path)
            say(f"{event.event_id}  would tell {name} {when}: {title([to_tell])}")
    say(f"{len(records)} events, {len(recipients)} recipients; nobody was told")


if __name__ == "__main__":
    main()
