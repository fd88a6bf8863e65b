"""The alert of an image event: its message, and the text of its file."""

from pipeline.descriptions import write_alert
from pipeline.errors import InvalidInput
from pipeline.messages import Alert, ImageEvent
from pipeline.store.database import Database
from pipeline.store.names import alert_path, digest
from pipeline.wording import decoding_fault


def alert_of(event: ImageEvent, events: Database) -> tuple[Alert, bytes]:
    """The alert's message and text, for which the event's description is read from its database.

    Raises `InvalidInput` if the description isn't there, or isn't what the message says.
    """
    try:
        description = events.read(event.path, event.sha256).decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{event.path}: {decoding_fault(error)}") from error
    text = write_alert(event, description)
    alert = Alert(
        event_id=event.event_id,
        image_id=event.image_id,
        path=alert_path(event.event_id),
        sha256=digest(text),
        previous_image_id=event.previous_image_id,
        received=event.received,
        kind=event.kind,
    )
    return alert, text
