"""Find the main picture of a TIFF: what the file says of each of its pictures, by tags.

A file may have several pictures: pages, and pictures that belong to a page. The main picture is the
largest one that isn't marked as reduced, as a mask or as a map of depths; of equal ones, the first.
"""

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InvalidInput

HEADERS = {b"II*\0": "<", b"MM\0*": ">", b"II+\0": "<", b"MM\0+": ">"}  # and their byte order
MAX_PICTURES = 10_000
MAX_VALUES = 10_000  # of a tag of which all are looked at
MAX_ENTRIES = 4096  # of a directory
NUMBERS = {1: "u1", 3: "u2", 4: "u4", 7: "u1", 13: "u4", 16: "u8", 18: "u8"}  # by a tag's type

SUBFILE_TYPE, OLD_SUBFILE_TYPE, WIDTH, HEIGHT, BITS, COMPRESSION = 254, 255, 256, 257, 258, 259
PHOTOMETRIC, FILL_ORDER, STRIPS, ORIENTATION, SAMPLES = 262, 266, 273, 274, 277
ROWS_PER_STRIP, STRIP_BYTES, PLANAR, PREDICTOR, COLOUR_MAP = 278, 279, 284, 317, 320
TILE_WIDTH, TILE_HEIGHT, TILES, TILE_BYTES, CHILDREN = 322, 323, 324, 325, 330
EXTRA_SAMPLES, SAMPLE_FORMAT, JPEG_TABLES, SUBSAMPLING = 338, 339, 347, 530
READ = (  # the tags that are looked at
    *(SUBFILE_TYPE, OLD_SUBFILE_TYPE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER),
    *(STRIPS, ORIENTATION, SAMPLES, ROWS_PER_STRIP, STRIP_BYTES, PLANAR, PREDICTOR, COLOUR_MAP),
    *(TILE_WIDTH, TILE_HEIGHT, TILES, TILE_BYTES, CHILDREN, EXTRA_SAMPLES, SAMPLE_FORMAT),
    *(JPEG_TABLES, SUBSAMPLING),
)
NO_MAIN_PICTURE = 1 | 4 | 8  # bits of the subfile type: reduced, a mask, a map of depths
MASK = 4  # a photometric interpretation


def is_tiff(content: bytes) -> bool:
    """Whether these bytes begin as a TIFF does."""
    return content[:4] in HEADERS


class Directory:
    """What a file says of one of its pictures, by the numbers of the tags."""

    def __init__(self, content: bytes, offset: int) -> None:
        self.offset = offset
        self._content = content
        self.header = content[:4]
        self.order = order = HEADERS[self.header]
        is_big = b"+" in self.header
        count_kind, offset_kind, self._inline = ("Q", "Q", 8) if is_big else ("H", "I", 4)
        (entries,) = struct.unpack_from(order + count_kind, content, offset)
        if entries > MAX_ENTRIES:
            raise ValueError(f"it says of a picture {entries} things, more than {MAX_ENTRIES}")
        start = offset + struct.calcsize(order + count_kind)
        short, long = f"{order}u2", f"{order}u{self._inline}"
        entry = np.dtype([("tag", short), ("type", short), ("count", long), ("value", long)])
        self._entries = np.frombuffer(content, entry, entries, start)
        self._start = start
        found = np.flatnonzero(np.isin(self._entries["tag"], READ)).tolist()
        self.places = {int(self._entries["tag"][place]): place for place in reversed(found)}
        (self.next,) = struct.unpack_from(
            order + offset_kind, content, start + entries * entry.itemsize
        )

    def values(self, tag: int, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """The numbers of a tag, up to MAX_VALUES."""
        return tuple(self.array(tag)[:MAX_VALUES].tolist()) or default

    def value(self, tag: int, default: int) -> int:
        """The first number of a tag."""
        return int((*self.array(tag)[:1], default)[0])

    def array(self, tag: int) -> NDArray[Any]:
        """All numbers of a tag as an array; an empty one if the tag is missing."""
        if tag not in self.places:
            return np.zeros(0, np.int64)
        entry = self._entries[self.places[tag]]
        kind = np.dtype(self.order + NUMBERS.get(int(entry["type"]), "u1"))
        count = int(entry["count"])
        value_at = self._start + (self.places[tag] + 1) * self._entries.itemsize - self._inline
        at = value_at if count * kind.itemsize <= self._inline else int(entry["value"])
        return np.frombuffer(self._content, kind, count, at) if count else np.zeros(0, np.int64)

    @property
    def is_picture(self) -> bool:
        """Whether it is about a picture."""
        return self.value(WIDTH, 0) > 0 and self.value(HEIGHT, 0) > 0

    @property
    def is_full(self) -> bool:
        """Whether nothing says that it is a reduced picture, a mask or a map of depths."""
        is_reduced = self.value(OLD_SUBFILE_TYPE, 0) == 2
        is_other = self.value(SUBFILE_TYPE, 0) & NO_MAIN_PICTURE or is_reduced
        return not is_other and self.value(PHOTOMETRIC, 0) != MASK


def pictures_in(content: bytes, path: str) -> tuple[list[Directory], int]:
    """The directories of all pictures in a TIFF, and the place of the main picture among them.

    Raises `InvalidInput` if they can't be read.
    """
    if not is_tiff(content):
        raise InvalidInput(f"{path} is a damaged image: it begins as no TIFF does")
    try:
        pictures = [directory for directory in _directories(content) if directory.is_picture]
        full = [directory for directory in pictures if directory.is_full] or pictures
    except (struct.error, ValueError, OverflowError) as error:
        raise InvalidInput(f"{path} is a damaged image: it ends too early") from error
    if not pictures:
        raise InvalidInput(f"{path} has no picture")
    if len(pictures) > MAX_PICTURES:
        raise InvalidInput(f"{path} has more than {MAX_PICTURES:,} pictures")
    main = max(full, key=lambda full: full.value(WIDTH, 0) * full.value(HEIGHT, 0))
    return pictures, pictures.index(main)


def _directories(content: bytes) -> Iterator[Directory]:
    """All directories: the pages one after another, and those that belong to a page."""
    is_big = b"+" in content[:4]
    kind = HEADERS[content[:4]] + ("Q" if is_big else "I")
    waiting = [*struct.unpack_from(kind, content, 4 + 4 * is_big)]
    seen = {*waiting}
    while waiting and len(seen) <= MAX_PICTURES + 1:
        directory = Directory(content, waiting.pop(0))
        yield directory
        for offset in (*directory.values(CHILDREN), directory.next):
            if offset and offset not in seen:
                seen.add(offset)
                waiting.append(offset)


def main_picture_remark(content: bytes, path: str) -> str:
    """Which of the pictures of a TIFF is the main picture; empty if it is the only picture."""
    pictures, main = pictures_in(content, path)
    return f" (picture {main + 1} of {len(pictures)} in it)" if len(pictures) > 1 else ""
