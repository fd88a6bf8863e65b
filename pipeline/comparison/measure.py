"""What differs between two images: exact, and without files or Kafka.

Any difference counts, in any channel. Images of one mode are compared in that mode; of two modes,
as RGB (RGBA if one has transparency); with one of floating-point numbers, both as grey numbers, of
which NaN and infinity are none: nothing differs there. Sizes that differ are laid over each other
at the top left; where only one of the two has pixels, the difference is full scale. What a mask
covers is as if it were equal.

The block difference is what noise hardly moves and a new star does: of each block of 8 x 8 pixels
that begins in every fourth row and column, the mean of the signed differences, without its sign;
the largest of all blocks and channels. What a block has beyond the edge is as if it were equal.
With a threshold, only what is in the blocks that reach it counts as changed: noise doesn't.
"""

import dataclasses
import itertools
import math
import warnings
from collections.abc import Iterator
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops

from pipeline.comparison.decode import CELL, DEEP, MAX_PIXELS, strips
from pipeline.retrying import retrying

Box = tuple[int, int, int, int]  # left, top, right, bottom


# decode() looks at the size itself, before anything is decoded.
Image.MAX_IMAGE_PIXELS = None
# What decode() makes of a damaged file is said in its own words.
warnings.filterwarnings("ignore", module="PIL")
# Larger blocks of memory make decoding large images 1.75 times as fast.
Image.core.set_blocks_max(16)  # type: ignore[attr-defined]


@dataclasses.dataclass(frozen=True)
class Change:
    """How one image differs from another."""

    l2_norm: float  # the root of the sum of the squared differences of all samples
    rms: float  # the root of their mean; in the samples' own unit
    block_difference: float  # in that unit, too
    changed_pixels: int
    pixels: int
    box: Box  # around the changed pixels
    full_scale: float  # the greatest difference that two samples can have
    largest: Image.Image  # mode L: each pixel's largest difference; more than 0 if there is any

    @property
    def changed_share(self) -> float:
        """Changed pixels by all pixels, 0 to 1."""
        return self.changed_pixels / self.pixels

    @property
    def percent(self) -> str:
        """The changed share for people, never rounded to 0 %."""
        return f"{100 * self.changed_share:.3g} %"


class _Overlap(NamedTuple):
    """How two images differ where both have pixels."""

    squares: float  # the sum of the squared differences of all samples
    cells: NDArray[Any]  # channels x rows x columns: the sums of the signed differences
    largest: Image.Image  # as in `Change`


@retrying
def mask_of(image: Image.Image) -> Image.Image:
    """What an image says is to be ignored: 255 in mode L where it isn't black or transparent."""
    if image.mode in (*DEEP, "F"):
        is_ignored = np.asarray(image) != 0
    else:
        *colours, alpha = (np.asarray(band) for band in image.convert("RGBA").split())
        is_ignored = (reduce(np.maximum, colours) > 0) & (alpha > 0)
    return Image.fromarray(is_ignored.astype(np.uint8) * 255)


@retrying
def compare(
    previous: Image.Image,
    image: Image.Image,
    mask: Image.Image | None = None,
    threshold: float = 0,
) -> Change | None:
    """What differs between two decoded images; None if nothing does where `mask` isn't 255.

    If blocks reach the threshold, what counts as changed is in these.
    """
    if previous is image:
        return None
    is_plain = {previous.mode, image.mode}.isdisjoint({*DEEP, "F"})
    full_scale = 255 if is_plain else _full_scale(previous, image)
    beyond = _beyond(previous, image, mask)
    in_one_only = sum(one.histogram()[255] for one in beyond.values())
    # What is drawn has one scale: that of what only one has, if there is anything.
    scale = full_scale if in_one_only else None
    overlap = (
        _overlap(previous, image, mask) if is_plain else _overlap_deep(previous, image, mask, scale)
    )
    if not overlap.squares and not in_one_only:
        return None
    block_difference = full_scale if in_one_only else _block_difference(overlap.cells)
    if not in_one_only and 0 < threshold <= block_difference:
        overlap.largest.paste(0, mask=_beside_blocks(overlap, threshold))
    channels = len(overlap.cells)
    squares = overlap.squares + in_one_only * channels * full_scale**2
    width, height = overlap.largest.size
    pixels = sum(one.width * one.height for one in (previous, image)) - width * height
    boxes = [overlap.largest.getbbox()]
    for (left, top, *_), one in beyond.items():
        box = one.getbbox()
        boxes.append(box and (left + box[0], top + box[1], left + box[2], top + box[3]))
    lefts, tops, rights, bottoms = zip(*filter(None, boxes), strict=True)
    return Change(
        l2_norm=math.sqrt(squares),
        rms=math.sqrt(squares / (pixels * channels)),
        block_difference=block_difference,
        changed_pixels=int(np.count_nonzero(np.asarray(overlap.largest))) + in_one_only,
        pixels=pixels,
        box=(min(lefts), min(tops), max(rights), max(bottoms)),
        full_scale=full_scale,
        largest=_laid_over(overlap.largest, beyond, image.size) if beyond else overlap.largest,
    )


