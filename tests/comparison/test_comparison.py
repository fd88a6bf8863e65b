"""What differs between two images, exactly, whatever their mode and size."""

import io
import zlib
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from numpy.typing import NDArray
from PIL import Image

from pipeline.comparison.decode import decode
from pipeline.comparison.draw import draw
from pipeline.comparison.measure import compare, mask_of
from pipeline.comparison.planes import MAX_PIXELS, Planes
from pipeline.errors import InvalidInput

MODES = ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "I;16", "I", "F"]
DTYPES: dict[str, type] = {"I;16": np.uint16, "I": np.int32, "F": np.float32}
RNG = np.random.default_rng(1)


def picture(mode: str, width: int = 40, height: int = 30) -> Image.Image:
    """An image of this mode, with something in it."""
    grey = RNG.integers(10, 240, (height, width), np.uint8)
    if mode in DTYPES:
        return Image.fromarray(grey.astype(DTYPES[mode]) * 257)
    colour = RNG.integers(10, 240, (height, width, 3), np.uint8)
    return Image.fromarray(colour).convert("RGBA" if mode == "PA" else "RGB").convert(mode)


def file(image: Image.Image, kind: str = "TIFF", **options: object) -> bytes:
    """The image as a file of a kind that keeps every mode."""
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def samples(image: Image.Image) -> NDArray[np.float64]:
    """All samples of an image, in its own mode."""
    return np.asarray(image).astype(float)


@pytest.mark.parametrize("mode", MODES)
def test_the_same_pixels_are_no_change(mode: str) -> None:
    """In other bytes, too."""
    image = picture(mode)
    assert compare(decode(file(image)), decode(file(image, compression="tiff_lzw"))) is None


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "CMYK", "I;16", "I"])
def test_one_step_in_one_sample_is_a_change(mode: str) -> None:
    """The least difference that there is, in any channel, is found and measured."""
    image = picture(mode)
    for channel in range(len(image.getbands())):
        changed = np.asarray(image).copy()
        where = (7, 12, channel) if changed.ndim == 3 else (7, 12)
        changed[where] ^= 1
        other = Image.fromarray(changed, mode) if mode == "CMYK" else Image.fromarray(changed)
        change = compare(decode(file(image)), decode(file(other)))
        assert change is not None
        assert change.l2_norm == 1
        assert change.box == (12, 7, 13, 8)
        assert change.changed_pixels == 1
        assert change.changed_share == 1 / (40 * 30)


def block_difference(difference: NDArray[np.float64]) -> float:
    """The definition, from the signed differences, rows x columns or rows x columns x channels."""
    height, width = difference.shape[:2]
    padded = np.zeros((height + 16, width + 16, *difference.shape[2:]))
    padded[8 : height + 8, 8 : width + 8] = difference
    means = [
        np.abs(padded[top : top + 8, left : left + 8].sum(axis=(0, 1)) / 64).max()
        for top in range(4, height + 8, 4)
        for left in range(4, width + 8, 4)
    ]
    return float(max(means))


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "CMYK", "I;16", "I", "F"])
@pytest.mark.parametrize("size", [(40, 30), (33, 41), (3, 5), (1, 1), (700, 310)])
def test_the_measures_are_numpys(mode: str, size: tuple[int, int]) -> None:
    """L2 norm, RMS, box and block difference are what numpy's arrays give."""
    first, second = picture(mode, *size), picture(mode, *size)
    change = compare(decode(file(first)), decode(file(second)))
    difference = samples(second) - samples(first)
    assert change is not None
    assert change.block_difference == pytest.approx(block_difference(difference), rel=1e-12)
    assert change.l2_norm == pytest.approx(np.linalg.norm(difference), rel=1e-12)
    assert change.rms == pytest.approx(np.sqrt(np.mean(difference**2)), rel=1e-12)
    changed = difference.reshape(size[1], size[0], -1).any(axis=2)
    assert change.changed_pixels == changed.sum()
    rows, columns = np.nonzero(changed)
    assert change.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


