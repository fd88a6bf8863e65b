"""Blocks of 8 x 8 pixels: the mean difference in each, which noise hardly moves.

A block begins in every fourth row and column, so blocks overlap. Each is two by two cells of 4 x 4
pixels, so the sum of a block is that of four cells, and only the sums of cells are stored.
"""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.comparison.strips import CELL

BLOCK_PIXELS = (2 * CELL) ** 2
ROWS_AT_A_TIME = 256  # of cells, so that they stay in the processor's cache


class CellSums:
    """The sum of the signed differences in each cell of an image, channel by channel.

    A row and a column of zeros on each side stand for what blocks have beyond the image's edges.
    """

    def __init__(self, size: tuple[int, int], channels: int, dtype: type) -> None:
        width, height = size
        self._size = size
        shape = (channels, -(-height // CELL) + 2, -(-width // CELL) + 2)
        self._sums: NDArray[Any] = np.zeros(shape, dtype)

    @property
    def channels(self) -> int:
        """How many channels were compared."""
        return len(self._sums)

    def put(self, channel: int, left: int, top: int, rows: NDArray[Any]) -> None:
        """Store the sums of the cells from this pixel on, made from the sums of each four rows."""
        if rows.shape[1] % CELL:
            rows = np.pad(rows, [(0, 0), (0, -rows.shape[1] % CELL)])
        row, column = top // CELL + 1, left // CELL + 1
        pairs = rows[:, 0::2] + rows[:, 1::2]
        height, width = len(pairs), pairs.shape[1] // 2
        sums = pairs[:, 0::2] + pairs[:, 1::2]
        self._sums[channel, row : row + height, column : column + width] = sums

    def block_difference(self) -> float:
        """The largest mean of all blocks and channels, without its sign."""
        largest = max(max(float(sums.max()), -float(sums.min())) for _, sums in self._blocks())
        return largest / BLOCK_PIXELS

    def outside_blocks(self, threshold: float) -> Image.Image:
        """An image in mode L that is 255 where no block reaches the threshold."""
        is_outside = np.full(self._sums.shape[1:], True)
        for top, sums in self._blocks():
            reaches = np.abs(sums) >= threshold * BLOCK_PIXELS
            height, width = reaches.shape
            for row, column in itertools.product((0, 1), (0, 1)):
                cells = np.s_[top + row : top + row + height, column : column + width]
                is_outside[cells] &= ~reaches
        width, height = self._size
        pixels = is_outside[1:-1, 1:-1].repeat(CELL, axis=0).repeat(CELL, axis=1)
        return Image.fromarray(pixels[:height, :width].astype(np.uint8) * 255)

    def _blocks(self) -> Iterator[tuple[int, NDArray[Any]]]:
        """The sums of blocks, some rows at a time, each time with the first row's number."""
        for channel in self._sums:
            for top in range(0, len(channel) - 1, ROWS_AT_A_TIME):
                part = channel[top : top + ROWS_AT_A_TIME + 1]
                pairs = part[1:] + part[:-1]
                yield top, pairs[:, 1:] + pairs[:, :-1]


def sums_of_four_rows(samples: NDArray[Any], dtype: type) -> NDArray[Any]:
    """The sums of each four rows of samples; rows that are missing at the end count as zeros."""
    if len(samples) % CELL:
        samples = np.pad(samples, [(0, -len(samples) % CELL), (0, 0)])
    rows: NDArray[Any] = np.add(samples[0::CELL], samples[1::CELL], dtype=dtype)
    rows += np.add(samples[2::CELL], samples[3::CELL], dtype=dtype)
    return rows
