"""Finds images in the image database by their source and number.

A directory lists all its names at once. In an object store that takes long, so only the names near
the wanted number are listed.
"""

from collections.abc import Iterable, Iterator

from pipeline.messages import image_id, parts_of
from pipeline.store.database import Database
from pipeline.store.names import EXTENSIONS, IMAGE, image_path

NEARBY = 16  # numbers to try one by one before any names are listed


def find_image(images: Database, name: str) -> str:
    """The path of the image with this id, whatever its extension; a JPEG's path if it is absent."""
    paths = [image_path(name, extension) for extension in EXTENSIONS]
    if images.files.is_listing_fast or images.has(paths[0]):
        return next(filter(images.has, paths), paths[0])
    stored = {f"{images.name}/{found}" for found in images.names(f"{name}.")}
    return next((path for path in paths if path in stored), paths[0])


def last_image(images: Database, source: str, known: int) -> tuple[int, str]:
    """The number and the path of the source's last image; -1 and an empty path if it has none.

    Kafka knows of `known` images, so the last one has the number `known - 1` or a little more.
    """
    if known and not images.files.is_listing_fast:
        # An id without its last three digits is the prefix of a thousand images.
        near = {image_id(source, number)[:-3] for number in (known - 1, known, known + 1000)}
        found = _stored_images(images, source, near)
        if known - 1 in found:
            return max(found.items())
    # Names without a source begin with a digit, and few others do.
    digits = [""] if images.files.is_listing_fast else list("0123456789")
    prefixes = [f"{source}-"] if source else digits
    return max(_stored_images(images, source, prefixes).items(), default=(-1, ""))


def numbers_before(images: Database, source: str, number: int) -> Iterator[int]:
    """The numbers below this one that the source may have an image of, the nearest first.

    The nearest are returned without looking, so that usually no names are listed.
    """
    end = max(0, number - NEARBY)
    yield from range(number - 1, end - 1, -1)
    digits = image_id("", end)
    for length in range(len(digits) - 1 if end else -1, -1, -1):
        # Numbers with the same first digits are near, and can be listed by themselves.
        first = int(digits[:length].ljust(len(digits), "0")) if length else 0
        prefix = f"{source}-{digits[:length]}" if source else digits[:length]
        near = _stored_images(images, source, [prefix])
        yield from sorted((found for found in near if first <= found < end), reverse=True)
        end = first


def _stored_images(images: Database, source: str, prefixes: Iterable[str]) -> dict[int, str]:
    """The paths of the source's images whose names begin with a prefix, by their numbers."""
    found = {}
    names = (name for prefix in prefixes for name in images.names(prefix))
    for match in filter(None, map(IMAGE.fullmatch, names)):
        name_source, number = parts_of(match[1])
        if name_source == source:
            found[number] = f"{images.name}/{match[0]}"
    return found