@pytest.mark.parametrize("mode", ["L", "RGB", "I;16", "F"])
def test_a_star_is_seen_wherever_it_is(mode: str) -> None:
    """A block has nearly all of its light, at any place in the image, also in a single channel."""
    rows, columns = np.mgrid[0:40, 0:48]
    for top, left in [(0, 0), (3, 3), (17, 20), (18, 22), (20, 23), (39, 47), (12, 11)]:
        distance = (rows - top) ** 2 + (columns - left) ** 2
        star = np.round(80 * np.exp(-distance / (2 * 1.27**2)))
        before = np.full((40, 48), 30.0)
        after = before + star
        if mode == "RGB":
            images = [
                Image.fromarray(np.dstack([before, one, before]).astype(np.uint8))
                for one in (before, after)
            ]
        else:
            kind = DTYPES.get(mode, np.uint8)
            images = [Image.fromarray(one.astype(kind)) for one in (before, after)]
        change = compare(images[0], images[1])
        assert change is not None
        assert change.block_difference > 0.9 * star.sum() / 64


@pytest.mark.parametrize("mode", ["L", "RGB", "I;16", "F"])
def test_with_a_threshold_noise_does_not_count(mode: str) -> None:
    """What changed is in the blocks that reach it; if none does, it is as without a threshold."""
    rng = np.random.default_rng(7)
    before, after = (np.round(rng.normal(100, 4, (61, 83))) for _ in range(2))
    after[41:44, 50:53] += 120
    after[60, 82] += 100  # one pixel is little of a block
    kind = DTYPES.get(mode, np.uint8)
    first, second = (
        Image.fromarray(
            np.dstack([before, one.clip(0, 255), before]).astype(np.uint8)
            if mode == "RGB"
            else one.clip(0, 255).astype(kind)
        )
        for one in (before, after)
    )
    plain, change = compare(first, second), compare(first, second, threshold=10)
    assert plain is not None
    assert change is not None
    assert plain.box == (0, 0, 83, 61)
    left, top, right, bottom = change.box
    assert 40 <= left <= 50
    assert 53 <= right <= 60
    assert 32 <= top <= 41
    assert 44 <= bottom <= 52
    seen = np.asarray(change.largest) > 0
    everywhere = np.asarray(plain.largest) > 0
    assert change.changed_pixels == seen.sum()
    assert (seen[top:bottom, left:right] <= everywhere[top:bottom, left:right]).all()
    assert seen[41:44, 50:53].all()
    assert (change.rms, change.block_difference) == (plain.rms, plain.block_difference)
    higher = compare(first, second, threshold=plain.block_difference + 1)
    assert higher is not None
    assert higher.box == plain.box


def test_with_a_threshold_and_another_size_that_is_masked() -> None:
    """What only one image has counts as little as the mask says, and noise doesn't count."""
    rng = np.random.default_rng(8)
    before, after = (rng.integers(90, 110, (size, 128)).astype(np.uint8) for size in (128, 130))
    after[41:46, 41:46] += 100
    covered = np.zeros((130, 128), bool)
    covered[128:] = True
    mask = mask_of(Image.fromarray(covered))
    change = compare(Image.fromarray(before), Image.fromarray(after), mask, threshold=10)
    assert change is not None
    assert change.changed_share < 0.05
    assert change.box[2] - change.box[0] <= 20


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK", "I;16", "F"])
def test_what_a_mask_covers_is_as_if_equal(mode: str) -> None:
    """All measures are those of images that are equal there; sizes may differ, of the mask, too."""
    before, after = picture(mode, 90, 70), picture(mode, 90, 70)
    covered = np.zeros((70, 90), bool)
    covered[10:33, :] = True
    covered[5, 7] = True
    masks = {
        size: mask_of(Image.fromarray(covered).crop((0, 0, *size)))
        for size in ((90, 70), (90, 40), (200, 90))
    }
    equal = np.asarray(after).copy()
    equal[covered] = np.asarray(before)[covered]
    expected = compare(before, Image.fromarray(equal, mode if mode == "CMYK" else None))
    assert expected is not None
    for mask in masks.values():
        change = compare(before, after, mask)
        assert change is not None
        assert np.array_equal(np.asarray(change.largest), np.asarray(expected.largest))
        assert (change.l2_norm, change.box) == (expected.l2_norm, expected.box)
        assert change.block_difference == expected.block_difference
        assert change.changed_pixels == expected.changed_pixels
    assert compare(before, after, Image.new("L", (90, 70), 255)) is None
    # Where only one of the two has pixels, those count that aren't covered.
    covering = Image.new("L", (90, 70))
    covering.paste(255, (0, 50, 89, 70))
    change = compare(before, before.crop((0, 0, 90, 50)), covering)
    assert change is not None
    assert (change.changed_pixels, change.box) == (20, (89, 50, 90, 70))
    covering.paste(255, (89, 50, 90, 70))
    assert compare(before, before.crop((0, 0, 90, 50)), covering) is None


