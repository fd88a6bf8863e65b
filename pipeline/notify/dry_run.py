"""The dry run: says who would be notified of which image events, and sends nothing."""

from collections.abc import Mapping
from datetime import UTC, datetime

from pipeline.errors import InvalidInput
from pipeline.messages import IMAGE_EVENTS, ImageEvent, Notification, moment, parse
from pipeline.notify.message_text import title
from pipeline.notify.recipients import Recipient
from pipeline.stream.connection import Kafka
from pipeline.stream.positions import position_of
from pipeline.stream.topic_reader import TopicReader
from pipeline.terminal import printable, say
from pipeline.wording import count_of


def dry_run(kafka: Kafka, recipients: Mapping[str, Recipient]) -> None:
    """Say of all events who would be notified and when, who would not be, and why."""
    if not recipients:
        say("nobody: there are no recipients; write a recipients.toml, or name it by --recipients")
        return
    with kafka.connect(TopicReader) as topics:
        records = list(topics.read_all(IMAGE_EVENTS))
    last: dict[str, datetime] = {}  # when the recipient's last message would be sent
    for record in sorted(records, key=lambda record: record.timestamp):
        try:
            event = parse(record.value, ImageEvent)
        except InvalidInput as reason:
            say(f"{position_of(record)}: {printable(str(reason))}")
            continue
        came = moment(record.timestamp / 1000)
        for name, recipient in recipients.items():
            if rejection := recipient.rejection_reason(event):
                say(f"{event.event_id}  not {name}: {rejection}")
                continue
            if name not in last or last[name] < came:
                last[name] = recipient.due(came, last.get(name), came)
            until = f"{last[name].astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
            when = f"with what else comes until {until}" if last[name] > came else "at once"
            notification = Notification(recipient=name, event=event, alert_path=event.path)
            say(f"{event.event_id}  would tell {name} {when}: {title([notification])}")
    events, people = count_of(len(records), "event"), count_of(len(recipients), "recipient")
    say(f"{events}, {people}; nobody was told")
