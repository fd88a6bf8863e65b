"""Alert: tell the interested parties of each image event, and keep each alert.

For now they are whoever reads this terminal, `image_event_alerts/` or the topic `alerts`.

    python image_event_alert.py
"""

from pipeline import Unusable, say
from pipeline.messages import ALERTS, IMAGE_EVENTS, Alert, ImageEvent, parse
from pipeline.settings import Parser
from pipeline.store import IMAGE_EVENT_ALERTS, IMAGE_EVENT_DATABASE, Database
from pipeline.stream import Stage


def main() -> None:
    """Send alerts until told to stop."""
    parser = Parser("Alert: tell the interested parties of each image event.")
    settings = parser.settings(parser.parse_args())
    stage = Stage(settings, "image_event_alert", IMAGE_EVENTS)
    events = Database(settings.data, IMAGE_EVENT_DATABASE)
    alerts = Database(settings.data, IMAGE_EVENT_ALERTS, stage.copy)
    say(f"image_event_alert: Kafka at {settings.bootstrap_servers}")
    say(f"image_event_alert: from {events.directory} to {alerts.directory}")

    for batch in stage.batches():
        for record in batch:
            try:
                event = parse(record.value, ImageEvent)
                description = read_description(events, event)
            except Unusable as reason:
                batch.set_aside(record, reason)
                continue
            text = (
                f"Alert: image {event.image_id} differs from image {event.previous_image_id}\n"
                f"{description}"
                f"Description: {event.path}\n"
            )
            alert = Alert(
                event_id=event.event_id,
                image_id=event.image_id,
                path=alerts.write(f"image_event_alert_{event.event_id}.txt", text.encode()),
                previous_image_id=event.previous_image_id,
                received=event.received,
            )
            batch.publish(ALERTS, event.source, alert)
            batch.tell(
                f"{event.event_id}  ALERT: image {event.image_id} differs from image "
                f"{event.previous_image_id}; see {alert.path}"
            )
        batch.commit()


def read_description(events: Database, event: ImageEvent) -> str:
    """The image event's description, for people. Raises `Unusable`."""
    try:
        return events.read(event.path, event.sha256).decode()
    except UnicodeDecodeError as error:
        raise Unusable(f"{event.path} is no text: {error}") from error


if __name__ == "__main__":
    main()
