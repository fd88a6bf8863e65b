"""The words of the messages to recipients. Nothing here reads a file or sends anything."""

from collections.abc import Sequence
from datetime import UTC

from pipeline.descriptions import SCENE_CHANGED, what_happened
from pipeline.messages import ImageEvent, Notification
from pipeline.wording import percent_of

MAX_LISTED = 20  # events in one message; the others are counted


def title(notifications: Sequence[Notification]) -> str:
    """The subject of a message."""
    if len(notifications) > 1:
        return f"{len(notifications)} image events"
    event = notifications[0].event
    happened = what_happened(event)
    return happened[0].upper() + happened[1:]


def event_line(event: ImageEvent) -> str:
    """An image event in one line."""
    facts = [
        SCENE_CHANGED if event.kind == SCENE_CHANGED else "",
        f"{percent_of(event.changed_share)} of the pixels"
        if event.changed_share is not None
        else "",
        f"RMS {event.rms:.4g}" if event.rms is not None else "",
        f"{event.received.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if event.received else "",
    ]
    return "  ".join([event.event_id, ", ".join(filter(None, facts))]).rstrip()


def event_list(notifications: Sequence[Notification]) -> str:
    """The text of a message about several image events."""
    lines = [event_line(notification.event) for notification in notifications[:MAX_LISTED]]
    if len(notifications) > MAX_LISTED:
        lines.append(f"and {len(notifications) - MAX_LISTED} more")
    largest = largest_change(notifications).event_id
    return "\n".join([f"{title(notifications)}:", *lines, "", f"The largest change is {largest}."])


def largest_change(notifications: Sequence[Notification]) -> ImageEvent:
    """The event with the largest share of changed pixels; its pictures go with the message."""
    events = (notification.event for notification in notifications)
    return max(events, key=lambda event: event.changed_share or 0)


def some_ids(ids: Sequence[str]) -> str:
    """Up to three ids, or the first two and how many more there are."""
    return ", ".join(ids) if len(ids) < 4 else f"{', '.join(ids[:2])} and {len(ids) - 2} more"
