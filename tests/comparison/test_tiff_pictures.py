"""Of several pictures in a TIFF the main picture is compared; no TIFF takes more than it may."""

import resource
import struct
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tiff_writer import Page, tiff, tiff_of

from pipeline.comparison.damage import damage_of
from pipeline.comparison.decode import decode
from pipeline.comparison.measure import compare
from pipeline.comparison.planes import Planes
from pipeline.errors import InvalidInput
from pipeline.pictures.files import read_picture

RNG = np.random.default_rng(22)
REDUCED, MASK, DEPTHS = {254: [1]}, {254: [4]}, {254: [8]}


def grey(width: int, height: int, dtype: str = "u1") -> list[NDArray[Any]]:
    """A picture of one plane."""
    return [RNG.integers(0, 200, (height, width)).astype(dtype)]


SMALL, FULL, OTHER = grey(8, 6), grey(40, 30), grey(40, 30)
LARGE_MASK = grey(80, 60)
FILES = {  # the pages, the place of the main picture among all, and what is said
    "a single picture": ([Page(FULL)], ""),
    "the thumbnail first": ([Page(SMALL, more=REDUCED), Page(FULL)], " (picture 2 of 2 in it)"),
    "the thumbnail last": ([Page(FULL), Page(SMALL, more=REDUCED)], " (picture 1 of 2 in it)"),
    "the old way to say so": (
        [Page(SMALL, more={255: [2]}), Page(FULL)],
        " (picture 2 of 2 in it)",
    ),
    "a thumbnail that doesn't say so": ([Page(SMALL), Page(FULL)], " (picture 2 of 2 in it)"),
    "a large mask": ([Page(LARGE_MASK, more=MASK), Page(FULL)], " (picture 2 of 2 in it)"),
    "a mask by its colours": (
        [Page(LARGE_MASK, photometric=4), Page(FULL)],
        " (picture 2 of 2 in it)",
    ),
    "a map of depths": ([Page(LARGE_MASK, more=DEPTHS), Page(FULL)], " (picture 2 of 2 in it)"),
    "a large one that says it is reduced": (
        [Page(LARGE_MASK, more=REDUCED), Page(FULL)],
        " (picture 2 of 2 in it)",
    ),
    "equal pages": ([Page(FULL), Page(OTHER), Page(OTHER)], " (picture 1 of 3 in it)"),
    "a picture that belongs to its thumbnail, as in DNG": (
        [Page(SMALL, more=REDUCED, children=[Page(FULL)])],
        " (picture 2 of 2 in it)",
    ),
    "several that belong to a page": (
        [Page(SMALL, more=REDUCED, children=[Page(LARGE_MASK, more=REDUCED), Page(FULL)])],
        " (picture 3 of 3 in it)",
    ),
    "only reduced ones": (
        [Page(SMALL, more=REDUCED), Page(FULL, more=REDUCED)],
        " (picture 2 of 2 in it)",
    ),
}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("name", FILES)
def test_the_main_picture(name: str, order: str, tmp_path: Path) -> None:
    """Is found by what the pictures say of themselves and by size, and which it was is said."""
    pages, said = FILES[name]
    content = tiff_of(pages, order)
    image = decode(content)
    assert np.array_equal(np.asarray(image), FULL[0])
    path = tmp_path / "scan.tif"
    path.write_bytes(content)
    assert read_picture(str(path)).remark == f": scan.tif{said}"


def test_a_name_without_an_extension(tmp_path: Path) -> None:
    """Doesn't hide that it is a TIFF, also one that Pillow doesn't know."""
    (tmp_path / "scan").write_bytes(tiff([*FULL, *FULL, *FULL, *FULL, *FULL], extra=[0] * 4))
    assert read_picture(str(tmp_path / "scan")).extension == "tif"


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4", "f8"])
def test_a_new_star_behind_a_thumbnail(dtype: str) -> None:
    """Is an event of the full picture, by Pillow or by planes."""
    before = grey(40, 30, dtype)
    after = [before[0].copy()]
    after[0][10:18, 10:18] += 50
    first, second = (
        decode(tiff_of([Page(SMALL, more=REDUCED), Page(planes)])) for planes in (before, after)
    )
    change = compare(first, second)
    assert change is not None
    assert (change.box, change.changed_pixels) == ((10, 10, 18, 18), 64)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_planes_are_upright(orientation: int) -> None:
    """As the same picture is that Pillow turns."""
    plane = grey(40, 30, "u2")[0]
    more = {274: [orientation]}
    by_pillow = decode(tiff([plane], more=more))
    by_planes = decode(tiff([plane, plane], more=more))
    assert isinstance(by_planes, Planes)
    assert np.array_equal(np.asarray(by_pillow), by_planes.planes[0])


