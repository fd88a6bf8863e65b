"""FITS: compressed files, the parts that are compared, and what can't be read, by its reason."""

import gzip
import io
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.comparison import fits as our_fits
from pipeline.comparison.damage import damage_of
from pipeline.comparison.decode import decode
from pipeline.comparison.fits import parts_left_out
from pipeline.comparison.measure import compare
from pipeline.comparison.planes import Planes
from pipeline.errors import InvalidInput

RNG = np.random.default_rng(1)
SKY = RNG.normal(1000, 10, (64, 96)).astype(np.int16)
MASK = (SKY > 1020).astype(np.uint8)


def file(*parts: Any, checksum: bool = False) -> bytes:
    """A FITS file of these parts, after a first one without pixels."""
    content = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), *parts]).writeto(content, checksum=checksum)
    return content.getvalue()


def image(samples: NDArray[Any], name: str = "") -> Any:
    """An image part."""
    return fits.ImageHDU(samples, name=name or None)


def packed(samples: NDArray[Any], kind: str = "RICE_1", **options: Any) -> Any:
    """A compressed image part, as fpack makes it."""
    return fits.CompImageHDU(samples, compression_type=kind, **options)


def planes(content: bytes) -> list[NDArray[Any]]:
    """The planes that are compared, the lowest row first as in the file."""
    found = decode(content)
    arrays = found.planes if isinstance(found, Planes) else [np.asarray(found)]
    return [array[::-1] for array in arrays]


def is_refused(content: bytes) -> bool:
    """Whether receiving sets the file aside."""
    with suppress(InvalidInput):
        if not damage_of(content):
            decode(content)
            return False
    return True


@pytest.mark.parametrize(
    ("kind", "samples"),
    [
        *(("RICE_1", SKY), ("HCOMPRESS_1", SKY), ("GZIP_1", MASK), ("PLIO_1", MASK)),
        *(("RICE_1", SKY.astype(np.int32) * 999), ("RICE_1", SKY.astype(np.uint16) + 40000)),
        ("GZIP_2", SKY.astype(np.uint32) + 3 * 10**9),
    ],
)
def test_a_compressed_image_is_as_the_plain_one(kind: str, samples: NDArray[Any]) -> None:
    """By any compression without loss, each sample."""
    content = file(packed(samples, kind))
    assert compare(decode(content), decode(file(image(samples)))) is None
    assert damage_of(content) == parts_left_out(content) == ""


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_compressed_floating_point(kind: type) -> None:
    """Without loss as it was, NaN as well; with loss as the file says."""
    samples: NDArray[Any] = (SKY / 7).astype(kind)
    samples[3, 5] = np.nan
    content = file(packed(samples, "GZIP_2", quantize_level=0))
    assert np.array_equal(planes(content)[0], samples, equal_nan=True)
    rounded = planes(file(packed(samples, "RICE_1", quantize_level=16)))[0]
    assert np.nanmax(np.abs(rounded - samples)) < 1
    assert np.isnan(rounded[3, 5])


def test_a_gzipped_file() -> None:
    """Is as the file inside; also if it was compressed piece by piece."""
    content = file(image(SKY))
    pieces = gzip.compress(content[:5000]) + gzip.compress(content[5000:])
    for compressed in (gzip.compress(content), pieces):
        assert compare(decode(compressed), decode(content)) is None
        assert not damage_of(compressed)


CCDS = [SKY + number for number in range(4)]


