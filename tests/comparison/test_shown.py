"""Pictures for browsers of images that no browser shows."""

import gzip
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from numpy.typing import NDArray
from PIL import Image
from tiff_writer import tiff

from pipeline.comparison.decode import decode
from pipeline.comparison.shown import draw_shown, look_at

SKY = np.random.default_rng(4).integers(900, 1100, (40, 60))


def cube(planes: NDArray[Any]) -> bytes:
    """A FITS file with planes."""
    return file(fits.PrimaryHDU(planes))


def packed_cube(planes: NDArray[Any]) -> bytes:
    """The same, packed by gzip."""
    return gzip.compress(cube(planes))


def file(*parts: Any) -> bytes:
    """A FITS file of these parts."""
    content = io.BytesIO()
    fits.HDUList(list(parts)).writeto(content)
    return content.getvalue()


def mosaic(planes: NDArray[Any]) -> bytes:
    """A FITS file with an image part for each plane, each compressed."""
    return file(fits.PrimaryHDU(), *(fits.CompImageHDU(plane) for plane in planes))


def shown(content: bytes, other: bytes | None = None) -> NDArray[Any]:
    """What a browser shows of an image, as rows, columns and colours."""
    drawn, media_type = draw_shown(content, other, "the file")
    assert media_type in ("image/jpeg", "image/png")
    return np.asarray(Image.open(io.BytesIO(drawn)).convert("RGB")).astype(int)


@pytest.mark.parametrize(
    ("make", "kind", "count"),
    [
        *((cube, kind, count) for kind in (np.int16, np.float32) for count in (1, 2, 3, 4, 7)),
        (packed_cube, np.int16, 4),
        (mosaic, np.int16, 2),
    ],
)
def test_a_change_in_any_plane_is_seen(
    make: Callable[[NDArray[Any]], bytes], kind: type, count: int
) -> None:
    """Whichever of its planes an image has changed in, its two pictures differ there alone."""
    planes: NDArray[Any] = np.stack([SKY + 10 * number for number in range(count)]).astype(kind)
    before = make(planes)
    for number in range(count):
        changed = planes.copy()
        changed[number, 10:18, 20:30] = 3000
        after = make(changed)
        both = shown(before, after), shown(after, before)
        assert both[0].shape == (40, 60, 3)
        # The lowest row of FITS comes first.
        difference = np.abs(both[0] - both[1]).max(axis=2)[::-1]
        assert difference[11:17, 21:29].min() > 60, number
        difference[5:23, 15:35] = 0  # with the JPEG's blocks around it
        assert difference.max() < 40, number
        assert look_at(after, "the file").media_type == ""
        assert look_at(after, "the file").fault == ""


@pytest.mark.parametrize("samples", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int8, np.float64])
def test_tiffs_of_all_kinds(samples: int, kind: type) -> None:
    """Each that is decoded has a picture of its size, alone and beside one of another kind."""
    colours = 3 if samples > 2 else 1
    content = tiff(
        [(SKY % 100).astype(kind)] * samples,
        photometric=2 if colours == 3 else 1,
        extra=[0] * (samples - colours),
    )
    image = decode(content)
    other = tiff([(SKY % 90).astype(np.uint16)[:30]] * 4, photometric=2, extra=[0])
    for beside in (None, other, b"no image"):
        assert shown(content, beside).shape == (image.height, image.width, 3)