def bands(count: int, dtype: str, high: int = 200) -> list[NDArray[Any]]:
    """Planes of 40 x 30 pixels."""
    return [RNG.integers(0, high, (30, 40)).astype(dtype) for _ in range(count)]


ONE, DEEP, THREE, FIVE = bands(1, "u1"), bands(1, "u2"), bands(3, "u1"), bands(5, "u2")
TWO_OF_4_BITS, MANY = bands(2, "u1", 16), bands(300, "u1")
DOT = [np.array([[7]], np.uint16), np.array([[9]], np.uint16)]
MAY_BE_MISSING = (259, 266, 284, 317, 339)
ODD = {
    "samples of no format": (ONE, tiff(ONE, more={339: [4]})),
    "three samples of no format": (THREE, tiff(THREE, photometric=2, more={339: [4, 4, 4]})),
    "no count of samples": (THREE, tiff(THREE, photometric=2, missing=[277])),
    "bits of one sample for all": (THREE, tiff(THREE, photometric=2, more={258: [8]})),
    "format of one sample for all": (FIVE, tiff(FIVE, more={339: [1]})),
    "one sample, apart": (DEEP, tiff(DEEP, apart=True)),
    "no rows of a strip": (FIVE, tiff(FIVE, rows=30, missing=[278])),
    "endless rows of a strip": (FIVE, tiff(FIVE, rows=30, more={278: [2**32 - 1]})),
    "no lengths of strips": (FIVE, tiff(FIVE, missing=[279])),
    "no more than must be there": (ONE, tiff(ONE, missing=MAY_BE_MISSING)),
    "a predictor without compression": (FIVE, tiff(FIVE, more={317: [2]})),
    "a predictor with PackBits": (FIVE, tiff(FIVE, compression=32773, more={317: [2]})),
    "tiles of 24 x 8": (FIVE, tiff(FIVE, tile=(24, 8))),
    "a tile larger than the picture": (FIVE, tiff(FIVE, tile=(128, 64), compression=5)),
    "a pixel": (DOT, tiff(DOT)),
    "rows that end within a byte": (TWO_OF_4_BITS, tiff(TWO_OF_4_BITS, 4, ">", tile=(16, 16))),
    "300 bands": (MANY, tiff(MANY, extra=[0] * 299)),
    "300 bands apart": (MANY, tiff(MANY, extra=[0] * 299, apart=True, compression=8)),
    "extra samples that aren't counted": (FIVE, tiff(FIVE)),
    "four samples of RGB, of which none is extra": (FIVE[:4], tiff(FIVE[:4], photometric=2)),
    "an unknown interpretation": (ONE, tiff(ONE, photometric=32803)),
    "a palette that nothing needs": (DEEP, tiff(DEEP, photometric=1, more={320: [1, 2, 3]})),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_tiff(name: str) -> None:
    """Is read as libtiff reads it: what is missing has its usual value."""
    planes, content = ODD[name]
    image = decode(content)
    assert not damage_of(content)
    if isinstance(image, Planes):
        seen = np.stack(image.planes, axis=2)
    else:
        seen = np.asarray(image).reshape(*planes[0].shape, -1)
    assert np.array_equal(seen, np.stack(planes, axis=2))


def with_entry(tag: int, number: int, **how: Any) -> bytes:
    """A TIFF of five bands whose tag says another number."""
    content = bytearray(tiff([plane for _ in range(5) for plane in SMALL], extra=[0] * 4, **how))
    (at,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, at)
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        if struct.unpack_from("<H", content, entry) == (tag,):
            struct.pack_into("<HII", content, entry + 2, 4, 1, number)
    return bytes(content)


def many_pages(count: int) -> bytes:
    """A TIFF of pages that say their size and nothing else."""
    start, size = 8, 2 + 2 * 12 + 4
    pages = []
    for number in range(count):
        after = start + (number + 1) * size if number < count - 1 else 0
        entries = struct.pack("<HHIIHHII", 256, 4, 1, 8, 257, 4, 1, 6)
        pages.append(struct.pack("<H", 2) + entries + struct.pack("<I", after))
    return b"II*\0" + struct.pack("<I", start) + b"".join(pages)


PLAIN = tiff([plane for _ in range(5) for plane in SMALL], extra=[0] * 4)
LOOP = struct.pack("<4sIHHHIIHHIII", b"II*\0", 8, 2, 256, 4, 1, 8, 257, 4, 1, 6, 8)
HOSTILE = {
    "wide": (with_entry(256, 2**31), "more than 100,000,000"),
    "high": (with_entry(257, 2**32 - 1), "more than 100,000,000"),
    "without width": (with_entry(256, 0), "has no picture"),
    "many samples": (with_entry(277, 2**32 - 1), "more than 800 MB"),
    "ten thousand samples": (with_entry(277, 20_000), "more than 10,000 samples"),
    "no samples": (with_entry(277, 0), "damaged"),
    "bits": (with_entry(258, 2**31), "unsigned integers of 2147483648 bits"),
    "no bits": (with_entry(258, 0), "damaged"),
    "wide tiles": (with_entry(322, 2**31, tile=(16, 16)), "too large"),
    "high tiles": (with_entry(323, 2**31, tile=(16, 16)), "too large"),
    "no tiles": (with_entry(322, 0, tile=(16, 16)), "damaged"),
    "no rows in a strip": (with_entry(278, 0), "damaged"),
    "strips that are missing": (with_entry(278, 1), "damaged image: 1 of 6 strips"),
    "a strip beyond the end": (with_entry(273, 2**31), "damaged"),
    "a colour map that is missing": (tiff(SMALL, 8, photometric=3), "damaged"),
    "many pages": (many_pages(20_000), "more than 10,000 pictures"),
    "a page after itself": (LOOP, "damaged"),
    "many entries": (b"II*\0\x08\0\0\0\xff\xff" + bytes(2**20), "damaged"),
    "a directory beyond the end": (b"II*\0\xff\xff\xff\x7f", "damaged"),
    "nothing": (b"II*\0", "damaged"),
    "another beginning": (b"II\0*" + PLAIN[4:], "no image|damaged"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_tiff_that_asks_for_too_much(name: str) -> None:
    """Is refused at once, before memory is spent on it."""
    content, reason = HOSTILE[name]
    began, memory = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InvalidInput, match=reason):
        decode(content)
    assert time.monotonic() - began < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 200_000  # KiB


@pytest.mark.parametrize("bits", [8, 16])
def test_a_strip_that_unpacks_to_more_than_the_picture(bits: int) -> None:
    """Only what the picture needs is unpacked, in decoding and in looking for damage."""
    packer = zlib.compressobj()
    start = packer.compress(b"\0") + packer.flush(zlib.Z_FULL_FLUSH)
    zeros = packer.compress(bytes(2**24)) + packer.flush(zlib.Z_FULL_FLUSH)
    bomb = start + zeros * 512  # 8 GB
    planes = [np.zeros((6, 8), f"u{bits // 8}")] * 2
    content = bytearray(tiff(planes, extra=[0], compression=8, rows=6))
    (at,) = struct.unpack_from("<I", content, 4)
    for entry in range(at + 2, at + 2 + 12 * 12, 12):
        (tag,) = struct.unpack_from("<H", content, entry)
        if tag in (273, 279):
            struct.pack_into("<I", content, entry + 8, len(bomb) if tag == 279 else len(content))
    began = time.monotonic()
    decode(bytes(content) + bomb)
    damage_of(bytes(content) + bomb)
    assert time.monotonic() - began < 2


def test_a_tiff_that_is_cut() -> None:
    """Is refused with a reason wherever it ends."""
    for end in range(4, len(PLAIN), 7):
        with pytest.raises(InvalidInput, match="damaged"):
            decode(PLAIN[:end])
