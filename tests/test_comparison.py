"""What differs between two images, exactly, whatever their mode and size."""

import io
import zlib

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from comparison import MAX_PIXELS, compare, decode, draw
from pipeline import Unusable

MODES = ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "I;16", "I"]
RNG = np.random.default_rng(1)


def picture(mode: str, width: int = 40, height: int = 30) -> Image.Image:
    """An image of this mode, with something in it."""
    grey = RNG.integers(10, 240, (height, width), np.uint8)
    if mode in ("I;16", "I"):
        dtype = np.uint16 if mode == "I;16" else np.int32
        return Image.fromarray(grey.astype(dtype) * 257)
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


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "CMYK", "I;16"])
def test_the_measures_are_numpys(mode: str) -> None:
    """L2 norm, RMS and box are what numpy's arrays give."""
    first, second = picture(mode), picture(mode)
    change = compare(decode(file(first)), decode(file(second)))
    difference = samples(second) - samples(first)
    assert change is not None
    assert change.l2_norm == pytest.approx(np.linalg.norm(difference), rel=1e-12)
    assert change.rms == pytest.approx(np.sqrt(np.mean(difference**2)), rel=1e-12)
    changed = difference.reshape(30, 40, -1).any(axis=2)
    assert change.changed_pixels == changed.sum()


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
        (png(4, 4, 16, 2), "16-bit colour"),
        (png(4, 4, 8, 2), "damaged"),
        (file(Image.new("F", (4, 4))), "mode F"),
        (file(picture("RGB"), "JPEG")[:-200], "damaged"),
        (file(picture("RGB"), "PNG")[:-200], "damaged"),
    ],
)
def test_what_is_no_image_is_refused(content: bytes, reason: str) -> None:
    """With a reason, and before memory is spent on it."""
    with pytest.raises(Unusable, match=reason):
        decode(content)
