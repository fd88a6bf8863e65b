"""Images that Pillow can't hold: planes of samples, of any number and any type of number.

A plane is one channel of an image, or one of several equal pictures in a file, as an array of rows
and columns. `image_of` makes an image from planes: a Pillow image where Pillow has a mode that
keeps every sample, else `Planes`. Both can be compared.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.comparison.strips import strips
from pipeline.errors import InvalidInput

DEEP = ("I;16", "I")  # the modes of Pillow with integers of more than 8 bits
MAX_PIXELS = 100_000_000  # of an image
MAX_BYTES = 8 * MAX_PIXELS  # of all samples of an image: twice as much while it is compared
EXACT = 2**53  # up to which each integer is a floating-point number of 64 bits, too
LARGEST = np.float64(
    np.finfo(np.float32).max
)  # a number beyond counts as no number, as infinity does


class Planes:
    """An image as planes of one size and one type of number. It is used as a Pillow image is."""

    mode = "planes"  # where Pillow's images have "RGB", "L", …

    def __init__(self, planes: Sequence[NDArray[Any]]) -> None:
        self.planes = tuple(planes)
        self.height, self.width = self.planes[0].shape
        self.size = (self.width, self.height)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of all samples."""
        return self.planes[0].dtype

    def crop(self, box: tuple[int, int, int, int]) -> "Planes":
        """A part of the image, without a copy of it."""
        left, top, right, bottom = box
        return Planes([plane[top:bottom, left:right] for plane in self.planes])


AnyImage = Image.Image | Planes  # that can be compared


def image_of(planes: Sequence[NDArray[Any]], path: str) -> AnyImage:
    """The image of these planes, which have one shape and one type; each sample stays exact.

    Raises `InvalidInput` if they are too large, have no pixel with a value, or have integers that
    can't be compared exactly. The `path` is only for the error's text.
    """
    first = planes[0]
    height, width = first.shape
    check_size(width, height, path, len(planes), first.dtype.itemsize)
    kind = first.dtype.newbyteorder("=")
    if kind.kind == "b":
        kind = np.dtype(np.uint8)
    if kind.kind == "f":
        if not any(is_number(plane[top:bottom]).any() for plane, top, bottom in _parts(planes)):
            raise InvalidInput(f"{path} has no pixel with a value")
        kind = np.dtype(np.float64 if kind.itemsize > 4 else np.float32)  # none of 16 bits
    elif kind.itemsize > 2:
        lowest = min(int(plane.min()) for plane in planes)
        highest = max(int(plane.max()) for plane in planes)
        if lowest < -EXACT or highest > EXACT:
            raise InvalidInput(
                f"{path} has integers beyond 53 bits, which can't be compared exactly"
            )
        fits_in_32 = lowest >= -(2**31) and highest < 2**31
        kind = np.dtype(np.int32 if fits_in_32 else np.int64)
    if len(planes) == 1:
        modes = {"uint8": "L", "uint16": "I;16", "int16": "I", "int32": "I", "float32": "F"}
        mode = modes.get(kind.name)
        if mode:
            return _pillow_image(first, mode, np.dtype(np.int32) if mode == "I" else kind)
    return Planes([plane.astype(kind, copy=False) for plane in planes])


def memory_of(image: AnyImage) -> int:
    """How many bytes of memory an image has, at most."""
    if isinstance(image, Planes):
        return sum(plane.nbytes for plane in image.planes)
    return image.width * image.height * 4


def is_number(samples: NDArray[Any]) -> NDArray[np.bool_]:
    """Which floating-point samples are numbers that count."""
    is_one: NDArray[np.bool_] = np.abs(samples) <= LARGEST
    return is_one


def check_size(width: int, height: int, path: str, planes: int = 1, sample_bytes: int = 1) -> None:
    """Refuse an image that is too large, or has no pixels, before memory is allocated for it.

    One that has none may be as wide as any number says, which takes memory, too.
    """
    if width < 1 or height < 1:
        raise InvalidInput(f"{path} has {width} x {height} pixels: none at all")
    if width * height > MAX_PIXELS:
        raise InvalidInput(f"{path} has {width} x {height} pixels, more than {MAX_PIXELS:,} in all")
    if width * height * planes * sample_bytes > MAX_BYTES:
        raise InvalidInput(
            f"{path} has {planes} x {width} x {height} samples of {8 * sample_bytes} bits, "
            f"more than {MAX_BYTES // 10**6} MB in all"
        )


def _parts(planes: Sequence[NDArray[Any]]) -> list[tuple[NDArray[Any], int, int]]:
    """Each plane with the top and the bottom of each strip."""
    height, width = planes[0].shape
    return [(plane, top, bottom) for plane in planes for top, bottom in strips(width, height)]


def _pillow_image(plane: NDArray[Any], mode: str, kind: np.dtype[Any]) -> Image.Image:
    """The image in one of Pillow's modes of one channel."""
    height, width = plane.shape
    image = Image.new(mode, (width, height))
    for top, bottom in strips(width, height):  # a copy of the whole would need much memory
        image.paste(Image.fromarray(plane[top:bottom].astype(kind)), (0, top))
    return image
