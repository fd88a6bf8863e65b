"""The messages of each topic: one definition from which they are written, checked and documented.

A message is JSON in UTF-8. Its key is the source, so that the messages of each source stay in
order; in `notifications` the key is the recipient. The fields that may be absent are those that a
producer other than these stages may not know.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from pipeline.errors import InvalidInput
from pipeline.wording import decoding_fault

IMAGES = "images"
IMAGE_EVENTS = "image-events"
ALERTS = "alerts"
IMAGES_WITHOUT_EVENT = "images-without-event"
NOTIFICATIONS = "notifications"
DEAD_LETTERS = "dead-letters"

SOURCE = r"[a-z0-9_]{1,64}"
IMAGE_ID = rf"({SOURCE}-)?[0-9]{{5,9}}"

END = r"$(?!\n)"  # instead of \Z, which only Python's regular expressions have
Source = Annotated[str, Meta(pattern=rf"^({SOURCE})?{END}")]
ImageId = Annotated[str, Meta(pattern=rf"^{IMAGE_ID}{END}")]
Number = Annotated[int, Meta(ge=0, lt=10**9)]
Path = Annotated[str, Meta(pattern=rf"^[^\x00-\x1f\x7f]{{1,1024}}{END}")]
Sha256 = Annotated[str, Meta(pattern=rf"^[0-9a-f]{{64}}{END}")]
Time = Annotated[datetime, Meta(tz=True)]
Measure = Annotated[float, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
Recipient = Annotated[str, Meta(pattern=rf"^[A-Za-z0-9_-]{{1,64}}{END}")]
Pixels = Annotated[int, Meta(ge=0, lt=2**31)]
EventKind = Literal["changed", "scene changed"]
Reason = Literal["first image", "same bytes", "same pixels", "below threshold"]


def moment(seconds: float) -> datetime:
    """The time of these seconds since 1970; the start of 1970 if no calendar has that time."""
    with suppress(ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(seconds, UTC)
    return datetime.fromtimestamp(0, UTC)


def image_id(source: str, number: int) -> str:
    """The id of a source's image: `00003`, or `cam1-00003` for the source `cam1`."""
    return f"{source}-{number:05d}" if source else f"{number:05d}"


def parts_of(id_: str) -> tuple[str, int]:
    """The source and the number in an image's id."""
    source, _, number = id_.rpartition("-")
    return source, int(number)


