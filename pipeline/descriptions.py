"""The texts for people: an image event's description, and an alert. Written here and read here.

A text is lines of `Name: value`. The names of a description's lines stand only in this file.
"""

import math
import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from pipeline.comparison.measure import Change
from pipeline.messages import EventKind, ImageEvent, ReceivedImage
from pipeline.terminal import printable
from pipeline.wording import decoding_fault

EVENT = "Image event"
KIND = "Kind"
IMAGE = "Image"
PREVIOUS_IMAGE = "Previous image"
ORIGINAL_FILE = "Original file"
DIFFERENCE_IMAGE = "Difference image"
RECEIVED = "Received"
SIZE = "Size"
L2_NORM = "L2 norm"
RMS = "RMS difference"
BLOCK_DIFFERENCE = "Largest block difference"
THRESHOLD = "Threshold"
MASK = "Mask"
SCENE_CHANGE = "Scene changes"
PIXELS_CHANGED = "Pixels changed"
CHANGED_BOX = "Changed box"

SCENE_CHANGED: EventKind = "scene changed"

MAX_BYTES = 2**16  # of a description that is read; a longer text is cut
MAX_VALUE = 60  # characters of a value that a list shows
SHARE = re.compile(r"(?P<percent>[0-9.]+(e-?[0-9]+)?) %( \(([0-9]{1,18}) of ([0-9]{1,18})\))?")
BOX = re.compile(r"([0-9]{1,9}) x ([0-9]{1,9}) pixels at x ([0-9]{1,9}), y ([0-9]{1,9})")

Size = tuple[int, int]  # width, height


@dataclass(frozen=True)
class Description:
    """What an image event's description says; a value that can't be read is empty or None."""

    lines: list[tuple[str, str]]  # every name with its value, as they stand in the text
    fault: str  # what is wrong with the text; empty if nothing is
    kind: EventKind = "changed"
    image_path: str = ""
    previous_image_path: str = ""
    difference_path: str = ""
    received: int | None = None  # seconds since 1970
    rms: str = ""  # with its unit, as in `38.2 of 255`
    changed_percent: float | None = None
    changed_box: str = ""  # as in `20 x 20 pixels at x 40, y 20`

    @property
    def box(self) -> tuple[int, int, int, int] | None:
        """The changed box in pixels: left, top, width and height."""
        if not (found := BOX.fullmatch(self.changed_box)):
            return None
        width, height, left, top = map(int, found.groups())
        return left, top, width, height


def write_description(
    event: ImageEvent, image: ReceivedImage, change: Change, size: Size, previous_size: Size
) -> bytes:
    """The description of an image event, in UTF-8. A line without a value is left out."""
    left, top, right, bottom = change.box
    received = event.received and event.received.astimezone(UTC)
    width_height, previous_width_height = (f"{w} x {h}" for w, h in (size, previous_size))
    full_scale = f"of {change.full_scale:.6g}"
    values = {
        EVENT: event.event_id,
        KIND: event.kind if event.kind == SCENE_CHANGED else "",
        IMAGE: event.image_path,
        PREVIOUS_IMAGE: event.previous_image_path,
        ORIGINAL_FILE: printable(image.original_name or ""),
        DIFFERENCE_IMAGE: event.difference_path,
        RECEIVED: f"{received:%Y-%m-%d %H:%M:%S} UTC" if received else "",
        SIZE: width_height + (f", before {previous_width_height}" if size != previous_size else ""),
        L2_NORM: f"{change.l2_norm:.10g}",
        RMS: f"{change.rms:.6g} {full_scale}",
        BLOCK_DIFFERENCE: (
            f"{change.block_difference:.6g} {full_scale}, in a block of 8 x 8 pixels"
        ),
        THRESHOLD: f"{event.threshold:.10g}" if event.threshold else "any difference",
        MASK: f"SHA-256 {event.mask_sha256}" if event.mask_sha256 else "",
        SCENE_CHANGE: (
            f"over {100 * event.scene_change:.10g} % of the pixels"
            if event.scene_change is not None
            else ""
        ),
        PIXELS_CHANGED: f"{change.percent} ({change.changed_pixels} of {change.pixels})",
        CHANGED_BOX: f"{right - left} x {bottom - top} pixels at x {left}, y {top}",
    }
    return "".join(f"{name}: {value}\n" for name, value in values.items() if value).encode()


def read_description(content: bytes, event_id: str) -> Description:
    """What a description says. A damaged text raises no error: the `fault` says what is wrong."""
    fault = ""
    try:
        content.decode()
    except UnicodeDecodeError as error:
        fault = decoding_fault(error)
    text = content[:MAX_BYTES].decode(errors="replace")
    lines = [_name_and_value(line) for line in text.splitlines()]
    if not fault and (EVENT, event_id) not in lines:
        fault = f"it has no line “{EVENT}: {event_id}”"
    values = dict(reversed(lines))  # of two lines with the same name, the first counts
    return Description(
        lines,
        fault,
        kind=SCENE_CHANGED if values.get(KIND) == SCENE_CHANGED else "changed",
        image_path=values.get(IMAGE, ""),
        previous_image_path=values.get(PREVIOUS_IMAGE, ""),
        difference_path=values.get(DIFFERENCE_IMAGE, ""),
        received=seconds_of(values.get(RECEIVED, "")),
        rms=values.get(RMS, "")[:MAX_VALUE],
        changed_percent=_percent_of(values.get(PIXELS_CHANGED, "")),
        changed_box=values.get(CHANGED_BOX, "")[:MAX_VALUE],
    )


def write_alert(event: ImageEvent, description: str) -> bytes:
    """The text of an alert, in UTF-8: what happened, and the event's description."""
    return (f"Alert: {what_happened(event)}\n{description}Description: {event.path}\n").encode()


def what_happened(event: ImageEvent) -> str:
    """An image event in one sentence, without a capital letter and a full stop."""
    scene_changed = f"{SCENE_CHANGED}: " if event.kind == SCENE_CHANGED else ""
    return f"{scene_changed}image {event.image_id} differs from image {event.previous_image_id}"


def seconds_of(text: str) -> int | None:
    """A time, like `2026-11-25 01:26:18 UTC`, in seconds since 1970; None if the text is none."""
    with suppress(ValueError, OverflowError):
        time = datetime.fromisoformat(text.removesuffix("UTC").strip())
        return int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp())
    return None


def _percent_of(text: str) -> float | None:
    """The changed share in percent, from `99.9 % (122388 of 122500)`; None if there is none.

    The two counts are exact, the percentage before them is rounded.
    """
    with suppress(ValueError, ArithmeticError):
        if found := SHARE.match(text):
            changed, pixels = found[4], found[5]
            percent = 100 * int(changed) / int(pixels) if pixels else float(found["percent"])
            return percent if math.isfinite(percent) else None
    return None


def _name_and_value(line: str) -> tuple[str, str]:
    """The two parts of a line; a line without a colon has no name."""
    name, colon, value = line.partition(":")
    return (name.strip(), value.strip()) if colon else ("", line.strip())
