"""The text of an image event: what is written for people is read back as it was meant."""

import io
from datetime import UTC, datetime

from PIL import Image

from pipeline.comparison.decode import decode
from pipeline.comparison.measure import Rule
from pipeline.descriptions import read_description
from pipeline.image_events import NewEvent, decide
from pipeline.messages import ReceivedImage
from pipeline.pictures.previous_images import StoredImage

RECEIVED = datetime(2026, 11, 27, 18, 30, 5, tzinfo=UTC)


def stored(number: int, level: int) -> StoredImage:
    """An image, half of which has this level."""
    image = Image.new("L", (40, 30))
    image.paste(level, (20, 0, 40, 30))
    content = io.BytesIO()
    image.save(content, "PNG")
    image_id = f"cam1-{number:05d}"
    message = ReceivedImage(
        image_id=image_id, source="cam1", number=number, path=f"image_database/{image_id}.png"
    )
    return StoredImage(message, content.getvalue(), decode(content.getvalue()))


def new_event() -> NewEvent:
    """An event whose right half has changed."""
    decision = decide(stored(0, 10), stored(1, 20), Rule(), RECEIVED)
    assert isinstance(decision, NewEvent)
    return decision


def test_what_is_written_is_read() -> None:
    event = new_event().message
    description = read_description(new_event().files[event.path], event.event_id)
    assert description.fault == ""
    assert description.image_path == event.image_path
    assert description.previous_image_path == event.previous_image_path
    assert description.difference_path == event.difference_path
    assert description.received == RECEIVED.timestamp()
    assert description.changed_percent == 50
    assert description.box == (20, 0, 20, 30)
    assert description.rms.endswith(" of 255")


def test_a_damaged_text_is_read_as_far_as_possible() -> None:
    """What is wrong is said once, and only the values that can't be read are missing."""
    event = new_event().message
    text = new_event().files[event.path]
    other = read_description(text, "cam1-00002")
    assert other.fault == "it has no line “Image event: cam1-00002”"
    damaged = read_description(text.replace(b"40", b"\xff").replace(b" UTC", b" o'clock"), "")
    assert "no text in UTF-8" in damaged.fault
    assert damaged.received is None
    assert damaged.image_path == event.image_path
    assert read_description(b"", event.event_id).lines == []
