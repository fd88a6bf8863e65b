"""How two images differ where both have pixels, by samples of 8 bits or of more."""

import math
from collections.abc import Iterator
from functools import reduce
from itertools import zip_longest
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops

from pipeline.comparison.blocks import CellSums, sums_of_four_rows
from pipeline.comparison.planes import DEEP, LARGEST, AnyImage, Planes, is_number
from pipeline.comparison.strips import CELL, strips

Box = tuple[int, int, int, int]  # left, top, right, bottom


class Overlap(NamedTuple):
    """How two images differ where both have pixels."""

    squares: float  # the sum of the squared differences of all samples
    cells: CellSums
    largest: Image.Image  # mode L: each pixel's largest difference; more than 0 if there is any


def compare_8_bits(previous: Image.Image, image: Image.Image, mask: Image.Image | None) -> Overlap:
    """How images differ that both have samples of 8 bits, counted in steps of these."""
    modes = {previous.mode, image.mode}
    mode = image.mode if len(modes) == 1 else "RGBA" if "RGBA" in modes else "RGB"
    width, height = min(previous.width, image.width), min(previous.height, image.height)
    largest = np.zeros((height, width), np.uint8)
    cells = CellSums((width, height), Image.getmodebands(mode), np.int16)
    squares = 0
    for top, bottom in strips(width, height):
        strip = (0, top, width, bottom)
        before, after = previous.crop(strip), image.crop(strip)
        if len(modes) > 1:
            before, after = before.convert(mode), after.convert(mode)
        if mask:
            after.paste(before, mask=mask.crop(strip))
        box = ImageChops.difference(before, after).getbbox(alpha_only=False)
        if box is None:
            continue
        left, upper, right, lower = part = _whole_cells(box, *before.size)
        channels = list(zip(_channels(before, part), _channels(after, part), strict=True))
        differences = [np.maximum(*both) - np.minimum(*both) for both in channels]
        largest[top + upper : top + lower, left:right] = reduce(np.maximum, differences)
        # In integers, so that the sum is exact: 65536 rows of 255 squared are less than 2**32.
        columns = [
            np.square(difference, dtype=np.uint16).sum(axis=0, dtype=np.uint32)
            for difference in differences
        ]
        squares += int(np.sum(columns, dtype=np.uint64))
        for channel, (samples_before, samples_after) in enumerate(channels):
            rows = sums_of_four_rows(samples_after, np.int16)
            rows -= sums_of_four_rows(samples_before, np.int16)
            cells.put(channel, left, top + upper, rows)
    return Overlap(squares, cells, Image.fromarray(largest))


def compare_deep(
    previous: AnyImage, image: AnyImage, mask: Image.Image | None, full_scale: float, is_drawn: bool
) -> Overlap:
    """How images differ of which at least one has planes, or more than 8 bits a sample.

    Both are compared as floating-point numbers if one of them has such, else as integers. In a
    plane that only one of them has, each sample differs by full scale. The difference that is drawn
    brightest is the largest one, or full scale if `is_drawn` says that it is drawn elsewhere.
    """
    is_float = _is_float(previous) or _is_float(image)
    width, height = min(previous.width, image.width), min(previous.height, image.height)
    largest = np.empty((height, width), np.float32 if is_float else np.uint32)
    limits = (np.finfo(np.float32).tiny, LARGEST) if is_float else (0, np.iinfo(np.uint32).max)
    dtype = np.float64 if is_float else np.int64
    channels = max(_channel_count(previous, image), _channel_count(image, previous))
    cells = CellSums((width, height), channels, dtype)
    squares = 0.0
    for top, bottom in strips(width, height):
        box = (0, top, width, bottom)
        greatest = np.zeros((bottom - top, width), dtype)
        both = zip_longest(
            _deep_channels(previous.crop(box), image, dtype),
            _deep_channels(image.crop(box), previous, dtype),
        )
        for channel, (before, after) in enumerate(both):
            if before is None or after is None:
                difference = np.full_like(greatest, full_scale)
            else:
                with np.errstate(invalid="ignore"):  # infinity less infinity
                    difference = after - before
                if is_float:
                    difference[~(is_number(before) & is_number(after))] = 0
            if mask:
                difference[np.asarray(mask.crop(box)) > 0] = 0
            cells.put(channel, 0, top, sums_of_four_rows(difference, dtype))
            np.abs(difference, out=difference)
            np.maximum(greatest, difference, out=greatest)
            squares += float(np.square(difference, dtype=np.float64).sum())
        largest[top:bottom] = np.clip(greatest, *limits) * (greatest > 0)
    brightest = np.float64(full_scale if is_drawn else largest.max() or 1)
    drawn = np.empty((height, width), np.uint8)
    for top, bottom in strips(width, height):
        drawn[top:bottom] = np.ceil(np.minimum(largest[top:bottom] / brightest, 1) * 255)
    return Overlap(squares, cells, Image.fromarray(drawn))