@pytest.mark.parametrize("mode", MODES)
def test_a_mask_of_any_mode(mode: str) -> None:
    """What is white is ignored."""
    black = Image.new("L", (8, 4))
    black.paste(255, (2, 1, 5, 3))
    if mode in DTYPES:
        mask = Image.fromarray(np.asarray(black).astype(DTYPES[mode]))
    else:
        mask = black.convert("RGB").convert("RGBA" if mode == "PA" else "RGB").convert(mode)
    assert np.array_equal(np.asarray(mask_of(decode(file(mask)))), np.asarray(black))


@pytest.mark.parametrize("scale", [1, 0.01, 100])
def test_grey_in_a_mask(scale: float) -> None:
    """Grey counts as white from half of the brightest place on, whatever the samples' unit is."""
    shades = np.array([[0, 1, 60, 99, 100, 150, 200]], np.float32) * scale
    for kind in (np.uint8, np.int32, np.float32) if scale == 1 else (np.float32,):
        mask = mask_of(decode(file(Image.fromarray(shades.astype(kind)))))
        assert np.asarray(mask).tolist() == [[0, 0, 0, 0, 255, 255, 255]]


def test_a_mask_that_was_saved_as_jpeg() -> None:
    """What JPEG makes of the edges between black and white counts as what is nearer."""
    black = Image.new("L", (64, 64))
    black.paste(255, (13, 21, 45, 50))
    content = io.BytesIO()
    black.save(content, "JPEG", quality=75)
    assert np.array_equal(np.asarray(mask_of(decode(content.getvalue()))), np.asarray(black))


def test_a_black_mask() -> None:
    """It covers nothing."""
    assert mask_of(Image.new("L", (8, 8))).getbbox() is None


def test_a_transparent_part_of_a_mask_is_not_ignored() -> None:
    """As one draws it over a picture."""
    mask = Image.new("RGBA", (8, 4), (255, 255, 255, 0))
    mask.putpixel((3, 2), (255, 0, 0, 255))
    assert mask_of(mask).getbbox() == (3, 2, 4, 3)


def test_what_is_no_number_differs_by_nothing() -> None:
    """NaN and infinity, in either image, and where only one has pixels."""
    before = np.arange(100, dtype=np.float32).reshape(10, 10)
    after = before.copy()
    before[1, 1], before[2, 2], after[3, 3], after[4, 4] = np.nan, np.inf, -np.inf, np.nan
    before[5, 5] = after[5, 5] = np.inf
    assert compare(Image.fromarray(before), Image.fromarray(after)) is None
    after[6, 6] += 2
    change = compare(Image.fromarray(before), Image.fromarray(after))
    assert change is not None
    assert (change.l2_norm, change.box, change.full_scale) == (2, (6, 6, 7, 7), 99)
    assert change.block_difference == 2 / 64
    wider = np.pad(before, [(0, 0), (0, 2)], constant_values=np.nan)
    assert compare(Image.fromarray(before), Image.fromarray(wider)) is None
    wider[7, 11] = 1
    change = compare(Image.fromarray(before), Image.fromarray(wider))
    assert change is not None
    assert (change.changed_pixels, change.box) == (1, (11, 7, 12, 8))
    assert change.block_difference == change.full_scale == 99


@pytest.mark.parametrize("extreme", [3e38, 1e-45, 1.0])
def test_floats_of_any_size(extreme: float) -> None:
    """Neither the largest nor the least difference is lost, or breaks a measure."""
    before = np.zeros((9, 9), np.float32)
    after = before.copy()
    before[4, 4], after[4, 4], after[5, 5] = -extreme, extreme, np.float32(1e-45)
    change = compare(Image.fromarray(before), Image.fromarray(after))
    assert change is not None
    assert change.changed_pixels == 2
    assert np.isfinite([change.l2_norm, change.rms, change.block_difference]).all()
    assert Image.open(io.BytesIO(draw(change))).size == (9, 9)


def test_integers_of_32_bits() -> None:
    """Their full difference is measured, and full scale is their range."""
    before = np.zeros((9, 9), np.int32)
    after = before.copy()
    before[1, 1], after[1, 1] = -(2**31), 2**31 - 1
    change = compare(Image.fromarray(before), Image.fromarray(after))
    assert change is not None
    assert change.l2_norm == change.full_scale == 2**32 - 1
    assert change.block_difference == (2**32 - 1) / 64


