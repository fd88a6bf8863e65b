"""A picture is whole when its format says so: every beginning of a file is known not to be."""

import io
import random
from collections.abc import Callable

import numpy as np
import pytest
from astropy.io import fits
from PIL import Image

from pipeline.pictures.whole import tells_its_end, what_is_missing

RNG = np.random.default_rng(3)
NOISE = RNG.integers(1, 255, (60, 80, 3), dtype=np.uint8)


def saved(image_format: str, mode: str = "RGB", **options: object) -> bytes:
    """A picture of noise in a format."""
    out = io.BytesIO()
    Image.fromarray(NOISE).convert(mode).save(out, image_format, **options)
    return out.getvalue()


def frames(image_format: str) -> bytes:
    """Two pictures of noise in a file."""
    other = Image.fromarray(NOISE[::-1].copy())
    return saved(image_format, save_all=True, append_images=[other])


def with_thumbnail() -> bytes:
    """A JPEG that has another JPEG, with an end of its own, in a segment before its samples."""
    whole, inside = saved("JPEG"), saved("JPEG", quality=20)
    segment = b"\xff\xe1" + (len(inside) + 2).to_bytes(2, "big") + inside
    return whole[:2] + segment + whole[2:]


def fits_parts(*parts: object) -> bytes:
    """A FITS file of these parts."""
    out = io.BytesIO()
    fits.HDUList(list(parts)).writeto(out)
    return out.getvalue()


def mosaic() -> bytes:
    """Three images of numbers, and a table behind them."""
    counts = RNG.normal(1000, 10, (33, 40)).astype(np.float32)
    table = fits.BinTableHDU.from_columns([fits.Column("a", "J", array=np.arange(7) + 1)])
    return fits_parts(fits.PrimaryHDU(), fits.ImageHDU(counts), fits.ImageHDU(counts), table)


PICTURES: dict[str, Callable[[], bytes]] = {
    "JPEG": lambda: saved("JPEG"),
    "progressive JPEG": lambda: saved("JPEG", progressive=True),
    "JPEG with restarts": lambda: saved("JPEG", restart_marker_blocks=3),
    "JPEG with a thumbnail": with_thumbnail,
    "CMYK JPEG": lambda: saved("JPEG", "CMYK"),
    "PNG": lambda: saved("PNG"),
    "GIF": lambda: saved("GIF"),
    "GIF of two frames": lambda: frames("GIF"),
    "WebP": lambda: saved("WEBP"),
    "WebP without loss": lambda: saved("WEBP", lossless=True),
    "BMP": lambda: saved("BMP"),
    "BMP with a palette": lambda: saved("BMP", "L"),
    "TIFF": lambda: saved("TIFF"),
    "compressed TIFF": lambda: saved("TIFF", compression="tiff_lzw"),
    "TIFF of two pages": lambda: frames("TIFF"),
    "BigTIFF": lambda: saved("TIFF", big_tiff=True),
    "FITS": lambda: fits_parts(fits.PrimaryHDU(NOISE[:, :, 0].astype(np.int16))),
    "FITS mosaic": mosaic,
    "compressed FITS": lambda: fits_parts(
        fits.PrimaryHDU(), fits.CompImageHDU(NOISE[:, :, 0].astype(np.int16))
    ),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_whole_picture_and_its_beginnings(name: str) -> None:
    """Nothing is missing of the whole file; of each beginning something is, and it says what.

    But where a FITS file's part or a TIFF's page ends, nothing tells that more will come.
    """
    content = PICTURES[name]()
    assert what_is_missing(content) is None
    assert what_is_missing(content + b"\r\nwritten behind it") is None
    seeming = 0
    lengths = {0, 1, 2, 3, 8, len(content) // 2, len(content) - 3000, len(content) - 2881}
    lengths |= set(
        random.Random(1).sample(range(max(0, len(content) - 3000), len(content) - 3), 300)
    )
    padding = 2880 if name.endswith(("FITS", "mosaic")) else 0
    for length in sorted(length for length in lengths if 0 <= length < len(content) - padding):
        if what_is_missing(content[:length]) is None:
            seeming += 1
    assert seeming == 0 or (not tells_its_end(content) and seeming < 3)


@pytest.mark.parametrize("name", PICTURES)
def test_a_file_that_was_given_its_size_first(name: str) -> None:
    """A file of full size whose second half is still zeros is waited for, in each format."""
    content = PICTURES[name]()
    half = len(content) // 2
    assert what_is_missing(content[:half] + bytes(len(content) - half))


def test_a_mosaic_between_two_parts() -> None:
    """The header of a part that has begun tells that the file goes on."""
    content = mosaic()
    part = content.index(b"XTENSION", 5000)
    assert what_is_missing(content[:part]) is None  # which is why FITS files rest longer
    assert not tells_its_end(content)
    for more in (1, 7, 80, 1000, 2880, 4000):
        assert what_is_missing(content[: part + more])


def test_any_bytes_are_judged() -> None:
    """Damaged files raise nothing and take no time, whatever stands in their headers."""
    chance = random.Random(2)
    for name, make in PICTURES.items():
        content = make()
        for _ in range(150):
            damaged = bytearray(content)
            for _ in range(chance.choice((1, 4, 30))):
                damaged[chance.randrange(min(len(damaged), 600))] = chance.randrange(256)
            assert what_is_missing(bytes(damaged)) != "", name