def is_deep(image: AnyImage) -> bool:
    """Whether the image has planes, or more than 8 bits a sample."""
    return isinstance(image, Planes) or image.mode in (*DEEP, "F")


def deep_full_scale(previous: AnyImage, image: AnyImage) -> float:
    """The greatest difference that samples can have of images that `compare_deep` compares.

    That is 255 if both have 8 bits, else 65535; but of floating-point numbers, and of integers
    where it is more, the range of the values in both images.
    """
    is_float = _is_float(previous) or _is_float(image)
    lows, highs = [], []
    for either, other in ((previous, image), (image, previous)):
        if not is_float and _bits(either) <= 16:
            signed = isinstance(either, Planes) and either.dtype.kind == "i"
            lows.append(-(2.0 ** (_bits(either) - 1)) if signed else 0.0)
            highs.append(lows[-1] + 2.0 ** _bits(either) - 1)
            continue
        for top, bottom in strips(*either.size):
            part = either.crop((0, top, either.width, bottom))
            for channel in _deep_channels(part, other, np.float64):
                values = channel[is_number(channel)]
                lows.append(float(values.min(initial=math.inf)))
                highs.append(float(values.max(initial=-math.inf)))
    extent = max(highs) - min(lows)
    least = 255 if max(_bits(previous), _bits(image)) == 8 else 65535
    return extent or 1 if is_float else max(extent, least)


def numbers_in(image: AnyImage) -> NDArray[np.bool_] | None:
    """Which pixels have a number in any channel; None of an image without floating point."""
    if not _is_float(image):
        return None
    return reduce(np.logical_or, map(is_number, _deep_channels(image, image, np.float64)))


def _is_float(image: AnyImage) -> bool:
    return image.dtype.kind == "f" if isinstance(image, Planes) else image.mode == "F"


def _bits(image: AnyImage) -> int:
    """Of each sample."""
    if isinstance(image, Planes):
        return 8 * image.dtype.itemsize
    return {"I;16": 16, "I": 32, "F": 32}.get(image.mode, 8)


def _channel_count(image: AnyImage, other: AnyImage) -> int:
    """How many channels `_deep_channels` gives."""
    if isinstance(image, Planes):
        return len(image.planes)
    if isinstance(other, Planes):
        return 1 if len(other.planes) == 1 else len(image.getbands())
    return 1 if _is_grey(image, other) else 4


def _is_grey(image: Image.Image, other: Image.Image) -> bool:
    """Whether these are compared as grey numbers, without planes."""
    modes = {image.mode, other.mode}
    return "F" in modes or modes <= {*DEEP}


def _deep_channels(
    image: AnyImage, other: AnyImage, dtype: type[np.generic]
) -> Iterator[NDArray[Any]]:
    """The numbers of each channel, as they are compared with those of the other image."""
    if isinstance(image, Planes):
        yield from (plane.astype(dtype) for plane in image.planes)
    elif isinstance(other, Planes) and len(other.planes) > 1:
        # 255 of 8 bits is as bright as 65535 of 16 bits.
        scale = 257 if _bits(image) == 8 and _bits(other) == 16 else 1
        yield from (np.asarray(band, dtype) * scale for band in image.split())
    elif isinstance(other, Planes) or _is_grey(image, other):
        yield np.asarray(image if is_deep(image) else image.convert("L"), dtype)
    elif not is_deep(image):
        yield from (np.asarray(band, dtype) * 257 for band in image.convert("RGBA").split())
    else:
        grey = np.asarray(image, dtype)
        yield from (grey, grey, grey, np.full_like(grey, 65535))


def _channels(image: Image.Image, box: Box) -> list[NDArray[np.uint8]]:
    """The samples of each channel in a box. This is twice as fast as Pillow's `split`."""
    part = image if box == (0, 0, *image.size) else image.crop(box)
    contents = (part.tobytes("raw", band) for band in part.getbands())
    return [np.frombuffer(content, np.uint8).reshape(part.size[::-1]) for content in contents]


def _whole_cells(box: Box, width: int, height: int) -> Box:
    """The box, enlarged to the edges of the cells that it cuts, within the image."""
    left, top, right, bottom = box
    left, top = left - left % CELL, top - top % CELL
    right, bottom = right + -right % CELL, bottom + -bottom % CELL
    return left, top, min(right, width), min(bottom, height)