@pytest.mark.parametrize(
    ("parts", "compared", "left_out"),
    [
        ([image(SKY)], [SKY], ""),
        ([packed(MASK), image(SKY)], [SKY], "not compared: part 1 (COMPRESSED_IMAGE, 96 x 64)"),
        ([image(SKY), image(SKY[:9, :9])], [SKY], "not compared: part 2 (9 x 9)"),
        ([image(SKY[:9, :9]), image(SKY)], [SKY], "not compared: part 1 (9 x 9)"),
        ([image(ccd) for ccd in CCDS], CCDS, "4 parts of 96 x 64"),
        ([packed(ccd) for ccd in CCDS], CCDS, "4 parts of 96 x 64"),
        (
            [image(SKY), image(SKY / 9, "WHT"), image(SKY * 2, "CCD1_MASK")],
            [SKY],
            "not compared: part 2 (WHT, 96 x 64), 3 (CCD1_MASK, 96 x 64)",
        ),
        (
            [image(np.zeros((99, 99)), "CON"), image(SKY, "SCI"), image(SKY / 9, "ERR")],
            [SKY],
            "not compared: part 1 (CON, 99 x 99), 3 (ERR, 96 x 64)",
        ),
        (
            [image(SKY, "SCI"), image(SKY, "DQ"), image(SKY + 1, "SCI"), image(SKY)],
            [SKY, SKY + 1],
            "2 parts of 96 x 64; not compared: part 2 (DQ, 96 x 64), 4 (96 x 64)",
        ),
        ([image(SKY, "WEIGHT")], [SKY], ""),
        ([image(np.array([SKY, SKY + 1, SKY + 2]))], [SKY, SKY + 1, SKY + 2], ""),
        (
            [fits.BinTableHDU.from_columns([fits.Column("a", "I", array=[1])]), image(SKY)],
            [SKY],
            "",
        ),
    ],
)
def test_which_parts_are_compared(
    parts: Sequence[Any], compared: list[NDArray[Any]], left_out: str
) -> None:
    """The pictures: all that are equal, and no weights, errors, or masks; the others are named."""
    content = file(*parts)
    assert np.array_equal(planes(content), compared)
    assert parts_left_out(content) == left_out


@pytest.mark.parametrize(("make", "number"), [*((image, n) for n in range(4)), (packed, 2)])
def test_a_star_in_any_part_of_a_mosaic(make: Any, number: int) -> None:
    """It is found, whichever of the CCDs it is in."""
    with_star = [ccd.copy() for ccd in CCDS]
    with_star[number][30:36, 40:46] += 500
    before, after = (decode(file(*map(make, ccds))) for ccds in (CCDS, with_star))
    change = compare(before, after)
    assert change is not None
    assert change.box == (40, 64 - 36, 46, 64 - 30)


PLAIN = file(image(SKY), image(SKY + 1))
PACKED = file(packed(SKY))


def with_card(content: bytes, name: str, value: str) -> bytes:
    """A FITS file whose last header with such a card says something else."""
    start = content.rindex(f"{name:8}=".encode())
    return content[:start] + f"{name:8}= {value:>20}".encode().ljust(80) + content[start + 80 :]


GZIPPED_BOMB = gzip.compress(b"SIMPLE  =") + 2**8 * gzip.compress(bytes(2**20))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (gzip.compress(PLAIN)[:-4000], "is a damaged image: its gzip data are cut"),
        (gzip.compress(PLAIN)[:-8] + bytes(8), r"is a damaged image: gzip can't unpack it"),
        (gzip.compress(b"no FITS", mtime=0), "no FITS is inside; unpack it with gunzip"),
        (GZIPPED_BOMB, "has more than 268435456 b"),
        (with_card(PACKED, "ZNAXIS1", "100000000"), "100000000 x 64 pixels, more than 100,000,000"),
        (with_card(PACKED, "ZNAXIS1", "-1"), "its part 1 can't have -1 x 64 samples of 16"),
        (with_card(PACKED, "ZNAXIS1", "'many'"), "can't have many x 64 samples"),
        (with_card(PACKED, "ZNAXIS", "3"), "a header in it is cut or makes no sense"),
        (with_card(PACKED, "ZCMPTYPE", "'FOO'"), "its compressed part can't be unpacked"),
        (with_card(PACKED, "ZBITPIX", "17"), "can't have 96 x 64 samples of 17"),
        (with_card(PLAIN, "NAXIS1", "-5"), "is a damaged image|has no image"),
        (with_card(PLAIN, "BITPIX", "17"), "its part 2 can't have 96 x 64 samples of 17"),
        (PLAIN[:-9000], r"its part 2 ends at byte \d+ of \d+"),
        (file(), "has no image of two dimensions"),
        (file(image(np.zeros(9))), "has no image of two dimensions"),
        (file(*[image(SKY[:1, :2])] * 1001), "has more than 1000 parts"),
        (file(image(np.full((3, 4), np.nan))), "has no pixel with a value"),
        (file(image(np.full((3, 4), 2**63, np.uint64))), "integers beyond 53 bits"),
    ],
)
def test_what_cannot_be_read(content: bytes, reason: str) -> None:
    """By its true reason, for people, and never by an error of Python."""
    with pytest.raises(InvalidInput, match=f"^x.fits .*{reason}") as found:
        decode(content, "x.fits")
    assert not re.search("object|attribute|Error|None|index|array", str(found.value))


