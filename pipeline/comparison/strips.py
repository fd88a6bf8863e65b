"""Strips: an image is compared some rows at a time, so that they stay in the processor's cache."""

CELL = 4  # rows and columns of a cell; two by two cells are a block
STRIP_PIXELS = 2**17
MAX_STRIP_CELLS = 16384  # from top to bottom, for which sums of squares fit in 32 bits


def strips(width: int, height: int) -> list[tuple[int, int]]:
    """The top and the bottom of each strip of an image. No strip but the last cuts a cell."""
    rows = min(max(1, STRIP_PIXELS // width // CELL), MAX_STRIP_CELLS) * CELL
    return [(top, min(top + rows, height)) for top in range(0, height, rows)]
