"""Read any TIFF exactly, whatever its numbers and its layout.

Pillow decodes the layouts for which it has a mode that keeps every sample. Of all others, libtiff
only unpacks the bytes: a directory that says "grey of 8 bits, so many bytes wide" is put behind the
file, Pillow reads the file by this directory, and numpy makes samples of the bytes. So every kind
of number can be read, and the memory is that of the picture that the file announces, which is
checked before.
"""

import io
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.comparison import tiff_directories as tags
from pipeline.comparison.planes import MAX_BYTES, AnyImage, check_size, image_of
from pipeline.comparison.strips import strips
from pipeline.comparison.tiff_directories import Directory
from pipeline.errors import InvalidInput

MAX_SAMPLES = 10_000  # of a pixel
MIN_IS_WHITE, MIN_IS_BLACK, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6
UNSIGNED, SIGNED, FLOAT, UNDEFINED = 1, 2, 3, 4
COMPLEX = (5, 6)
PLAIN, LZW, OLD_JPEG, JPEG, DEFLATE, PACK_BITS, OLD_DEFLATE = 1, 5, 6, 7, 8, 32773, 32946
LZMA, ZSTANDARD = 34925, 50000
WITH_PREDICTOR = (LZW, DEFLATE, OLD_DEFLATE, LZMA, ZSTANDARD)
LOSSLESS = (PLAIN, PACK_BITS, *WITH_PREDICTOR)
FAX = (2, 3, 4)
NAMES = {OLD_JPEG: "JPEG of the old kind", 34712: "JPEG 2000", 50001: "WebP"}

READ_BITS = {UNSIGNED: (*range(1, 33), 64), SIGNED: (8, 16, 32, 64), FLOAT: (16, 32, 64)}
PREDICTED_BITS = {1: (*range(1, 65),), 2: (8, 16, 32, 64), 3: (16, 32, 64)}
WORDS = {UNSIGNED: "unsigned integers", SIGNED: "signed integers", FLOAT: "floating point"}
PILLOWS = {  # photometric interpretation, samples, bits, extra samples
    *((grey, 1, bits, ()) for grey in (MIN_IS_WHITE, MIN_IS_BLACK) for bits in (1, 2, 4, 8)),
    *((PALETTE, 1, bits, ()) for bits in (1, 2, 4, 8)),
    *((MIN_IS_BLACK, 1, 16, ()), (PALETTE, 2, 8, (2,))),
    *((MIN_IS_BLACK, 2, 8, (2,)), (RGB, 3, 8, ()), (RGB, 4, 8, ()), (RGB, 4, 8, (2,))),
    *((CMYK, 4, 8, ()), (YCBCR, 3, 8, ())),
}
TURNS: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {  # by orientation: makes it upright
    2: lambda plane: plane[:, ::-1],
    3: lambda plane: plane[::-1, ::-1],
    4: lambda plane: plane[::-1],
    5: lambda plane: plane.T,
    6: lambda plane: plane[::-1].T,
    7: lambda plane: plane[::-1, ::-1].T,
    8: lambda plane: plane.T[::-1],
}


