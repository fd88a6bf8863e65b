"""A picture, and the image that it becomes once it has a number."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

from pipeline.messages import ReceivedImage, image_id
from pipeline.store.names import digest, image_path


@dataclass(frozen=True)
class Picture:
    """A picture that was received, byte for byte."""

    content: bytes
    extension: str
    original_name: str | None = None  # the name of its file, if that is text
    fingerprint: str = ""  # by which its file is recognized until somebody changes the file
    remark: str = ""  # for people, after "received"
    received: datetime = field(default_factory=lambda: datetime.now(UTC))


def image_message(picture: Picture, source: str, number: int) -> ReceivedImage:
    """The message about the image that the picture becomes with this number."""
    name = image_id(source, number)
    return ReceivedImage(
        image_id=name,
        source=source,
        number=number,
        path=image_path(name, picture.extension),
        size=len(picture.content),
        sha256=digest(picture.content),
        received=picture.received,
        original_name=picture.original_name,
    )
