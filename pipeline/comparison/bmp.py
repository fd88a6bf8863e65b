"""Read a BMP exactly of which Pillow would lose samples, or which it doesn't know.

Those are pixels of 16 and 32 bits whose channels lie in unusual bits, and palettes for pixels of 2
and 4 bits, or of two colours for more than 1 bit.
"""

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.comparison.planes import AnyImage, check_size, image_of
from pipeline.comparison.strips import strips

PLAIN, RUNS_OF_8, RUNS_OF_4, FIELDS, FIELDS_WITH_ALPHA = 0, 1, 2, 3, 6  # compressions
OLD_HEADER, HEADER_WITH_ALPHA = 12, 56  # the sizes of headers
HEADERS = (OLD_HEADER, 40, 52, HEADER_WITH_ALPHA, 64, 108, 124)
PILLOWS = {  # bits a pixel, and which of them are red, green, blue and alpha
    *((16, (0xF800, 0x7E0, 0x1F, 0)), (16, (0x7C00, 0x3E0, 0x1F, 0))),
    *((24, (0xFF0000, 0xFF00, 0xFF, 0)), (32, (0xFF0000, 0xFF00, 0xFF, 0))),
    *((32, (0xFF0000, 0xFF00, 0xFF, 0xFF000000)), (32, (0xFF, 0xFF00, 0xFF0000, 0xFF000000))),
}


class Layout:
    """What the header says. Raises `struct.error` if it is cut."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.pixels_at, self.header = struct.unpack_from("<II", content, 10)
        self.masks = (0, 0, 0, 0)  # of red, green, blue and alpha
        self.compression, self.colours, self.entry = PLAIN, 0, 3
        if self.header == OLD_HEADER:
            self.width, self.height, _, self.bits = struct.unpack_from("<HHHH", content, 18)
            return
        about = struct.unpack_from("<iiHHIIiiI", content, 18)
        self.width, self.height, _, self.bits, self.compression, *_, self.colours = about
        self.entry = 4  # bytes of a colour in the palette
        if self.compression in (FIELDS, FIELDS_WITH_ALPHA):
            red, green, blue, alpha = struct.unpack_from("<IIII", content, 54)
            if self.header < HEADER_WITH_ALPHA and self.compression == FIELDS:
                alpha = 0
            self.masks = (red, green, blue, alpha)

    @property
    def refusal(self) -> str:
        """What can't be read by any means; empty if everything can."""
        if self.header not in HEADERS:
            return f"a header of {self.header} bytes"
        if self.compression not in (PLAIN, RUNS_OF_8, RUNS_OF_4, FIELDS, FIELDS_WITH_ALPHA):
            return f"the compression {self.compression}"
        if self.bits not in (1, 2, 4, 8, 16, 24, 32):
            return f"{self.bits} bits a pixel"
        if self.compression in (RUNS_OF_8, RUNS_OF_4) and self.colours == 2:
            return "two colours, compressed in runs"
        return ""

    @property
    def needs_planes(self) -> bool:
        """Whether Pillow doesn't give what is in the file."""
        if self.compression == PLAIN:
            return self.bits in (2, 4) or (self.bits, self.colours) == (8, 2)
        if self.compression in (FIELDS, FIELDS_WITH_ALPHA):
            return self.bits in (16, 32) and (self.bits, self.masks) not in PILLOWS
        return False

    def read(self, path: str) -> AnyImage:
        """The image of such a file."""
        height = abs(self.height)
        check_size(self.width, height, path, 4, 4 if self.bits == 32 else 1)
        stride = (self.width * self.bits + 31) // 32 * 4
        if len(self.content) < self.pixels_at + stride * height:
            raise ValueError("it is cut short")
        rows = np.frombuffer(self.content, np.uint8, stride * height, self.pixels_at)
        rows = rows.reshape(height, stride)
        if self.height > 0:
            rows = rows[::-1]
        return self._in_colours(rows) if self.bits <= 8 else self._in_planes(rows, path)

    def _in_colours(self, rows: NDArray[np.uint8]) -> Image.Image:
        """The image of places in the palette."""
        colours = min(self.colours or 2**self.bits, 2**self.bits)
        start = 14 + self.header
        stored = np.frombuffer(self.content, np.uint8, colours * self.entry, start)
        palette = np.zeros((2**self.bits, 3), np.uint8)
        palette[:colours] = stored.reshape(colours, self.entry)[:, 2::-1]
        image = Image.new("RGB", (self.width, len(rows)))
        for top, bottom in strips(self.width, len(rows)):
            bits = np.unpackbits(np.ascontiguousarray(rows[top:bottom]), axis=1)
            groups = bits.reshape(bottom - top, -1, self.bits)
            places = np.packbits(groups, axis=2)[:, : self.width, 0] >> (8 - self.bits)
            image.paste(Image.fromarray(palette[places]), (0, top))
        return image

    def _in_planes(self, rows: NDArray[np.uint8], path: str) -> AnyImage:
        """The image of channels in some of the bits of a pixel."""
        pixels = np.ascontiguousarray(rows).view(f"<u{self.bits // 8}")[:, : self.width]
        planes: list[NDArray[Any]] = []
        for mask in filter(None, self.masks):
            lowest = (mask & -mask).bit_length() - 1
            planes.append((pixels & mask) >> lowest)
        if not planes:
            raise ValueError("it says of no bits which channel they are")
        # The type goes by the masks, so that two images with the same masks have the same type.
        bits = max(mask.bit_count() for mask in self.masks)
        kind = np.uint8 if bits <= 8 else np.uint16 if bits <= 16 else np.uint32
        return image_of([plane.astype(kind) for plane in planes], path)
