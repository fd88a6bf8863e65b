"""Find the image that comes before an image, from memory or from the image database."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from pipeline.comparison.decode import decode
from pipeline.comparison.planes import AnyImage, memory_of
from pipeline.errors import InvalidInput
from pipeline.messages import ReceivedImage, image_id, parse
from pipeline.store.database import Database
from pipeline.store.numbering import find_image, numbers_before

LATEST_BYTES = 800_000_000  # of pixels in memory, of all sources together
MAX_MESSAGES = 10_000  # in memory, of all sources together


@dataclass(frozen=True)
class StoredImage:
    """An image that was read from the image database."""

    message: ReceivedImage
    content: bytes  # of its file
    pixels: AnyImage


class PreviousImages:
    """Finds the image before an image: in memory if possible, else in the image database.

    The latest image of each source stays in memory. So do messages, which have the hashes of
    earlier images: a file that was replaced since then is not taken for the image before.
    """

    def __init__(self, images: Database) -> None:
        self._images = images
        self._latest: dict[str, StoredImage] = {}  # by source; the source idle longest is first
        self._messages: dict[str, ReceivedImage] = {}  # by image_id; the oldest is first

    def remember(self, values: Iterable[bytes | None]) -> None:
        """Remember the messages in these record values, so that their images' hashes are known."""
        for value in values:
            with suppress(InvalidInput):
                self._remember(parse(value, ReceivedImage))

    def read(self, message: ReceivedImage) -> tuple[StoredImage | None, StoredImage]:
        """The image before the message's image, if there is one that can be used, and the image.

        Raises `InvalidInput` if the message's own image can't be used.
        """
        self._remember(message)
        previous = self._find_previous(message)
        image = read_stored_image(self._images, message, previous)
        self._keep_latest(image)
        return previous, image

    def _remember(self, message: ReceivedImage) -> None:
        self._messages.pop(message.image_id, None)  # so that the newest is last
        self._messages[message.image_id] = message
        if len(self._messages) > MAX_MESSAGES:
            del self._messages[next(iter(self._messages))]

    def _find_previous(self, message: ReceivedImage) -> StoredImage | None:
        """The nearest earlier image of the source that can be used."""
        source = message.source
        latest = self._latest.get(source)
        if latest and latest.message.number == message.number - 1:
            return latest
        for number in numbers_before(self._images, source, message.number):
            if latest and latest.message.number == number:
                return latest
            earlier = self._messages.get(image_id(source, number)) or message_of_file(
                self._images, source, number
            )
            with suppress(InvalidInput):
                return read_stored_image(self._images, earlier)
        return None

    def _keep_latest(self, image: StoredImage) -> None:
        """Keep the source's latest image; beyond the limit, drop those of the idlest sources."""
        before = self._latest.pop(image.message.source, None)
        self._latest[image.message.source] = image
        is_larger = before is None or memory_of(before.pixels) < memory_of(image.pixels)
        while is_larger and len(self._latest) > 1:
            if sum(memory_of(latest.pixels) for latest in self._latest.values()) < LATEST_BYTES:
                break
            del self._latest[next(iter(self._latest))]


def message_of_file(images: Database, source: str, number: int) -> ReceivedImage:
    """What is known from its file alone of an image whose message is not at hand: no hash."""
    name = image_id(source, number)
    path = find_image(images, name)
    return ReceivedImage(image_id=name, source=source, number=number, path=path)


def read_stored_image(
    images: Database, message: ReceivedImage, previous: StoredImage | None = None
) -> StoredImage:
    """The image that a message names. An image with the bytes of `previous` has its pixels.

    Raises `InvalidInput` if the file isn't there, isn't what the message says, or is no image.
    """
    content = images.read(message.path, message.sha256)
    if previous and previous.content == content:
        return StoredImage(message, content, previous.pixels)
    return StoredImage(message, content, decode(content, message.path))
