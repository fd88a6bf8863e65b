"""How two images differ where both have pixels, by samples of 8 bits or of more."""

import math
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops

from pipeline.comparison.blocks import CellSums, sums_of_four_rows
from pipeline.comparison.decode import DEEP
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
    previous: Image.Image,
    image: Image.Image,
    mask: Image.Image | None,
    brightest: float | None,
) -> Overlap:
    """How images differ of which at least one has more than 8 bits a sample.

    Both are compared as floating-point numbers if one of them has such, else in steps of 16 bits.
    The difference that is drawn brightest is the largest one, unless `brightest` is given.
    """
    modes = {previous.mode, image.mode}
    is_float = "F" in modes
    is_grey = is_float or modes <= {*DEEP}
    width, height = min(previous.width, image.width), min(previous.height, image.height)
    largest = np.empty((height, width), np.float32 if is_float else np.uint32)
    limit = np.finfo(np.float32).max if is_float else np.iinfo(np.uint32).max
    dtype = np.float64 if is_float else np.int64
    cells = CellSums((width, height), 1 if is_grey else 4, dtype)
    squares = 0.0
    for top, bottom in strips(width, height):
        box = (0, top, width, bottom)
        before, after = (
            _deep_samples(part.crop(box), is_grey, dtype) for part in (previous, image)
        )
        with np.errstate(invalid="ignore"):  # infinity less infinity
            difference = after - before
        if is_float:
            difference[~np.isfinite(difference)] = 0
        if mask:
            difference[np.asarray(mask.crop(box)) > 0] = 0
        for channel in range(cells.channels):
            cells.put(channel, 0, top, sums_of_four_rows(difference[:, :, channel], dtype))
        np.abs(difference, out=difference)
        largest[top:bottom] = np.minimum(difference.max(axis=2), limit)
        squares += float(np.square(difference, dtype=np.float64).sum())
    brightest = np.float64(brightest or largest.max() or 1)
    drawn = np.empty((height, width), np.uint8)
    for top, bottom in strips(width, height):
        drawn[top:bottom] = np.ceil(np.minimum(largest[top:bottom] / brightest, 1) * 255)
    return Overlap(squares, cells, Image.fromarray(drawn))


def deep_full_scale(previous: Image.Image, image: Image.Image) -> float:
    """The greatest difference that samples of more than 8 bits can have.

    That is 65535; but of floating-point numbers, and of integers where it is more, the range of the
    values in both images.
    """
    is_float = "F" in (previous.mode, image.mode)
    lows, highs = [], []
    for either in (previous, image):
        if not is_float and either.mode != "I":
            lows.append(0.0)
            highs.append(65535.0)
            continue
        for top, bottom in strips(*either.size):
            values = _deep_samples(either.crop((0, top, either.width, bottom)), True, np.float64)
            values = values[np.isfinite(values)]
            lows.append(float(values.min(initial=math.inf)))
            highs.append(float(values.max(initial=-math.inf)))
    extent = max(highs) - min(lows)
    return extent or 1 if is_float else max(extent, 65535)


def _deep_samples(image: Image.Image, is_grey: bool, dtype: type) -> NDArray[Any]:
    """Rows x columns x 1 of grey numbers, or x 4 channels in which 65535 is full scale."""
    is_deep = image.mode in (*DEEP, "F")
    if is_grey:
        grey = image if is_deep else image.convert("L")
        return np.asarray(grey, dtype)[:, :, np.newaxis]
    if not is_deep:
        return np.asarray(image.convert("RGBA"), dtype) * 257
    grey_16: NDArray[Any] = np.asarray(image, dtype)[:, :, np.newaxis]
    return np.concatenate([grey_16, grey_16, grey_16, np.full_like(grey_16, 65535)], axis=2)


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
