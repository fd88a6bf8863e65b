"""Alert: tell the interested parties of each image event, and keep each alert.

For each batch of messages from the topic `image-events`:

1. Take: read each event's description from the image event database.
2. Decide: every event is an alert, and each recipient's conditions say who else is told of it.
3. Store: the alert goes into `image_event_alerts/`, with the description.
4. Publish: the alert in the topic `alerts`, and in `notifications` who is to be told.
5. Commit: one Kafka transaction makes these messages and the batch's offsets true together.

The interested parties are whoever reads this terminal, `image_event_alerts/` or the topic
`alerts`; and the recipients that `recipients.toml` names. The notifier reads `notifications` and
sends to them by mail, chat and the like, in a thread of its own, so that a slow mail server holds
up no alert.

Ctrl-C or SIGTERM ends the loops after the record in hand, which is committed
(`pipeline/stop_signal.py`). After a kill, the batch is consumed again from its beginning.

    python image_event_alert.py
"""

from pipeline.alerts import alert_of
from pipeline.descriptions import what_happened
from pipeline.errors import InvalidInput
from pipeline.messages import NOTIFICATIONS, ImageEvent, Notification, parse, paths
from pipeline.notify.dry_run import dry_run
from pipeline.notify.message_text import some_ids
from pipeline.notify.notifier import Notifier
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
    options, settings = alert_options()
    recipients = options.recipients
    if options.is_dry_run:
        dry_run(Kafka(settings, StopSignal(status=1)), recipients)
        return
    stage = Stage(settings, IMAGE_EVENT_ALERT)
    events = Database(settings.data, IMAGE_EVENT_DATABASE)
    alerts = Database(settings.data, IMAGE_EVENT_ALERTS, stage.lock)
    say(f"image_event_alert: Kafka at {settings.bootstrap_servers}")
    say(f"image_event_alert: from {events.where} to {alerts.where}")
    notifier = Notifier(stage.kafka, settings.data, recipients) if recipients else None
    if notifier:
        say(f"image_event_alert: tells {some_ids(list(recipients))}")
        notifier.start()

    for batch in stage.batches():
        with batch:  # a batch that isn't committed is consumed again
            # 1. Take
            events.prefetch(paths(batch.values, ImageEvent))
            for record in batch:
                try:
                    event = parse(record.value, ImageEvent)
                    alert, text = alert_of(event, events)
                except InvalidInput as reason:
                    batch.set_aside(record, reason)
                    continue

                # 2. Decide
                # Two messages with a time and the same bytes are the same message. One without a
                # time may be sent anew after the directories were emptied, and is then no repeat.
                may_be_repeated = event.received or alerts.has(alert.path)
                if may_be_repeated and batch.is_repeated(record, event):
                    batch.say_after_commit(
                        f"{event.event_id}  came twice; there is an alert already"
                    )
                    continue
                notifications = [
                    Notification(recipient=name, event=event, alert_path=alert.path)
                    for name, recipient in recipients.items()
                    if not recipient.rejection_reason(event)
                ]

                # 3. Store
                alerts.write(alert.path, text)

                # 4. Publish
                batch.publish(record, alert)
                for notification in notifications:
                    batch.publish(record, notification, NOTIFICATIONS)
                batch.say_after_commit(
                    f"{event.event_id}  ALERT: {what_happened(event)}; see {alert.path}"
                )

            # 5. Commit, once all files are safely on the disk
            alerts.sync()
            batch.commit()
    if notifier:
        notifier.finish()


if __name__ == "__main__":
    run_program(main)
