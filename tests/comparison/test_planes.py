"""Images of planes: what Pillow can't hold is compared as exactly as what it can."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline.comparison.draw import draw
from pipeline.comparison.measure import compare, mask_of
from pipeline.comparison.planes import AnyImage, Planes, image_of
from pipeline.errors import InvalidInput

RNG = np.random.default_rng(5)
KINDS = [
    *(np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.uint64, np.int64),
    *(np.float16, np.float32, np.float64, np.dtype(">u2"), np.dtype(">f8")),
]


def planes(count: int, kind: Any, height: int = 30, width: int = 41) -> list[NDArray[Any]]:
    """Planes with noise in them, over the type's whole range as far as it can be compared."""
    kind = np.dtype(kind)
    if kind.kind == "f":
        return [RNG.normal(0, 100, (height, width)).astype(kind) for _ in range(count)]
    limits = np.iinfo(kind)
    low, high = max(limits.min, -(2**53)) + 1, min(limits.max, 2**53) - 1
    return [RNG.integers(low, high, (height, width)).astype(kind) for _ in range(count)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_one_count_in_one_sample(count: int, kind: Any) -> None:
    """Is a change of one pixel, whose RMS goes by the samples of all planes."""
    before = planes(count, kind)
    for plane in range(count):
        after = [one.copy() for one in before]
        is_float = after[0].dtype.kind == "f"
        old = after[plane][7, 12]
        after[plane][7, 12] = np.nextafter(old, old.dtype.type(np.inf)) if is_float else old + 1
        step = float(after[plane][7, 12]) - float(old)
        change = compare(image_of(before, "a"), image_of(after, "a"))
        assert change is not None
        assert change.l2_norm == step > 0
        assert change.rms == pytest.approx(step / np.sqrt(30 * 41 * count), rel=1e-12)
        assert (change.box, change.changed_pixels) == ((12, 7, 13, 8), 1)
        assert change.block_difference == step / 64 <= change.full_scale
        assert draw(change)
    assert compare(image_of(before, "a"), image_of([one.copy() for one in before], "a")) is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("threshold", [0, 1e-9])
def test_the_measures_are_numpys(kind: Any, threshold: float) -> None:
    """RMS and changed pixels of noise are what numpy's arrays give, over several strips, too."""
    before, after = planes(4, kind, 400, 500), planes(4, kind, 400, 500)
    change = compare(image_of(before, "a"), image_of(after, "a"), threshold=threshold)
    difference = np.stack(after).astype(float) - np.stack(before).astype(float)
    assert change is not None
    assert change.rms == pytest.approx(np.sqrt(np.mean(difference**2)), rel=1e-9)
    assert change.changed_pixels == difference.any(axis=0).sum()


def test_changes_in_two_planes_are_united() -> None:
    """The changed pixels of all planes count once; the block difference is the largest plane's."""
    before = [np.full((40, 40), 100, np.uint16) for _ in range(3)]
    after = [plane.copy() for plane in before]
    after[0][8:16, 8:16] += 50
    after[2][8:16, 16:24] -= 80
    after[1][8:16, 8:16] += 20
    first, second = image_of(before, "a"), image_of(after, "a")
    change = compare(first, second)
    assert change is not None
    assert (change.box, change.changed_pixels) == ((8, 8, 24, 16), 128)
    assert (change.block_difference, change.full_scale) == (80, 65535)
    with_threshold = compare(first, second, threshold=60)
    assert with_threshold is not None
    assert (with_threshold.box, with_threshold.changed_pixels) == ((16, 8, 24, 16), 64)
    mask = Image.new("L", (40, 40))
    mask.paste(255, (8, 8, 24, 16))
    assert compare(first, second, mask) is None


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "CMYK", "I;16", "I", "F"])
def test_planes_after_another_kind_of_image(mode: str, count: int) -> None:
    """A plane that only one of them has differs by full scale in each pixel; nothing is silent."""
    pillow = Image.new(mode, (40, 30))
    other: AnyImage = Planes(planes(count, np.uint16, 30, 40))
    both = Planes(planes(count + 1, np.uint16, 30, 40))
    for first, second in ((pillow, other), (other, pillow), (other, both), (both, other)):
        change = compare(first, second)
        assert change is not None
        assert change.changed_share == pytest.approx(1, abs=0.01)
        assert 0 < change.block_difference <= change.full_scale
    change = compare(other, both)
    assert change is not None
    assert change.block_difference == 65535


def test_8_bits_and_16_bits_of_the_same_picture() -> None:
    """255 of 8 bits is 65535 of 16 bits, in colours, too."""
    colours = RNG.integers(0, 255, (30, 40, 3), np.uint8)
    deep = image_of([colours[:, :, k].astype(np.uint16) * 257 for k in range(3)], "a")
    assert compare(Image.fromarray(colours), deep) is None


def test_planes_of_another_size() -> None:
    """Pixels that only one of them has differ by full scale, unless they are no numbers."""
    small = [np.zeros((30, 40), np.float64) + k for k in range(2)]
    large = [np.pad(plane, [(0, 0), (0, 5)], "edge") for plane in small]
    change = compare(image_of(small, "a"), image_of(large, "a"))
    assert change is not None
    assert (change.box, change.changed_pixels) == ((40, 0, 45, 30), 150)
    for plane in large:
        plane[:, 40:] = np.nan
    assert compare(image_of(small, "a"), image_of(large, "a")) is None


def test_what_is_no_number_equals_anything() -> None:
    """So do NaN, infinity and what is beyond 32 bits of floating point, in its plane alone."""
    before = [np.ones((8, 8)) for _ in range(2)]
    after = [plane.copy() for plane in before]
    for column, value in enumerate((np.nan, np.inf, -np.inf, 1e300)):
        after[0][3, column] = value
    assert compare(image_of(before, "a"), image_of(after, "a")) is None
    after[1][3, 0] = 1 + 1e-15
    change = compare(image_of(before, "a"), image_of(after, "a"))
    assert change is not None
    assert change.changed_pixels == 1


def test_a_mask_of_planes() -> None:
    """Is refused: nothing says which of them are transparency, and all would be masked."""
    with pytest.raises(InvalidInput, match="save it as a PNG"):
        mask_of(image_of(planes(4, np.uint16), "a"))


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        ([np.full((2, 3), 2**60)], "integers beyond 53 bits"),
        ([np.full((2, 3), np.nan)] * 2, "no pixel with a value"),
        ([np.broadcast_to(np.uint8(0), (10_001, 10_000))], "more than 100,000,000 in all"),
        ([np.broadcast_to(np.uint16(0), (10_000, 10_000))] * 5, "5 x 10000 x 10000 samples of 16"),
    ],
)
def test_planes_that_are_refused(refused: list[NDArray[Any]], reason: str) -> None:
    """With the reason, before memory is spent on them."""
    with pytest.raises(InvalidInput, match=reason):
        image_of(refused, "a.tif")
