"""Alert: tell the interested parties of each image event, and keep each alert.

For each batch of messages from the topic `image-events`:

1. take the batch: read each event's description from `image_event_database/`;
2. decide: every event is an alert, and the recipients' own conditions say who else is told of it;
3. store the alert in `image_event_alerts/`;
4. publish the alert in the topic `alerts`, and who is to be told of it in `notifications`;
5. commit: the messages and the offsets of the batch become visible in one transaction.

The interested parties are whoever reads this terminal, `image_event_alerts/` or the topic
`alerts`, and the recipients that `recipients.toml` names. The notifier sends to these by mail,
chat and the like, in a thread of its own, so that a slow mail server delays no alert.

    python image_event_alert.py
"""

from pipeline.alerts import alert_of
from pipeline.errors import InvalidInput
from pipeline.messages import (
    NOTIFICATIONS,
    ImageEvent,
    Notification,
    parse,
    paths,
)
from pipeline.notify.notifier import Notifier, some_ids
from pipeline.notify.rehearse import rehearse
from pipeline.options import alert_options
from pipeline.program import run_program
from pipeline.stages import IMAGE_EVENT_ALERT
from pipeline.stop_signal import StopSignal
from pipeline.store.database import Database
from pipeline.store.names import IMAGE_EVENT_ALERTS, IMAGE_EVENT_DATABASE
from pipeline.stream.connection import Kafka
from pipeline.stream.stage import Stage
from pipeline.terminal import say


def main() -> None:
    """Send alerts until the program is asked to stop."""
    options = alert_options()
    settings, recipients = options.settings, options.recipients
    if options.is_dry_run:
        rehearse(Kafka(settings, StopSignal(status=1)), recipients)
        return
    stage = Stage(settings, IMAGE_EVENT_ALERT)
    events = Database(settings.data, IMAGE_EVENT_DATABASE)
    alerts = Database(settings.data, IMAGE_EVENT_ALERTS, stage.lock)
    say(f"image_event_alert: Kafka at {settings.bootstrap_servers}")
    say(f"image_event_alert: from {events.where} to {alerts.where}")
    teller = Notifier(stage.kafka, settings.data, recipients) if recipients else None
    if teller:
        say(f"image_event_alert: tells {some_ids(list(recipients))}")
        teller.start()

    for batch in stage.batches():
        with batch:  # without its commit, it is taken again
            # 1. Take the batch.
            events.prefetch(paths(batch.values, ImageEvent))
            for record in batch:
                try:
                    event = parse(record.value, ImageEvent)
                    alert, text = alert_of(event, events)
                except InvalidInput as reason:
                    batch.set_aside(record, reason)
                    continue

                # 2. Decide. After a reset, a message without a time may be sent again on purpose.
                # Such a message counts as repeated only while its alert's file is there.
                may_be_repeated = event.received or alerts.has(alert.path)
                if may_be_repeated and batch.is_repeated(record, event):
                    batch.say_after_commit(
                        f"{event.event_id}  came twice; there is an alert already"
                    )
                    continue
                told = [name for name, one in recipients.items() if not one.rejection_reason(event)]

                # 3. Store the alert.
                alerts.write(alert.path, text)

                # 4. Publish the alert, and a notification for each recipient.
                batch.publish(record, alert)
                for name in told:
                    notification = Notification(recipient=name, event=event, alert_path=alert.path)
                    batch.publish(record, notification, NOTIFICATIONS)
                batch.say_after_commit(
                    f"{event.event_id}  ALERT: image {event.image_id} differs from image "
                    f"{event.previous_image_id}; see {alert.path}"
                )

            # 5. Commit, once all files are safely in place.
            alerts.sync()
            batch.commit()
    if teller:
        teller.finish()


if __name__ == "__main__":
    run_program(main)
