"""An image event as its description in the event database says it."""

import time
from contextlib import suppress
from dataclasses import dataclass

from pipeline.descriptions import Description, read_description
from pipeline.errors import InvalidInput
from pipeline.messages import parts_of
from pipeline.store.database import Database
from pipeline.store.names import event_path


@dataclass(frozen=True)
class Event:
    """An image event."""

    id: str
    source: str
    number: int
    received: int  # seconds since 1970; the description's age, if the text doesn't say a time
    description: Description


def read_event(events: Database, event_id: str) -> Event | None:
    """The event of this id; None if there is none. Raises `TransientError`."""
    path = event_path(event_id)
    try:
        description = read_description(events.files.read(path), event_id)
    except InvalidInput as reason:
        with suppress(OSError):  # of a link to where this user may not look
            if not events.files.has(path):
                return None
        description = Description([], str(reason))
    received = description.received
    if received is None:
        received = round(time.time() - events.files.age(path))
    return Event(event_id, *parts_of(event_id), received, description)
