"""Alert: tell the interested parties of each image event, and keep each alert.

For now they are whoever reads this terminal, `image_event_alerts/` or the topic `alerts`.

    python image_event_alert.py
"""

from pipeline import Unusable, say
from pipeline.messages import ALERTS, IMAGE_EVENTS, Alert, ImageEvent, parse, paths
from pipeline.settings import Parser
from pipeline.store import IMAGE_EVENT_ALERTS, IMAGE_EVENT_DATABASE, Database, digest
from pipeline.stream import Stage


def main() -> None:
    """Send alerts until told to stop."""
    parser = Parser("Alert: tell the interested parties of each image event.")
    settings = parser.settings(parser.parse_args())
    stage = Stage(settings, "image_event_alert", takes=IMAGE_EVENTS, publishes=ALERTS)
    events = Database(settings.data, IMAGE_EVENT_DATABASE)
    alerts = Database(settings.data, IMAGE_EVENT_ALERTS, stage.copy)
    say(f"image_event_alert: Kafka at {settings.bootstrap_servers}")
    say(f"image_event_alert: from {events.where} to {alerts.where}")

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
            batch.tell(
                f"{event.event_id}  ALERT: image {event.image_id} differs from image "
                f"{event.previous_image_id}; see {alert.path}"
            )
        alerts.sync()
        batch.commit()


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


if __name__ == "__main__":
    main()