def _overlap(previous: Image.Image, image: Image.Image, mask: Image.Image | None) -> _Overlap:
    modes = {previous.mode, image.mode}
    mode = image.mode if len(modes) == 1 else "RGBA" if "RGBA" in modes else "RGB"
    width, height = min(previous.width, image.width), min(previous.height, image.height)
    largest = np.zeros((height, width), np.uint8)
    cells = _no_cells(width, height, Image.getmodebands(mode), np.int16)
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
        left, upper, right, lower = part = _in_cells(box, *before.size)
        channels = list(zip(_bands(before, part), _bands(after, part), strict=True))
        differences = [np.maximum(*both) - np.minimum(*both) for both in channels]
        largest[top + upper : top + lower, left:right] = reduce(np.maximum, differences)
        # In integers, so that the sum is exact: 65536 rows of 255 squared are less than 2**32.
        columns = [
            np.square(one, dtype=np.uint16).sum(axis=0, dtype=np.uint32) for one in differences
        ]
        squares += int(np.sum(columns, dtype=np.uint64))
        for into, (first, second) in zip(cells, channels, strict=True):
            rows = _in_fours(second, np.int16)
            rows -= _in_fours(first, np.int16)
            _put(into, left, top + upper, rows)
    return _Overlap(squares, cells, Image.fromarray(largest))


def _overlap_deep(
    previous: Image.Image, image: Image.Image, mask: Image.Image | None, scale: float | None
) -> _Overlap:
    """Where one image or both have more than 8 bits a sample: in units of 16 bits, or floats.

    `scale` is the greatest difference as it is drawn; none: the greatest that there is.
    """
    modes = {previous.mode, image.mode}
    is_float = "F" in modes
    are_numbers = is_float or modes <= {*DEEP}
    width, height = min(previous.width, image.width), min(previous.height, image.height)
    parts = strips(width, height)  # whole images of these samples would be large
    largest = np.empty((height, width), np.float32 if is_float else np.uint32)
    limit = np.finfo(np.float32).max if is_float else np.iinfo(np.uint32).max
    kind = np.float64 if is_float else np.int64
    cells = _no_cells(width, height, 1 if are_numbers else 4, kind)
    squares = 0.0
    for top, bottom in parts:
        box = (0, top, width, bottom)
        before, after = (_samples(one.crop(box), are_numbers, kind) for one in (previous, image))
        with np.errstate(invalid="ignore"):  # infinity less infinity
            difference = after - before
        if is_float:
            difference[~np.isfinite(difference)] = 0
        if mask:
            difference[np.asarray(mask.crop(box)) > 0] = 0
        for channel, into in enumerate(cells):
            _put(into, 0, top, _in_fours(difference[:, :, channel], kind))
        np.abs(difference, out=difference)
        largest[top:bottom] = np.minimum(difference.max(axis=2), limit)
        squares += float(np.square(difference, dtype=np.float64).sum())
    greatest = np.float64(scale or largest.max() or 1)
    scaled = np.empty((height, width), np.uint8)
    for top, bottom in parts:
        scaled[top:bottom] = np.ceil(np.minimum(largest[top:bottom] / greatest, 1) * 255)
    return _Overlap(squares, cells, Image.fromarray(scaled))


def _samples(image: Image.Image, are_numbers: bool, kind: type) -> NDArray[Any]:
    """H x W x 1 of numbers; or x 4 channels in which 65535 is full scale."""
    is_one_number = image.mode in (*DEEP, "F")
    if are_numbers:
        grey = image if is_one_number else image.convert("L")
        return np.asarray(grey, kind)[:, :, np.newaxis]
    if not is_one_number:
        return np.asarray(image.convert("RGBA"), kind) * 257
    grey_16: NDArray[Any] = np.asarray(image, kind)[:, :, np.newaxis]
    return np.concatenate([grey_16, grey_16, grey_16, np.full_like(grey_16, 65535)], axis=2)


def _full_scale(previous: Image.Image, image: Image.Image) -> float:
    """That of 16 bits; of floats, and where it is more, the range of both images' values."""
    is_float = "F" in (previous.mode, image.mode)
    lows, highs = [], []
    for one in (previous, image):
        if not is_float and one.mode != "I":
            lows.append(0.0)
            highs.append(65535.0)
            continue
        for top, bottom in strips(*one.size):
            values = _samples(one.crop((0, top, one.width, bottom)), True, np.float64)
            values = values[np.isfinite(values)]
            lows.append(float(values.min(initial=math.inf)))
            highs.append(float(values.max(initial=-math.inf)))
    extent = max(highs) - min(lows)
    return extent or 1 if is_float else max(extent, 65535)


