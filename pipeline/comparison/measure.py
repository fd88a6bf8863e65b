"""Measure what differs between two images. The measures are exact, and any difference counts.

What is compared: all channels. Images of the same mode are compared in that mode; images of two
modes as RGB (RGBA if one has transparency); images of which one has floating-point numbers as grey
numbers, where NaN and infinity count as equal to anything. Images of different sizes are laid over
each other at the top left: where both have pixels is the overlap, and an unmatched pixel, which
only one of them has, differs by full scale. What a mask covers counts as equal.

The terms, from small to large:
- a sample is one channel's value of one pixel;
- a cell is 4 x 4 pixels;
- a block is 8 x 8 pixels, two by two cells, and begins in every fourth row and column;
- a strip is the rows that are compared at a time.

The block difference is what noise hardly moves and a new star does: the mean of the signed
differences in a block, without its sign, and of all blocks and channels the largest. What a block
has beyond the edge counts as equal. With a threshold, only pixels in blocks that reach the
threshold count as changed.
"""

import dataclasses
import math
from functools import reduce

import numpy as np
from PIL import Image

from pipeline.comparison.overlap import (
    Box,
    compare_8_bits,
    compare_deep,
    deep_full_scale,
    is_deep,
)
from pipeline.comparison.planes import DEEP, AnyImage, Planes
from pipeline.comparison.unmatched import changed_boxes, unmatched_parts, with_unmatched_parts
from pipeline.errors import InvalidInput
from pipeline.retrying import retrying
from pipeline.wording import percent_of


@dataclasses.dataclass(frozen=True)
class Change:
    """How one image differs from another."""

    l2_norm: float  # the root of the sum of the squared differences of all samples
    rms: float  # the root of their mean; in the samples' own unit
    block_difference: float  # in the samples' unit, too
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
        return percent_of(self.changed_share)


@dataclasses.dataclass(frozen=True)
class Rule:
    """A change is an event if its block difference reaches the threshold.

    An event is told as a changed scene if more than a share of the pixels has changed: a camera
    that goes to infrared, or adjusts its exposure, changes nearly all of them at the same time.
    """

    threshold: float = 0  # 0: any difference is an event
    mask: Image.Image | None = None  # 255 where differences are ignored
    mask_sha256: str | None = None  # of the mask's file
    scene_change: float | None = None  # the share of the pixels, 0 to 1; None: no scene changes

    def is_event(self, change: Change) -> bool:
        """Whether this change is an image event."""
        return change.block_difference >= self.threshold

    def is_scene_change(self, change: Change) -> bool:
        """Whether this change is so large that it is none of something in the scene."""
        return self.scene_change is not None and change.changed_share > self.scene_change

    def mask_warning(self, size: tuple[int, int]) -> str:
        """What to say if the mask has another size than the image; empty if it has the same."""
        if self.mask is None or self.mask.size == size:
            return ""
        sizes = "{} x {} pixels, and the image {} x {}".format(*self.mask.size, *size)
        return f"the mask has {sizes}: what it doesn't cover counts"


@retrying
def mask_of(image: AnyImage) -> Image.Image:
    """The mask that an image gives: mode L, 255 where the image is white.

    White is what is at least half as bright as the brightest place, and not transparent by half.
    Raises `InvalidInput` if the image has several planes, of which nothing says what is
    transparency.
    """
    if isinstance(image, Planes):
        if len(image.planes) > 1:
            raise InvalidInput("the mask has several planes; save it as a PNG of 8 bits")
        brightness = image.planes[0]
    elif image.mode in (*DEEP, "F"):
        brightness = np.asarray(image)
    else:
        brightness = reduce(np.maximum, map(np.asarray, image.convert("RGBA").split()[:3]))
        brightness = np.minimum(brightness, np.asarray(image.convert("RGBA").split()[3]))
    brightest = brightness.max(where=np.isfinite(brightness), initial=0)
    is_white = (brightness > 0) & (brightness >= brightest / 2)
    return Image.fromarray(is_white.astype(np.uint8) * 255)


@retrying
def compare(
    previous: AnyImage,
    image: AnyImage,
    mask: Image.Image | None = None,
    threshold: float = 0,
) -> Change | None:
    """How an image differs from the previous one; None if it doesn't.

    Where `mask` is 255, differences are ignored. If a block reaches the threshold, only pixels in
    such blocks count as changed.
    """
    if previous is image:
        return None
    parts = unmatched_parts(previous, image, mask)
    unmatched_pixels = sum(part.histogram()[255] for part in parts.values())
    if (
        isinstance(previous, Planes)
        or isinstance(image, Planes)
        or is_deep(previous)
        or is_deep(image)
    ):
        full_scale = deep_full_scale(previous, image)
        # Unmatched pixels are drawn brightest, and so full scale is, if there are any.
        overlap = compare_deep(previous, image, mask, full_scale, unmatched_pixels > 0)
    else:
        full_scale = 255
        overlap = compare_8_bits(previous, image, mask)
    if not overlap.squares and not unmatched_pixels and overlap.largest.getbbox() is None:
        return None

    largest = overlap.largest
    block_difference = full_scale if unmatched_pixels else overlap.cells.block_difference()
    if not unmatched_pixels and 0 < threshold <= block_difference:
        largest.paste(0, mask=overlap.cells.outside_blocks(threshold))
    channels = overlap.cells.channels
    squares = overlap.squares + unmatched_pixels * channels * full_scale**2
    pixels = previous.width * previous.height + image.width * image.height
    pixels -= largest.width * largest.height  # which both images have
    boxes = filter(None, [largest.getbbox(), *changed_boxes(parts)])
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return Change(
        l2_norm=math.sqrt(squares),
        rms=math.sqrt(squares / (pixels * channels)),
        block_difference=block_difference,
        changed_pixels=int(np.count_nonzero(np.asarray(largest))) + unmatched_pixels,
        pixels=pixels,
        box=(min(lefts), min(tops), max(rights), max(bottoms)),
        full_scale=full_scale,
        largest=with_unmatched_parts(largest, parts, image.size) if parts else largest,
    )
