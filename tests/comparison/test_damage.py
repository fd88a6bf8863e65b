"""Damaged pictures that can be decoded: known where the format can tell, and nothing else is."""

import io
import re
import struct
from contextlib import suppress

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.comparison.damage import damage_of
from pipeline.comparison.decode import decode
from pipeline.errors import InvalidInput

SCENE = Image.effect_noise((160, 120), 60).convert("RGB")
SCENE.paste(Image.linear_gradient("L").resize((80, 120)), (40, 0))


STEADY = settings(deadline=None, derandomize=True)


def file(kind: str = "JPEG", mode: str = "RGB", **options: object) -> bytes:
    """The scene as a file."""
    content = io.BytesIO()
    SCENE.convert(mode).save(content, kind, **options)
    return content.getvalue()


JPEGS = {
    "baseline": file(quality=90),
    "progressive": file(quality=90, progressive=True),
    "restart markers": file(quality=90, restart_marker_rows=1),
    "grey": file(mode="L"),
    "CMYK": file(mode="CMYK"),
    "no subsampling": file(subsampling=0),
    "optimized": file(optimize=True, quality=60),
}


def is_refused(content: bytes) -> bool:
    """Whether receiving sets the file aside."""
    with suppress(InvalidInput):
        decode(content)
        return bool(damage_of(content))
    return True


def inside(content: bytes) -> int:
    """Where the pixels of a JPEG begin."""
    return content.index(b"\xff\xda") + 20


@pytest.mark.parametrize("kind", JPEGS)
@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.8])
def test_a_damaged_jpeg(kind: str, share: float) -> None:
    """At any place a hole, zeros, and an end too early are known."""
    content = JPEGS[kind]
    assert not is_refused(content)
    at = inside(content) + int(share * (len(content) - inside(content)))
    size = (len(content) - at) * 2 // 3
    assert is_refused(content[:at] + content[at + size :])
    assert is_refused(content[:at] + bytes(size) + content[at + size :])
    assert is_refused(content[:at] + b"\xff\xd9")
    assert is_refused(content[:at])