def test_a_file_that_crashes_what_unpacks_it() -> None:
    """The stage goes on, since the C code runs in another program."""
    tiles = file(packed(SKY, "HCOMPRESS_1", tile_shape=(16, 96)))
    with pytest.raises(InvalidInput, match="its compressed part can't be unpacked"):
        decode(with_card(tiles, "ZNAXIS1", "46"))


def test_an_image_that_takes_too_long_to_unpack(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is set aside."""
    monkeypatch.setattr(our_fits, "WAIT_SECONDS", 0.01)
    with pytest.raises(InvalidInput, match=r"can't be unpacked in 0.01 s"):
        decode(PACKED)


@pytest.mark.parametrize("kind", ["plain", "packed", "gzipped"])
@given(share=st.floats(0, 0.999), new=st.binary(min_size=1, max_size=99))
@settings(deadline=None, derandomize=True, max_examples=40)
def test_a_file_with_checksums(kind: str, share: float, new: bytes) -> None:
    """Other bytes, anywhere, are known or harm no pixel."""
    content = CHECKED[kind]
    assert not damage_of(content)
    at = int(share * len(content))
    changed = content[:at] + new + content[at + len(new) :]
    assert is_refused(changed) or np.array_equal(planes(changed), [SKY])


CHECKED = {
    "plain": file(image(SKY), checksum=True),
    "packed": file(packed(SKY), checksum=True),
    "gzipped": gzip.compress(file(image(SKY))),
}


def test_what_is_said_of_a_wrong_checksum() -> None:
    """In words for people; decoding doesn't mind, so that --accept-damaged can take it."""
    content = CHECKED["plain"]
    at = len(content) - 9000
    changed = content[:at] + bytes(9) + content[at + 9 :]
    decode(changed)
    assert damage_of(changed) == "the data of its part 1 don't have its DATASUM"
    edited = content.replace(b"EXTEND  ", b"EXTENT  ")
    assert damage_of(edited) == "its part 0 doesn't have its CHECKSUM"


HOLED = {"plain": PLAIN, "packed": PACKED, "with a mask": file(image(SKY), image(MASK, "DQ"))}


@pytest.mark.parametrize("kind", HOLED)
@given(share=st.floats(0.01, 0.999), size=st.integers(1, 3000))
@settings(deadline=None, derandomize=True, max_examples=20)
def test_any_hole_and_any_end_too_early(kind: str, share: float, size: int) -> None:
    """It is known by the sizes, also if the part that is compared is whole."""
    content = HOLED[kind]
    at = int(share * len(content))
    assert is_refused(content[:at])
    assert is_refused(content[:at] + content[at + size :])


@given(st.data())
@settings(deadline=None, derandomize=True, max_examples=8)
def test_any_damaged_compressed_image(data: st.DataObject) -> None:
    """It is an image, or refused; whatever the C code makes of it, nothing else happens."""
    kind = data.draw(st.sampled_from(["RICE_1", "GZIP_1", "GZIP_2", "HCOMPRESS_1", "PLIO_1"]))
    content = bytearray(file(packed(MASK, kind)))
    for at in data.draw(st.lists(st.integers(2880, len(content) - 1), max_size=30)):
        content[at] = data.draw(st.integers(0, 255))
    with suppress(InvalidInput):
        decode(bytes(content))
