"""The image before each image, from memory or from the image database."""

from contextlib import suppress
from dataclasses import dataclass

from PIL import Image

from pipeline.comparison.decode import decode
from pipeline.errors import InvalidInput
from pipeline.messages import ReceivedImage, image_id
from pipeline.store.database import Database

Recent = dict[str, ReceivedImage]  # by image_id: by now, the file may be another one


LATEST_PIXELS = 200_000_000  # to keep of all sources together, up to 4 bytes each


@dataclass(frozen=True)
class StoredImage:
    """An image that has been read, to compare the next one with."""

    message: ReceivedImage
    content: bytes
    pixels: Image.Image


def keep(latest: dict[str, StoredImage], image: StoredImage) -> None:
    """Keep a source's latest image; of too many sources, forget the one that was idle longest."""
    before = latest.pop(image.message.source, None)
    latest[image.message.source] = image
    is_larger = before is None or before.pixels.size != image.pixels.size
    while is_larger and len(latest) > 1:
        if sum(one.pixels.width * one.pixels.height for one in latest.values()) < LATEST_PIXELS:
            break
        del latest[next(iter(latest))]


def image_before(
    images: Database, message: ReceivedImage, latest: StoredImage | None, recent: Recent
) -> StoredImage | None:
    """The nearest earlier image of the source that can be used; None if there isn't any."""
    if latest and latest.message.number == message.number - 1:
        return latest
    source = message.source
    for number in images.numbers_before(source, message.number):
        if latest and latest.message.number == number:
            return latest
        name = image_id(source, number)
        stored = recent.get(name) or ReceivedImage(
            image_id=name, source=source, number=number, path=images.find(name)
        )
        with suppress(InvalidInput):
            return read_stored_image(images, stored)
    return None


def read_stored_image(
    images: Database, message: ReceivedImage, previous: StoredImage | None = None
) -> StoredImage:
    """The image that a message names. Raises `Unusable`."""
    content = images.read(message.path, message.sha256)
    if previous and previous.content == content:
        return StoredImage(message, content, previous.pixels)
    return StoredImage(message, content, decode(content, message.path))