@pytest.mark.parametrize("mode", ["L", "RGB", "I;16", "I"])
def test_floats_are_compared_with_others_as_numbers(mode: str) -> None:
    """The same numbers in another mode are no change; of colours, their grey counts."""
    other = picture("L").convert(mode) if mode not in DTYPES else picture(mode)
    grey = other if mode in DTYPES else other.convert("L")
    floats = Image.fromarray(np.asarray(grey).astype(np.float32))
    assert compare(floats, other) is None
    assert compare(other, Image.fromarray(np.asarray(floats) + np.float32(0.5))) is not None


def as_fits(samples: NDArray[Any], *more: Any, **header: object) -> bytes:
    """A FITS file with this first image."""
    content = io.BytesIO()
    first = fits.PrimaryHDU(samples)
    first.header.update(header)
    fits.HDUList([first, *more]).writeto(content, output_verify="ignore")
    return content.getvalue()


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        *(
            (np.uint8, "L"),
            (np.uint16, "I;16"),
            (np.int16, "I"),
            (np.int32, "I"),
            (np.int8, "planes"),
        ),
        *((np.uint32, "I"), (np.int64, "I"), (np.float32, "F"), (np.float64, "planes")),
    ],
)
def test_fits_of_any_type(kind: type, mode: str) -> None:
    """Its numbers are exact, whatever BZERO says, and its first row is the lowest."""
    values = np.arange(20).reshape(4, 5)
    if np.issubdtype(kind, np.signedinteger) or np.issubdtype(kind, np.floating):
        values = values - 7
    image = decode(as_fits(values.astype(kind)))
    assert image.mode == mode
    pixels = image.planes[0] if isinstance(image, Planes) else np.asarray(image)
    assert np.array_equal(pixels, values[::-1])
    one_axis_more = decode(as_fits(values.astype(kind)[np.newaxis]))
    assert compare(image, one_axis_more) is None


def test_fits_whose_image_comes_later_or_is_scaled() -> None:
    """The image may come after others; BSCALE, BZERO and BLANK are applied."""
    values = np.arange(20, dtype=np.int16).reshape(4, 5)
    table = fits.BinTableHDU.from_columns([fits.Column("a", "I", array=[1, 2])])
    cube = fits.ImageHDU(np.zeros((2, 3, 4)))
    later = as_fits(np.zeros(0), table, cube, fits.ImageHDU(values))
    assert np.array_equal(np.asarray(decode(later)), values[::-1])
    scaled = as_fits(values, BSCALE=0.5, BZERO=10.0, BLANK=3)
    expected = np.where(values == 3, np.nan, values * 0.5 + 10)[::-1]
    assert np.array_equal(np.asarray(decode(scaled)), expected, equal_nan=True)


def with_card(content: bytes, name: str, value: str) -> bytes:
    """A FITS file whose header says something else."""
    start = content.index(f"{name:8}=".encode())
    return content[:start] + f"{name:8}= {value:>20}".encode().ljust(80) + content[start + 80 :]


PLAIN_FITS = as_fits(np.arange(20, dtype=np.int16).reshape(4, 5))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (PLAIN_FITS[:2000], "damaged"),
        (PLAIN_FITS[:2890], "damaged"),
        (PLAIN_FITS[:9], "damaged"),
        (b"SIMPLE  =" + bytes(9000), "damaged"),
        (with_card(PLAIN_FITS, "NAXIS1", "100000000"), f"more than {MAX_PIXELS:,}"),
        (with_card(PLAIN_FITS, "NAXIS1", "-5"), "damaged|no image of two"),
        (with_card(PLAIN_FITS, "NAXIS1", "many"), "damaged"),
        (with_card(PLAIN_FITS, "NAXIS1", "6000"), "damaged"),
        (with_card(PLAIN_FITS, "NAXIS", "999"), "damaged|no image of two"),
        (with_card(PLAIN_FITS, "BITPIX", "17"), "damaged"),
        (as_fits(np.zeros(7)), "no image of two dimensions"),
        (as_fits(np.zeros((0, 4))), "no image of two dimensions"),
        (as_fits(np.full((3, 4), 2**60)), "integers beyond 53 bits"),
        (as_fits(np.full((3, 4), np.nan)), "no pixel with a value"),
        (as_fits(np.full((3, 4), 1e300)), "no pixel with a value"),
    ],
)
def test_fits_that_is_refused(content: bytes, reason: str) -> None:
    """With a reason, whatever its header says."""
    with pytest.raises(InvalidInput, match=reason):
        decode(content)


