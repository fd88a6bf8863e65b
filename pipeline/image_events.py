"""Decide what an image is: an image event, or none for a reason.

`decide` only works out what is to be stored and published. Whoever calls it does that.
"""

from dataclasses import dataclass
from datetime import datetime

import msgspec

from pipeline.comparison.draw import draw
from pipeline.comparison.measure import Change, Rule, compare
from pipeline.descriptions import write_description
from pipeline.messages import ImageEvent, ImageWithoutEvent, Reason
from pipeline.pictures.previous_images import StoredImage
from pipeline.store.names import digest, event_path


@dataclass(frozen=True)
class NewEvent:
    """An image event that is to be stored and published."""

    message: ImageEvent
    files: dict[str, bytes]  # by path: the difference image and the description
    summary: str  # for the terminal


@dataclass(frozen=True)
class NoEvent:
    """An image that is no event. That is to be published, with the reason."""

    message: ImageWithoutEvent
    summary: str  # for the terminal


def decide(
    previous: StoredImage | None, image: StoredImage, rule: Rule, received: datetime
) -> NewEvent | NoEvent:
    """Compare an image with the image before it, and apply the rule to the change."""
    change = compare(previous.pixels, image.pixels, rule.mask, rule.threshold) if previous else None
    if previous and change and rule.is_event(change):
        return _new_event(previous, image, change, rule, received)
    reason, summary = _reason(previous, image, change, rule)
    message = ImageWithoutEvent(
        image_id=image.message.image_id,
        reason=reason,
        previous_image_id=previous.message.image_id if previous else None,
        block_difference=change.block_difference if change else None,
        threshold=rule.threshold,
        mask_sha256=rule.mask_sha256,
        received=received,
    )
    return NoEvent(message, summary)


def _reason(
    previous: StoredImage | None, image: StoredImage, change: Change | None, rule: Rule
) -> tuple[Reason, str]:
    """Why an image is no event: as messages say it, and for the terminal."""
    if previous is None:
        return "first image", "first image"
    if change is None:
        is_same = previous.content == image.content
        return "same bytes" if is_same else "same pixels", "unchanged"
    return "below threshold", (
        f"no event: largest block difference {change.block_difference:.4g} "
        f"is under the threshold {rule.threshold:.10g}"
    )


def _new_event(
    previous: StoredImage, image: StoredImage, change: Change, rule: Rule, received: datetime
) -> NewEvent:
    event_id = image.message.image_id
    path, difference_path = event_path(event_id), event_path(event_id, "jpg")
    difference = draw(change)
    event = ImageEvent(
        event_id=event_id,
        image_id=event_id,
        previous_image_id=previous.message.image_id,
        path=path,
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
        kind="scene changed" if rule.is_scene_change(change) else "changed",
        scene_change=rule.scene_change,
    )
    description = write_description(
        event, image.message, change, image.pixels.size, previous.pixels.size
    )
    # The event names the description's hash, so the description is written from the rest of it.
    event = msgspec.structs.replace(event, sha256=digest(description))
    summary = (
        f"{event.kind.upper()}: {change.percent} of the pixels, RMS {change.rms:.4g}; "
        f"see {difference_path}"
    )
    return NewEvent(event, {difference_path: difference, path: description}, summary)