def test_what_is_said_of_a_damaged_jpeg() -> None:
    """In words for people, with what libjpeg heard."""
    content = JPEGS["baseline"]
    damage = damage_of(content[: len(content) // 2] + b"\xff\xd9")
    assert damage == (
        "bytes inside it are missing or wrong "
        "(libjpeg: Corrupt JPEG data: premature end of data segment)"
    )


def mpo() -> bytes:
    """Two pictures in one file, as cameras with two lenses or a preview write it."""
    content = io.BytesIO()
    SCENE.save(content, "MPO", save_all=True, append_images=[SCENE.rotate(180)])
    return content.getvalue()


def with_thumbnail() -> bytes:
    """A JPEG whose Exif has a JPEG inside."""
    small = io.BytesIO()
    SCENE.resize((16, 12)).save(small, "JPEG")
    return file(exif=b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0" + small.getvalue())


def sampled(factors: int) -> bytes:
    """A JPEG with other subsampling than libjpeg-turbo's own: its luma has these factors."""
    content = bytearray(file(mode="L"))
    frame = content.index(b"\xff\xc0")
    content[frame + 11] = factors
    return bytes(content)


BASELINE = JPEGS["baseline"]
HARMLESS = {
    "bytes after the end": BASELINE + b"any bytes" * 99,
    "another JPEG after the end": BASELINE + JPEGS["grey"][:500],
    "filling before the end": BASELINE[:-2] + b"\xff" * 9 + BASELINE[-2:],
    "padding before the end": BASELINE[:-2] + b"\1\2\3\4" + BASELINE[-2:],
    "padding before the markers": JPEGS["restart markers"].replace(
        b"\xff\xd1", b"\x55" * 4 + b"\xff\xd1"
    ),
    "stray bytes between segments": BASELINE[:20] + b"stray" * 99 + BASELINE[20:],
    "a stray marker between segments": BASELINE[:20] + b"\xff\xd0stray" + BASELINE[20:],
    "an unknown JFIF": BASELINE.replace(b"JFIF\0\1", b"JFIF\0\7"),
    "an unknown Adobe transform": file(mode="CMYK").replace(
        b"Adobe\0\x64\0\0\0\0\2", b"Adobe\0\x64\0\0\0\0\7"
    ),
    "a thumbnail": with_thumbnail(),
    "two pictures": mpo(),
    "a comment": file(comment=b"\xff\xd8\xff\xda\xff\xd9" * 9),
    "4:2:2": file(subsampling="4:2:2"),
    "4:4:0": simplejpeg.encode_jpeg(np.asarray(SCENE), colorsubsampling="440"),
    "4:1:1": simplejpeg.encode_jpeg(np.asarray(SCENE), colorsubsampling="411"),
    "odd factors of grey": sampled(0x31),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_a_jpeg_that_only_looks_odd(name: str) -> None:
    """What harms no pixel is no damage; after it, a hole is still known."""
    content = HARMLESS[name]
    assert not is_refused(content), damage_of(content)


@pytest.mark.parametrize("name", ["a comment", "an unknown JFIF", "stray bytes between segments"])
def test_a_damaged_jpeg_that_also_looks_odd(name: str) -> None:
    """A harmless warning hides no damage."""
    content = HARMLESS[name]
    assert is_refused(content[: len(content) * 2 // 3] + b"\xff\xd9")


OTHERS = {
    "PNG": file("PNG"),
    "PNG with a palette": file("PNG", "P"),
    "TIFF": file("TIFF"),
    "TIFF with LZW": file("TIFF", compression="tiff_lzw"),
    "TIFF with Deflate": file("TIFF", compression="tiff_adobe_deflate"),
    "TIFF with JPEG": file("TIFF", compression="jpeg"),
    "GIF": file("GIF", "P"),
    "BMP": file("BMP"),
    "WebP": file("WEBP"),
    "WebP without loss": file("WEBP", lossless=True),
}


@STEADY
@given(st.sampled_from(sorted(OTHERS)), st.floats(0.001, 0.999), st.integers(1, 3000))
def test_any_hole_and_any_end_too_early(kind: str, share: float, size: int) -> None:
    """Each format knows it, whatever is missing and wherever."""
    content = OTHERS[kind]
    at = int(share * len(content))
    assert is_refused(content[:at])
    if at + size < len(content):
        assert is_refused(content[:at] + content[at + size :]) or is_same(
            content[:at] + content[at + size :], content
        )


def is_same(content: bytes, other: bytes) -> bool:
    """Whether both files have the same pixels."""
    image, other_image = decode(content), decode(other)
    return np.array_equal(np.asarray(image), np.asarray(other_image))


@STEADY
@given(st.sampled_from(["PNG", "PNG with a palette"]), st.floats(0, 0.999), st.binary(min_size=1))
def test_any_other_bytes_in_a_png(kind: str, share: float, new: bytes) -> None:
    """A PNG has a checksum of each of its parts: other bytes are the same pixels, or known."""
    content = OTHERS[kind]
    at = int(share * len(content))
    changed = content[:at] + new + content[at + len(new) :]
    assert is_refused(changed) or is_same(changed, content)


@pytest.mark.parametrize("kind", ["TIFF with Deflate", "TIFF with JPEG"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_zeros_in_a_compressed_tiff(kind: str, share: float) -> None:
    """Known where the compression has a checksum, or is a JPEG."""
    content = OTHERS[kind]
    at = int(share * len(content))
    assert not is_refused(content)
    assert is_refused(content[:at] + bytes(2000) + content[at + 2000 :])


def sparse_tiff() -> bytes:
    """A TIFF without one of its strips."""
    content = bytearray(file("TIFF", "L", tiffinfo={278: 30}))
    places = dict(Image.open(io.BytesIO(content)).getexif())[273]
    table = content.index(struct.pack(f"<{len(places)}L", *places))
    content[table + 4 : table + 8] = bytes(4)
    return bytes(content)


ANIMATION = io.BytesIO()
SCENE.convert("P").save(ANIMATION, "GIF", save_all=True, append_images=[SCENE.rotate(9)])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (sparse_tiff(), "strip 2 of its page 1 is missing"),
        (OTHERS["PNG"][:-12], "its end is missing"),
        (ANIMATION.getvalue()[:-9000], "its end is missing"),
        (ANIMATION.getvalue()[:-9000] + bytes(9000), "a block should begin|its end is missing"),
    ],
)
def test_what_is_missing_beside_the_decoded_pixels(content: bytes, reason: str) -> None:
    """What can be decoded is damaged, too, if another part of it is missing."""
    decode(content)
    assert re.search(reason, damage_of(content))


@pytest.mark.parametrize("content", [b"\x89PNG", b"GIF8", b"RIFF", b"II", b"MM", b"\xff\xd8", b""])
@STEADY
@given(rest=st.binary(max_size=60))
def test_any_bytes(content: bytes, rest: bytes) -> None:
    """A verdict of any bytes comes at once, without an error."""
    assert isinstance(damage_of(content + rest), str)


@pytest.mark.parametrize("kind", ["TIFF with LZW", "WebP", "PNG"])
def test_what_is_said_of_what_cannot_be_decoded(kind: str) -> None:
    """Words for people, whatever the decoder says."""
    content = bytearray(OTHERS[kind])
    content[len(content) // 4 : len(content) // 2] = bytes(len(content) // 4)
    with pytest.raises(InvalidInput, match=r"^x is a damaged image: ") as found:
        decode(bytes(content[: len(content) // 2]), "x")
    assert not re.search("error|decoder|object|buffer|None|b'", str(found.value))


@pytest.mark.parametrize("content", [OTHERS["PNG"][:30], OTHERS["TIFF"][:-9], OTHERS["GIF"][:9]])
def test_what_is_cut_in_its_header_is_called_damaged(content: bytes) -> None:
    """It is an image of these formats, and a part of it is missing."""
    with pytest.raises(InvalidInput, match="is a damaged image"):
        decode(content)


@pytest.mark.parametrize("frame", [0xC3, 0xC7, 0xCB])
@pytest.mark.parametrize("is_hidden", [False, True])
def test_a_lossless_jpeg_is_not_asked_for_a_smaller_picture(
    monkeypatch: pytest.MonkeyPatch, frame: int, is_hidden: bool
) -> None:
    """Libjpeg would write the whole picture into its memory, also if the frame is well hidden."""

    def never(*_arguments: object, **_options: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(simplejpeg, "decode_jpeg", never)
    begun = bytes([0xFF, frame, 0, 11, 8, 0, 8, 0, 8, 1, 1, 0x11, 0])
    if is_hidden:  # behind a marker that has no length for libjpeg
        begun = b"\xff\xd0\x00\x0f" + begun
    whole = file("JPEG")
    assert damage_of(b"\xff\xd8" + begun + whole[2:]) == ""