@pytest.mark.parametrize("mode", ["F", "I"])
def test_a_floating_image_is_compared_as_a_large_one(mode: str) -> None:
    """In parts, of which each is as the whole."""
    first, second = picture(mode, 700, 500), picture(mode, 700, 500)
    change = compare(first, second)
    difference = samples(second) - samples(first)
    assert change is not None
    assert change.l2_norm == pytest.approx(np.sqrt(np.square(difference).sum()), rel=1e-12)
    assert change.block_difference == pytest.approx(block_difference(difference), rel=1e-12)


@pytest.mark.parametrize("mode", ["L", "RGB", "I;16"])
@pytest.mark.parametrize("size", [(700, 500), (3, 70_000), (200_000, 2)])
def test_a_large_image_is_compared_as_a_small_one(mode: str, size: tuple[int, int]) -> None:
    """Pixel for pixel in each of the parts that it is compared in, and exact in sum."""
    first, second = picture(mode, *size), picture(mode, *size)
    change = compare(first, second)
    difference = samples(second) - samples(first)
    assert change is not None
    assert change.l2_norm == np.sqrt(np.square(difference).sum())
    largest = np.abs(difference).reshape(size[1], size[0], -1).max(axis=2)
    assert change.changed_pixels == np.count_nonzero(largest)
    if mode != "I;16":
        assert np.array_equal(np.asarray(change.largest), largest)
    last = second.copy()
    last.putpixel((size[0] - 1, size[1] - 1), 0)
    where = compare(second, last)
    assert where is not None
    assert where.box == (size[0] - 1, size[1] - 1, *size)


def test_another_palette_is_a_change() -> None:
    """Palette images are compared as they look: the same indices can be other colours."""
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    other = image.copy()
    other.putpalette([0, 0, 0, 10, 20, 31])
    shuffled = Image.new("P", (4, 4), 0)
    shuffled.putpalette([10, 20, 30, 0, 0, 0])
    assert compare(decode(file(image, "PNG")), decode(file(other, "PNG"))) is not None
    assert compare(decode(file(image, "PNG")), decode(file(shuffled, "PNG"))) is None


def test_colour_behind_full_transparency_counts() -> None:
    """Any difference is a change, seen or not."""
    image = Image.new("RGBA", (4, 4), (10, 20, 30, 0))
    other = Image.new("RGBA", (4, 4), (10, 20, 31, 0))
    assert compare(image, other) is not None


@pytest.mark.parametrize("first", MODES)
@pytest.mark.parametrize("second", MODES)
def test_any_two_modes_can_be_compared(first: str, second: str) -> None:
    """Of whatever modes two images are, the same size or not, they are compared and drawn."""
    change = compare(decode(file(picture(first))), decode(file(picture(second, 33, 41))))
    assert change is not None
    assert change.box == (0, 0, 40, 41)
    assert Image.open(io.BytesIO(draw(change))).size == (40, 41)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "I;16"])
def test_the_same_grey_in_two_modes_is_no_change(mode: str) -> None:
    """What looks the same is the same: 8-bit grey, in colour, or in 16 bits."""
    grey = picture("L")
    if mode == "I;16":
        other = Image.fromarray(np.asarray(grey, np.uint16) * 257)
    else:
        other = grey.convert(mode)
    assert compare(grey, decode(file(other))) is None
    if mode == "I;16":
        assert compare(grey.convert("RGB"), decode(file(other))) is None


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK", "I;16"])
def test_where_only_one_image_has_pixels_is_full_scale(mode: str) -> None:
    """Another size alone is a change: the part that came or went differs by full scale."""
    image = picture(mode)
    change = compare(image, image.crop((0, 0, 40, 29)))
    assert change is not None
    assert change.box == (0, 29, 40, 30)
    assert change.changed_pixels == 40
    full = 65535 if mode == "I;16" else 255
    assert change.l2_norm == pytest.approx(full * np.sqrt(40 * len(image.getbands())))
    turned = compare(image, image.transpose(Image.Transpose.ROTATE_90))
    assert turned is not None
    assert turned.pixels == 40 * 30 + 10 * 30  # no pixels in the corner that neither has
    assert turned.box == (0, 0, 40, 40)
    assert turned.largest.size == (40, 40)
    assert turned.largest.getpixel((39, 39)) == 0