def _beyond(
    previous: Image.Image, image: Image.Image, mask: Image.Image | None
) -> dict[Box, Image.Image]:
    """The parts that only one of two images has, of which the pixels that count are 255."""
    width, height = min(previous.width, image.width), min(previous.height, image.height)
    parts = {}
    for one in (previous, image):
        for box in ((width, 0, *one.size), (0, height, width, one.height)):
            size = box[2] - box[0], box[3] - box[1]
            if all(size):
                parts[box] = Image.new("L", size, 255)
                if mask:
                    parts[box].paste(0, mask=mask.crop(box))
                if one.mode == "F":
                    has_none = ~np.isfinite(np.asarray(one.crop(box)))
                    parts[box].paste(0, mask=Image.fromarray(has_none))
    return parts


def _laid_over(
    largest: Image.Image, beyond: dict[Box, Image.Image], size: tuple[int, int]
) -> Image.Image:
    """What both images have, and beside it what only one has; in the image's size if too large."""
    _, _, rights, bottoms = zip((0, 0, *largest.size), *beyond, strict=True)
    width, height = max(rights), max(bottoms)
    # As a strip and the same strip turned.
    canvas = Image.new("L", (width, height) if width * height <= MAX_PIXELS else size)
    canvas.paste(largest)
    for (left, top, *_), one in beyond.items():
        canvas.paste(one, (left, top))
    return canvas


def _bands(image: Image.Image, box: Box) -> list[NDArray[np.uint8]]:
    """Each channel of a part of the image; this is twice as fast as to split it."""
    part = image if box == (0, 0, *image.size) else image.crop(box)
    contents = (part.tobytes("raw", band) for band in part.getbands())
    return [np.frombuffer(one, np.uint8).reshape(part.height, part.width) for one in contents]


def _in_cells(box: Box, width: int, height: int) -> Box:
    """The box with all of the cells that it touches."""
    left, top, right, bottom = (
        side + (-side % CELL if is_end else -(side % CELL))
        for side, is_end in zip(box, (False, False, True, True), strict=True)
    )
    return left, top, min(right, width), min(bottom, height)


def _no_cells(width: int, height: int, channels: int, kind: type) -> NDArray[Any]:
    """Channels x rows x columns of cells that differ by nothing, one more at each edge."""
    return np.zeros((channels, -(-height // CELL) + 2, -(-width // CELL) + 2), kind)


def _in_fours(samples: NDArray[Any], kind: type) -> NDArray[Any]:
    """The sums of each four rows."""
    if len(samples) % CELL:
        samples = np.pad(samples, [(0, -len(samples) % CELL), (0, 0)])
    rows: NDArray[Any] = np.add(samples[0::CELL], samples[1::CELL], dtype=kind)
    rows += np.add(samples[2::CELL], samples[3::CELL], dtype=kind)
    return rows


def _put(cells: NDArray[Any], left: int, top: int, rows: NDArray[Any]) -> None:
    """Note the rows that `_in_fours` has made of what is here."""
    if rows.shape[1] % CELL:
        rows = np.pad(rows, [(0, 0), (0, -rows.shape[1] % CELL)])
    row, column = top // CELL + 1, left // CELL + 1
    pairs = rows[:, 0::2] + rows[:, 1::2]
    height, width = len(pairs), pairs.shape[1] // 2
    cells[row : row + height, column : column + width] = pairs[:, 0::2] + pairs[:, 1::2]


def _blocks(cells: NDArray[Any]) -> Iterator[tuple[int, NDArray[Any]]]:
    """The sums of two by two cells, in parts; where each begins."""
    for channel in cells:
        for top in range(0, len(channel) - 1, 256):
            part = channel[top : top + 257]
            pairs = part[1:] + part[:-1]
            yield top, pairs[:, 1:] + pairs[:, :-1]


def _block_difference(cells: NDArray[Any]) -> float:
    """The largest mean of two by two cells, without its sign."""
    largest = max(max(float(one.max()), -float(one.min())) for _, one in _blocks(cells))
    return largest / (2 * CELL) ** 2


def _beside_blocks(overlap: _Overlap, threshold: float) -> Image.Image:
    """Mode L: 255 where no block reaches the threshold."""
    is_beside = np.full(overlap.cells.shape[1:], True)
    for top, sums in _blocks(overlap.cells):
        reaches = np.abs(sums) >= threshold * (2 * CELL) ** 2
        height, width = reaches.shape
        for row, column in itertools.product((0, 1), (0, 1)):
            is_beside[top + row : top + row + height, column : column + width] &= ~reaches
    width, height = overlap.largest.size
    pixels = is_beside[1:-1, 1:-1].repeat(CELL, axis=0).repeat(CELL, axis=1)
    return Image.fromarray(pixels[:height, :width].astype(np.uint8) * 255)