class Layout:
    """How the samples of a picture lie in the file."""

    def __init__(self, directory: Directory) -> None:
        self.directory = directory
        value = directory.value
        self.width, self.height = value(tags.WIDTH, 0), value(tags.HEIGHT, 0)
        self.samples = value(tags.SAMPLES, max(1, len(directory.values(tags.BITS))))
        self.bits = value(tags.BITS, 1)
        kind = value(tags.SAMPLE_FORMAT, UNSIGNED)
        self.kind = UNSIGNED if kind == UNDEFINED else kind
        self.photometric = value(tags.PHOTOMETRIC, MIN_IS_WHITE)
        self.compression = value(tags.COMPRESSION, PLAIN)
        has_predictor = self.compression in WITH_PREDICTOR
        self.predictor = value(tags.PREDICTOR, 1) if has_predictor else 1
        # Samples lie together, or each in a layer of its own behind the others.
        self.is_apart = value(tags.PLANAR, 1) == 2
        self.layers = self.samples if self.is_apart else 1
        self.is_tiled = tags.TILES in directory.places
        if self.is_tiled:
            self.segment = value(tags.TILE_WIDTH, 0), value(tags.TILE_HEIGHT, 0)
        else:
            rows = value(tags.ROWS_PER_STRIP, self.height)
            self.segment = self.width, min(rows, self.height)

    @property
    def segments(self) -> tuple[int, int]:
        """How many segments lie beside and below each other."""
        return -(-self.width // self.segment[0]), -(-self.height // self.segment[1])

    @property
    def samples_together(self) -> int:
        """How many samples a pixel has in a layer."""
        return self.samples // self.layers

    @property
    def row_bytes(self) -> int:
        """The bytes of a row of a segment."""
        return -(-self.segment[0] * self.samples_together * self.bits // 8)

    @property
    def segment_bytes(self) -> int:
        """The bytes of a segment."""
        return self.row_bytes * self.segment[1]

    @property
    def number(self) -> np.dtype[Any]:
        """The type of a sample."""
        kind = {SIGNED: "i", FLOAT: "f"}.get(self.kind, "u")
        size = next((size for size in (1, 2, 4) if self.bits <= 8 * size), 8)
        return np.dtype(f"{kind}{size}")

    @property
    def is_spread(self) -> bool:
        """Whether Pillow spreads this grey to 0 to 255, which is done with all such grey."""
        return self.samples == 1 and self.kind != SIGNED and self.bits in (1, 2, 4)

    @property
    def is_pillows(self) -> bool:
        """Whether Pillow decodes this layout and keeps every sample."""
        if (self.bits, self.directory.order) == (16, ">"):  # wrong in Pillow if it is compressed
            return False
        extra = self.directory.values(tags.EXTRA_SAMPLES)
        about = (self.photometric, self.samples, self.bits, extra)
        is_known = self.kind == UNSIGNED and not self.is_apart and about in PILLOWS
        value = self.directory.value
        if value(tags.FILL_ORDER, 1) != 1 and self.bits != 1:
            return False
        # Where these are missing or undefined, Pillow takes other ones for granted.
        if value(tags.SAMPLES, 1) != self.samples or value(tags.SAMPLE_FORMAT, 1) != UNSIGNED:
            return False
        if self.photometric == YCBCR:
            return is_known and self.compression in (JPEG, OLD_JPEG)
        if self.photometric == PALETTE:  # Pillow keeps 8 bits of each colour
            colours = self.directory.array(tags.COLOUR_MAP)
            lower = colours & 255
            return is_known and not np.any((lower != 0) & (lower != colours >> 8))
        return is_known

    def check(self, path: str) -> None:
        """Refuse what is too large, damaged, or can't be read exactly. Raises `InvalidInput`."""
        check_size(self.width, self.height, path, self.samples, self.number.itemsize)
        if self.samples > MAX_SAMPLES:
            raise InvalidInput(f"{path} has more than {MAX_SAMPLES:,} samples in each pixel")
        if min(*self.segment, self.samples, self.bits) < 1:
            raise InvalidInput(f"{path} is a damaged image: its strips or tiles have no size")
        across, down = self.segments
        # Memory is needed for whole segments, of which the last may go far beyond the picture.
        whole = self.segment[0] * across * self.segment[1] * down
        if whole * self.samples * self.number.itemsize > MAX_BYTES:
            size = "{} x {}".format(*self.segment)
            raise InvalidInput(f"{path} has tiles of {size} pixels, which are too large")
        offsets = len(self.directory.array(tags.TILES if self.is_tiled else tags.STRIPS))
        if offsets < across * down * self.layers:
            raise InvalidInput(
                f"{path} is a damaged image: {offsets} of {across * down * self.layers} strips or "
                "tiles are there"
            )
        if self.photometric == PALETTE and self.bits <= 16:
            colours = len(self.directory.array(tags.COLOUR_MAP))
            if colours != 3 * 2**self.bits:
                raise InvalidInput(f"{path} is a damaged image: its palette has {colours} numbers")
        if reason := self._refused_numbers() or self._refused_colours() or self._refused_packing():
            raise InvalidInput(f"{path} is a TIFF with {reason}, which can't be compared exactly")

    def _refused_numbers(self) -> str:
        bits = sorted({*self.directory.values(tags.BITS)[: self.samples]})
        kinds = {*self.directory.values(tags.SAMPLE_FORMAT)[: self.samples]}
        if len(bits) > 1:
            return f"samples of {' and '.join(map(str, bits))} bits in a pixel"
        if len(kinds) > 1:
            return "numbers of several kinds in a pixel"
        if self.kind in COMPLEX:
            return "complex numbers"
        if self.kind not in READ_BITS:
            return f"numbers of the unknown kind {self.kind}"
        is_read = self.bits in READ_BITS[self.kind]
        return "" if is_read else f"{WORDS[self.kind]} of {self.bits} bits"

    def _refused_colours(self) -> str:
        if self.photometric == PALETTE and (self.bits > 16 or self.number.kind != "u"):
            return f"a palette for {WORDS[self.kind]} of {self.bits} bits"
        is_jpeg = self.compression in (JPEG, OLD_JPEG)
        factors = self.directory.values(tags.SUBSAMPLING, (2, 2))
        if self.photometric == YCBCR and not is_jpeg and set(factors) != {1}:
            return "colours (YCbCr) of less resolution than the brightness"
        return ""

    def _refused_packing(self) -> str:
        """What can't be read of the compression."""
        if self.compression in FAX:
            return "" if self.is_pillows and self.bits == 1 else self._packing
        if self.compression in (JPEG, OLD_JPEG):
            is_by_layer = self.compression == JPEG and self.layers == self.samples
            return "" if self.bits == 8 and (self.is_pillows or is_by_layer) else self._packing
        if self.compression not in LOSSLESS:
            return self._packing
        if self.bits not in PREDICTED_BITS.get(self.predictor, ()):
            return f"the predictor {self.predictor} for {self.bits} bits"
        return ""

    @property
    def _packing(self) -> str:
        known = {JPEG: "JPEG", **dict.fromkeys(FAX, "fax"), **NAMES}
        name = known.get(self.compression, f"of the number {self.compression}")
        return f"{self.samples} x {self.bits} bits a pixel and the compression {name}"


def alone(content: bytes, directory: Directory) -> bytes:
    """A TIFF whose only picture is that of the directory."""
    start = _start(content)
    about = {tag: directory.array(tag) for tag in directory.places if tag != tags.CHILDREN}
    return start + _directory(about, len(start), True)


def read_planes(content: bytes, layout: Layout, path: str) -> AnyImage:
    """The image of a picture for which Pillow has no mode."""
    planes = [np.empty((layout.height, layout.width), layout.number) for _ in range(layout.samples)]
    with Image.open(io.BytesIO(_as_bytes(content, layout)), formats=["TIFF"]) as packed:
        for layer in range(layout.layers):
            packed.seek(layer)
            packed.load()
            for top, bottom in strips(layout.width * layout.samples_together, layout.height):
                rows = np.asarray(packed.crop((0, top, packed.width, bottom)))
                samples = _samples(rows, layout)[:, : layout.width]
                for sample in range(layout.samples_together):
                    planes[layer + sample][top:bottom] = samples[:, :, sample]
    if layout.photometric == MIN_IS_WHITE and layout.number.kind == "u" and layout.bits <= 32:
        for plane in planes:
            np.subtract(2**layout.bits - 1, plane, out=plane)
    if layout.photometric in (MIN_IS_WHITE, MIN_IS_BLACK) and layout.is_spread:
        planes[0] *= np.uint8(255 // (2**layout.bits - 1))
    if layout.photometric == PALETTE:
        colours = layout.directory.array(tags.COLOUR_MAP).reshape(3, 2**layout.bits)
        more = [plane.astype(np.uint16) for plane in planes[1:]]
        planes = [*(colour.astype(np.uint16)[planes[0]] for colour in colours), *more]
    turn = TURNS.get(layout.directory.value(tags.ORIENTATION, 1))
    return image_of([turn(plane) for plane in planes] if turn else planes, path)


def _as_bytes(content: bytes, layout: Layout) -> bytes:
    """A TIFF with a picture for each layer, whose pixels are the bytes of the rows."""
    across, down = layout.segments
    place, length = (
        (tags.TILES, tags.TILE_BYTES) if layout.is_tiled else (tags.STRIPS, tags.STRIP_BYTES)
    )
    about: dict[int, Any] = {
        tags.WIDTH: [layout.row_bytes * across],
        tags.HEIGHT: [layout.height],
        tags.BITS: [8],
        tags.COMPRESSION: [layout.compression],
        tags.PHOTOMETRIC: [MIN_IS_BLACK],
        tags.FILL_ORDER: [layout.directory.value(tags.FILL_ORDER, 1)],
        tags.SAMPLES: [1],
    }
    if layout.is_tiled:
        about |= {tags.TILE_WIDTH: [layout.row_bytes], tags.TILE_HEIGHT: [layout.segment[1]]}
    else:
        about |= {tags.ROWS_PER_STRIP: [layout.segment[1]]}
    if tags.JPEG_TABLES in layout.directory.places:
        about |= {tags.JPEG_TABLES: layout.directory.array(tags.JPEG_TABLES)}
    parts = [_start(content)]
    at = len(parts[0])
    for layer in range(layout.layers):
        part = slice(layer * across * down, (layer + 1) * across * down)
        about |= {place: layout.directory.array(place)[part]}
        if length in layout.directory.places:
            about |= {length: layout.directory.array(length)[part]}
        parts.append(_directory(about, at, layer == layout.layers - 1))
        at += len(parts[-1])
    return b"".join(parts)


def _start(content: bytes) -> bytes:
    """The bytes of a TIFF as they are, but for the header: it says that a directory follows."""
    length = len(content) + len(content) % 2
    return b"".join([b"II*\0", struct.pack("<I", length), content[8:], bytes(len(content) % 2)])


def _directory(about: dict[int, Any], offset: int, is_last: bool) -> bytes:
    """The bytes of a directory that is written at this offset."""
    after = offset + 2 + 12 * len(about) + 4
    entries, values = [struct.pack("<H", len(about))], b""
    for tag, numbers in sorted(about.items()):
        kind, dtype = (7, "u1") if tag == tags.JPEG_TABLES else (4, "<u4")
        packed = np.asarray(numbers).astype(dtype).tobytes()
        if len(packed) > 4:
            values, packed = values + packed, struct.pack("<I", after + len(values))
            values += bytes(len(values) % 2)
        entries.append(struct.pack("<HHI4s", tag, kind, len(numbers), packed))
    entries.append(struct.pack("<I", 0 if is_last else after + len(values)))
    return b"".join(entries) + values


def _samples(rows: NDArray[np.uint8], layout: Layout) -> NDArray[Any]:
    """Rows x columns x samples, of rows of bytes."""
    across = layout.segments[0]
    shape = (len(rows), across, layout.segment[0], layout.samples_together)
    packed = rows.reshape(len(rows), across, layout.row_bytes)
    size = layout.number.itemsize
    if layout.predictor == 3:  # the first bytes of all numbers, then the second bytes, …
        stride = layout.samples_together
        summed = packed.reshape(len(rows), across, -1, stride).cumsum(axis=2, dtype=np.uint8)
        apart = summed.reshape(len(rows), across, size, -1).swapaxes(2, 3)
        numbers = np.ascontiguousarray(apart).view(f">u{size}")[..., 0]
    elif layout.bits == 8 * size:
        numbers = packed.view(f"{layout.directory.order}u{size}")
    else:
        numbers = _unpacked(packed, layout)
    numbers = numbers.astype(f"=u{size}").reshape(shape)
    if layout.predictor == 2:
        numbers = np.cumsum(numbers, axis=2, dtype=numbers.dtype)
    whole = numbers.reshape(len(rows), across * layout.segment[0], layout.samples_together)
    return whole.view(layout.number)


def _unpacked(packed: NDArray[np.uint8], layout: Layout) -> NDArray[Any]:
    """The numbers of a count of bits that isn't a number's of numpy."""
    count = layout.segment[0] * layout.samples_together
    if layout.bits == 24:
        order = [2, 1, 0] if layout.directory.order == "<" else [0, 1, 2]
        bytes_of = packed.reshape(*packed.shape[:2], count, 3)[..., order].astype(np.uint32)
        return (bytes_of[..., 0] << 16) | (bytes_of[..., 1] << 8) | bytes_of[..., 2]
    bits = np.unpackbits(packed, axis=2, count=count * layout.bits)
    bits = bits.reshape(*packed.shape[:2], count, layout.bits)
    numbers: NDArray[Any] = np.zeros(bits.shape[:3], np.uint32)
    for place in range(layout.bits):
        numbers = (numbers << 1) | bits[..., place]
    return numbers