def test_a_strip_and_the_same_strip_turned() -> None:
    """What they would cover together isn't paid for in memory, and the picture can be drawn."""
    strip = Image.new("L", (90_000, 2), 9)
    change = compare(strip, strip.transpose(Image.Transpose.ROTATE_90))
    assert change is not None
    assert change.box == (0, 0, 90_000, 90_000)
    assert change.changed_pixels == 2 * 90_000 * 2 - 2 * 4
    assert Image.open(io.BytesIO(draw(change))).format == "JPEG"


def test_images_are_compared_upright() -> None:
    """An orientation that EXIF says is heeded."""
    image = picture("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees clockwise to be upright
    turned = decode(file(image, "PNG", exif=exif))
    assert turned.size == (30, 40)
    assert compare(image.transpose(Image.Transpose.ROTATE_270), turned) is None


def test_the_faintest_change_stands_out() -> None:
    """One step in one pixel is bright on black, in a frame; the rest is black."""
    image = Image.new("RGB", (200, 200), (9, 9, 9))
    other = image.copy()
    other.putpixel((50, 60), (9, 10, 9))
    change = compare(image, other)
    assert change is not None
    drawn = np.asarray(Image.open(io.BytesIO(draw(change))).convert("L"), int)
    assert drawn[60, 50] > 150
    assert drawn[100:, 100:].max() < 10
    frame = drawn[50:71, 40:61].copy()
    frame[7:14, 7:14] = 0
    assert frame.max() > 80


def test_a_faint_part_of_a_strong_change_is_seen() -> None:
    """Beside a change of full scale, one of a single step is well above black."""
    image = Image.new("L", (200, 200))
    other = image.copy()
    other.paste(255, (0, 0, 100, 200))
    other.paste(1, (120, 0, 200, 200))
    change = compare(image, other)
    assert change is not None
    drawn = np.asarray(Image.open(io.BytesIO(draw(change))).convert("RGB"), int).max(axis=2)
    assert drawn[100, 160] > 60
    assert drawn[100, 110] < 10
    assert drawn[100, 50] > drawn[100, 160]


@pytest.mark.parametrize("size", [(1, 3_000_000), (1025, 1), (5, 4000)])
def test_a_narrow_image_is_drawn(size: tuple[int, int]) -> None:
    """In no more memory than it has pixels, however narrow it is."""
    change = compare(Image.new("L", size), Image.new("L", size, 9))
    assert change is not None
    drawn = Image.open(io.BytesIO(draw(change)))
    assert np.asarray(drawn.convert("L")).min() > 150


def test_a_single_pixel_of_a_large_image_is_seen() -> None:
    """The difference image has the images' size, and the faintest change is bright in its place."""
    image = Image.new("L", (3000, 2002))
    other = image.copy()
    other.putpixel((1501, 2001), 1)
    change = compare(image, other)
    assert change is not None
    picture = Image.open(io.BytesIO(draw(change)))
    assert picture.size == image.size
    drawn = np.asarray(picture.convert("L"), int)
    assert drawn[2001, 1501] > 150
    assert drawn[:1900].max() < 10


def test_a_uniform_change_is_drawn() -> None:
    """Every pixel changed alike: nothing to stretch, nothing divided by zero."""
    change = compare(Image.new("L", (20, 20), 100), Image.new("L", (20, 20), 103))
    assert change is not None
    assert np.asarray(Image.open(io.BytesIO(draw(change))).convert("L")).min() > 150


def png(width: int, height: int, depth: int, colour: int) -> bytes:
    """The beginning of a PNG file that says this of itself."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content).to_bytes(4, "big")
        return len(content).to_bytes(4, "big") + kind + content + check

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([depth, colour, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is no image of JPEG"),
        (b"rubbish", "is no image of JPEG"),
        (b"%PDF-1.4", "is no image of JPEG"),
        (png(100_000, 100_000, 8, 2), f"100000 x 100000 pixels, more than {MAX_PIXELS:,}"),
        (png(4, 4, 16, 2), "damaged"),
        (png(4, 4, 8, 2), "damaged"),
        (file(Image.new("F", (4, 4), float("nan"))), "no pixel with a value"),
        (file(picture("RGB"), "JPEG")[:-200], "damaged"),
        (file(picture("RGB"), "PNG")[:-200], "damaged"),
    ],
)
def test_what_is_no_image_is_refused(content: bytes, reason: str) -> None:
    """With a reason, and before memory is spent on it."""
    with pytest.raises(InvalidInput, match=reason):
        decode(content)
