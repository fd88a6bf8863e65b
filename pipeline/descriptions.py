"""The texts of image events and alerts for people: written here, and read here."""

from datetime import UTC, datetime
from typing import Literal

from pipeline.comparison.draw import draw
from pipeline.comparison.measure import Change
from pipeline.comparison.rule import ANY_DIFFERENCE, Rule
from pipeline.errors import InvalidInput
from pipeline.messages import Alert, ImageEvent, ImageWithoutEvent
from pipeline.pictures.previous_images import StoredImage
from pipeline.store.database import Database
from pipeline.store.names import IMAGE_EVENT_ALERTS, IMAGE_EVENT_DATABASE, digest
from pipeline.terminal import printable


def event_of(
    previous: StoredImage,
    image: StoredImage,
    change: Change,
    received: datetime,
    rule: Rule = ANY_DIFFERENCE,
) -> tuple[ImageEvent, dict[str, bytes]]:
    """The image event of a change: the message, and the files for people by their paths."""
    name, before = image.message.image_id, previous.message.image_id
    path = f"{IMAGE_EVENT_DATABASE}/image_event_{name}.txt"
    difference_path = f"{IMAGE_EVENT_DATABASE}/image_event_{name}.jpg"
    difference = draw(change)
    left, top, right, bottom = change.box
    size, size_before = (f"{one.pixels.width} x {one.pixels.height}" for one in (image, previous))
    full = f"of {change.full_scale:.6g}"
    in_a_block = ", in a block of 8 x 8 pixels"
    lines = {
        "Image event": name,
        "Image": image.message.path,
        "Previous image": previous.message.path,
        "Original file": printable(image.message.original_name or ""),
        "Difference image": difference_path,
        "Received": f"{received.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC",
        "Size": size if size == size_before else f"{size}, before {size_before}",
        "L2 norm": f"{change.l2_norm:.10g}",
        "RMS difference": f"{change.rms:.6g} {full}",
        "Largest block difference": f"{change.block_difference:.6g} {full}{in_a_block}",
        "Threshold": f"{rule.threshold:.10g}" if rule.threshold else "any difference",
        "Mask": f"SHA-256 {rule.mask_sha256}" if rule.mask_sha256 else "",
        "Pixels changed": f"{change.percent} ({change.changed_pixels} of {change.pixels})",
        "Changed box": f"{right - left} x {bottom - top} pixels at x {left}, y {top}",
    }
    known = (f"{name}: {value}\n" for name, value in lines.items() if value)
    description = "".join(known).encode()
    event = ImageEvent(
        event_id=name,
        image_id=name,
        previous_image_id=before,
        path=path,
        sha256=digest(description),
        difference_path=difference_path,
        difference_sha256=digest(difference),
        image_path=image.message.path,
        previous_image_path=previous.message.path,
        l2_norm=change.l2_norm,
        rms=change.rms,
        changed_share=change.changed_share,
        box=change.box,
        block_difference=change.block_difference,
        threshold=rule.threshold,
        mask_sha256=rule.mask_sha256,
        received=received,
    )
    return event, {difference_path: difference, path: description}


def no_event(
    previous: StoredImage | None,
    image: StoredImage,
    change: Change | None,
    rule: Rule,
    received: datetime,
) -> tuple[ImageWithoutEvent, str]:
    """Why an image is no event: the message, and the words for the terminal."""
    reason: Literal["first image", "same bytes", "same pixels", "below threshold"]
    words = "unchanged"
    if previous is None:
        reason = words = "first image"
    elif change:
        reason = "below threshold"
        measured = f"largest block difference {change.block_difference:.4g}"
        words = f"no event: {measured} is under the threshold {rule.threshold:.10g}"
    else:
        reason = "same bytes" if previous.pixels is image.pixels else "same pixels"
    without = ImageWithoutEvent(
        image_id=image.message.image_id,
        reason=reason,
        previous_image_id=previous.message.image_id if previous else None,
        block_difference=change.block_difference if change else None,
        threshold=rule.threshold,
        mask_sha256=rule.mask_sha256,
        received=received,
    )
    return without, words


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


def read_description(events: Database, event: ImageEvent) -> str:
    """The image event's description, for people. Raises `Unusable`."""
    try:
        return events.read(event.path, event.sha256).decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{event.path} is no text: {error}") from error
