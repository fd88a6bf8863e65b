"""The outbox's file, beside the images in the image database: `.image_receiving-SOURCE.json`."""

from typing import Any

import msgspec
from msgspec import Struct

from pipeline.errors import FatalError, InvalidInput
from pipeline.messages import ReceivedImage
from pipeline.retrying import retrying
from pipeline.store.database import Database
from pipeline.store.names import IMAGE_DATABASE
from pipeline.wording import decoding_fault


class OutboxContent(Struct, omit_defaults=True):
    """What a receiver of one source has begun and what it must remember."""

    unpublished: list[ReceivedImage] = []  # all that Kafka does not have yet, and maybe more
    seen: dict[str, dict[str, int]] = {}  # the directories of SeenFiles


class OutboxFile:
    """The outbox's file of one receiver. Any thread may write it, even beside `Database.write`."""

    def __init__(self, images: Database, name: str) -> None:
        self._images = images
        self._path = f"{IMAGE_DATABASE}/.{name}.json"
        self._earlier_seen = f"{IMAGE_DATABASE}/.{name}.seen.json"

    def read(self) -> OutboxContent:
        """What the file says; nothing if there is none. Raises `FatalError` if it is damaged."""
        return read_outbox(self._images, self._path)

    @retrying
    def write(self, content: OutboxContent) -> None:
        """Replace the file, so that it survives a power cut; without content, delete it."""
        seen = {name: numbers for name, numbers in content.seen.items() if numbers}
        if content.unpublished or seen:
            encoded = msgspec.json.encode(OutboxContent(content.unpublished, seen))
            self._images.files.write(self._path, encoded, is_new=False)
            self._images.files.sync()
        else:
            self._images.remove(self._path)

    def convert(self) -> None:
        """Move the seen files into this file, if an earlier version left them in their own."""
        if self._images.has(self._earlier_seen):
            seen = _decode(self._images, self._earlier_seen, dict[str, dict[str, int]]) or {}
            content = self.read()
            self.write(OutboxContent(content.unpublished, {**seen, **content.seen}))
            self._images.remove(self._earlier_seen)


def read_outbox(images: Database, path: str) -> OutboxContent:
    """What an outbox's file says; nothing if there is none. Raises `FatalError` if damaged."""
    content = _decode(images, path, OutboxContent | list[ReceivedImage]) or OutboxContent()
    if isinstance(content, OutboxContent):
        return content
    return OutboxContent(content)  # earlier versions wrote the messages alone


def _decode(images: Database, path: str, kind: Any) -> Any:
    """The content of a JSON file of this type, or None if there is no file."""
    try:
        content = images.read(path)
    except InvalidInput:
        return None
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        fault = decoding_fault(error)
        raise FatalError(f"{path} in {images.where} is damaged: {fault}; remove it") from error
