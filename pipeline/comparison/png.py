"""Read a PNG with 16-bit colour, or with 16 bits and transparency, exactly.

Pillow keeps the upper or the lower 8 bits of each sample of a colour, as it is told, so it decodes
such a file twice. Of grey with alpha it can't keep the lower bits: the four bytes of a pixel are
read as four channels of 8 bits.
"""

import io
import zlib
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps

from pipeline.comparison.planes import AnyImage, check_size, image_of

UPPER, LOWER = ";16B", ";16L"  # of Pillow: the first or the second of two bytes is kept
HEADER = slice(12, 29)  # the name and the content of the first chunk; its checksum comes next
DEPTH_AND_COLOUR = slice(24, 26)
FOUR_CHANNELS = b"\x08\x06"  # of 8 bits
OPAQUE = 65535


def needs_planes(image: ImageFile.ImageFile) -> bool:
    """Whether this opened PNG has samples that no mode of Pillow keeps."""
    is_deep = UPPER in str(image.tile[0].args)
    return is_deep and (image.mode != "I;16" or "transparency" in image.info)


def read_planes(content: bytes, image: ImageFile.ImageFile, path: str) -> AnyImage:
    """The image of an opened PNG of 16 bits."""
    check_size(*image.size, path, 4, 2)
    transparent = image.info.get("transparency")
    if image.mode == "I;16":
        planes = [np.asarray(band) for band in _bands(content, UPPER)]
    elif str(image.tile[0].args) == f"LA{UPPER}":
        bands = _bands(_with_four_channels(content), "")
        planes = [_joined(*bands[:2]), _joined(*bands[2:])]
    else:
        both = zip(_bands(content, UPPER), _bands(content, LOWER), strict=True)
        planes = [_joined(upper, lower) for upper, lower in both]
    if transparent is not None:
        values = transparent if isinstance(transparent, tuple) else (transparent,)
        is_clear = [plane == value for plane, value in zip(planes, values, strict=True)]
        planes.append((~reduce(np.logical_and, is_clear)).astype(np.uint16) * np.uint16(OPAQUE))
    return image_of(planes, path)


def grey_step(content: bytes) -> int:
    """The steps of 8 bits in a count of grey of fewer bits, which Pillow spreads to 0 to 255."""
    return 255 // (int(2 ** content[DEPTH_AND_COLOUR][0]) - 1)


def _bands(content: bytes, kept: str) -> tuple[Image.Image, ...]:
    """The channels, of which these bytes are kept."""
    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
        tile = image.tile[0]
        image.tile = [tile._replace(args=str(tile.args).replace(UPPER, kept))]
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        return image.split()


def _joined(upper: Image.Image, lower: Image.Image) -> NDArray[Any]:
    """A plane of 16 bits from its upper and its lower bytes."""
    plane = np.asarray(upper).astype(np.uint16)
    plane <<= 8
    plane |= np.asarray(lower)
    return plane


def _with_four_channels(content: bytes) -> bytes:
    """The same PNG, whose header says that each byte is a sample and each pixel has four."""
    header = bytearray(content[HEADER])
    start = DEPTH_AND_COLOUR.start - HEADER.start
    header[start : start + 2] = FOUR_CHANNELS
    checksum = zlib.crc32(header).to_bytes(4, "big")
    return content[: HEADER.start] + bytes(header) + checksum + content[HEADER.stop + 4 :]