class ReceivedImage(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """In `images`: an image was stored in the image database."""

    image_id: ImageId
    source: Source
    number: Number
    path: Path
    size: Annotated[int, Meta(ge=0, lt=2**53)] | None = None  # bytes
    sha256: Sha256 | None = None
    received: Time | None = None
    original_name: Path | None = None  # of the file from which the image was received

    def __post_init__(self) -> None:
        if self.image_id != image_id(self.source, self.number):
            raise ValueError(
                f"image_id {self.image_id!r} is not that of source {self.source!r} "
                f"and number {self.number}"
            )


class _WithImageId(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The fields of each message about an image. The image's id has its source and number."""

    image_id: ImageId

    @property
    def source(self) -> str:
        """The source of the image."""
        return parts_of(self.image_id)[0]

    @property
    def number(self) -> int:
        """The number of the image."""
        return parts_of(self.image_id)[1]


class ImageWithoutEvent(_WithImageId, frozen=True, kw_only=True, omit_defaults=True):
    """In `images-without-event`: an image was analysed and is no image event, for this reason."""

    reason: Reason
    previous_image_id: ImageId | None = None
    block_difference: Measure | None = None
    threshold: Measure = 0
    mask_sha256: Sha256 | None = None
    received: Time | None = None


class _WithEventId(_WithImageId, frozen=True, kw_only=True, omit_defaults=True):
    """The fields of each message about an image event, whose id is that of the changed image."""

    event_id: ImageId

    def __post_init__(self) -> None:
        if self.event_id != self.image_id:
            raise ValueError(f"event_id {self.event_id!r} is not image_id {self.image_id!r}")


class ImageEvent(_WithEventId, frozen=True, kw_only=True, omit_defaults=True):
    """In `image-events`: an image differs from the one before it."""

    previous_image_id: ImageId
    path: Path  # of the description
    sha256: Sha256 | None = None  # of the description
    difference_path: Path | None = None  # of the difference image
    difference_sha256: Sha256 | None = None
    image_path: Path | None = None
    previous_image_path: Path | None = None
    l2_norm: Measure | None = None
    rms: Measure | None = None
    changed_share: Share | None = None  # of the pixels
    box: tuple[Pixels, Pixels, Pixels, Pixels] | None = None  # left, top, right, bottom
    block_difference: Measure | None = None  # the largest of all blocks of 8 x 8 pixels
    threshold: Measure = 0  # that the block difference has reached; 0: any difference is an event
    mask_sha256: Sha256 | None = None  # of the mask's file
    received: Time | None = None  # when the changed image was received
    kind: EventKind = "changed"  # a scene has changed if more than scene_change of the pixels has
    scene_change: Share | None = None  # 0 to 1; none: every event is a change

    def __post_init__(self) -> None:
        super().__post_init__()
        source, number = parts_of(self.previous_image_id)
        if source != self.source or number >= self.number:
            raise ValueError(
                f"previous_image_id {self.previous_image_id!r} is not before {self.image_id!r}"
            )


class Alert(_WithEventId, frozen=True, kw_only=True, omit_defaults=True):
    """In `alerts`: the interested parties were alerted of an image event."""

    path: Path  # of the alert
    sha256: Sha256 | None = None  # of the alert
    previous_image_id: ImageId | None = None
    received: Time | None = None  # when the changed image was received
    kind: EventKind = "changed"


class Notification(Struct, frozen=True, kw_only=True, omit_defaults=True, tag="to tell"):
    """In `notifications`: a recipient is to be notified of an image event."""

    recipient: Recipient
    event: ImageEvent
    alert_path: Path


class Receipt(Struct, frozen=True, kw_only=True, omit_defaults=True, tag="told"):
    """In `notifications`, after some notifications: they were sent, or given up."""

    recipient: Recipient
    offsets: list[Annotated[int, Meta(ge=0)]]  # of the notifications, in this partition
    event_ids: list[ImageId]
    outcome: Literal["sent", "given up"]
    at: Time


ImageMessage = ReceivedImage | ImageEvent | Alert | ImageWithoutEvent
Message = ImageMessage | Notification | Receipt
MESSAGE_TYPES: dict[str, type[ImageMessage]] = {
    IMAGES: ReceivedImage,
    IMAGE_EVENTS: ImageEvent,
    ALERTS: Alert,
    IMAGES_WITHOUT_EVENT: ImageWithoutEvent,
}
M = TypeVar("M", bound=ImageMessage)


def parse(value: bytes | None, kind: type[M]) -> M:
    """The message in a record's value. Raises `InvalidInput` if the value is no such message."""
    if value is None:
        raise InvalidInput("the message has no value")
    try:
        message = msgspec.json.decode(value, type=kind)
        if message.received:
            # The first or last hours of the calendar may lie outside of it in UTC.
            message.received.astimezone(UTC)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OverflowError) as error:
        raise InvalidInput(f"the message is no {kind.__name__}: {decoding_fault(error)}") from error
    return message


def paths(values: Iterable[bytes | None], kind: type[ReceivedImage | ImageEvent]) -> Iterator[str]:
    """The paths in these records' values; values that are no such messages are left out."""
    for value in values:
        with suppress(InvalidInput):
            yield parse(value, kind).path


def dump(message: Message) -> bytes:
    """The record's value for a message."""
    return msgspec.json.encode(message)


def schema() -> dict[str, object]:
    """The JSON Schema of the messages, by topic."""
    topics = {**MESSAGE_TYPES, NOTIFICATIONS: Notification | Receipt}
    kinds, definitions = msgspec.json.schema_components(topics.values())
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The messages of the mock image pipeline, by topic",
        "properties": dict(zip(topics, kinds, strict=True)),
        "$defs": definitions,
    }
