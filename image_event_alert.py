"""Alert: tell the interested parties of each image event, and keep each alert.

They are whoever reads this terminal, `image_event_alerts/` or the topic `alerts`; and those whom
`recipients.toml` names, by mail, chat and the like. Who of these is told of what is decided here,
together with the alert. The sending is `telling.py`'s, beside it: it holds up no alert.

    python image_event_alert.py
"""

from pipeline.descriptions import alert_of, read_description
from pipeline.errors import InvalidInput
from pipeline.messages import (
    ALERTS,
    IMAGE_EVENTS,
    NOTIFICATIONS,
    ImageEvent,
    Notification,
    parse,
    paths,
)
from pipeline.notify.notifier import Notifier, some_ids
from pipeline.notify.rehearse import rehearse
from pipeline.options import add_recipients, recipients_of
from pipeline.program import run_program
from pipeline.settings import Parser
from pipeline.stop_signal import StopSignal
from pipeline.store.database import Database
from pipeline.store.names import IMAGE_EVENT_ALERTS, IMAGE_EVENT_DATABASE
from pipeline.stream.connection import Kafka
from pipeline.stream.stage import Stage
from pipeline.terminal import say


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
        rehearse(Kafka(settings, StopSignal(status=1)), recipients)
        return
    stage = Stage(settings, "image_event_alert", takes=IMAGE_EVENTS, publishes=ALERTS)
    events = Database(settings.data, IMAGE_EVENT_DATABASE)
    alerts = Database(settings.data, IMAGE_EVENT_ALERTS, stage.lock)
    say(f"image_event_alert: Kafka at {settings.bootstrap_servers}")
    say(f"image_event_alert: from {events.where} to {alerts.where}")
    teller = Notifier(stage.kafka, settings.data, recipients) if recipients else None
    if teller:
        say(f"image_event_alert: tells {some_ids(list(recipients))}")
        teller.start()

    for batch in stage.batches():
        events.expect(paths(batch.values, ImageEvent))
        for record in batch:
            try:
                event = parse(record.value, ImageEvent)
                alert, text = alert_of(event, read_description(events, event))
            except InvalidInput as reason:
                batch.set_aside(record, reason)
                continue
            # Without its time, the event may be sent again on purpose, after a reset.
            known = event.received or alerts.has(alert.path)
            if known and batch.is_repeated(record, event):
                batch.say_after_commit(f"{event.event_id}  came twice; there is an alert already")
                continue
            alerts.write(alert.path, text)
            batch.publish(record, alert)
            for name, recipient in recipients.items():
                if not recipient.rejection_reason(event):
                    to_tell = Notification(recipient=name, event=event, alert_path=alert.path)
                    batch.publish(record, to_tell, NOTIFICATIONS)
            batch.say_after_commit(
                f"{event.event_id}  ALERT: image {event.image_id} differs from image "
                f"{event.previous_image_id}; see {alert.path}"
            )
        alerts.sync()
        batch.commit()
    if teller:
        teller.finish()


if __name__ == "__main__":
    run_program(main)
