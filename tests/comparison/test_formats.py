"""What is in a file is what is compared, or the file is set aside by its true reason.

Each cell of the tables in docs/formats.md is a test: two files that differ by one count in one
sample are an event with the right RMS, or are set aside with the words of the table.
"""

import base64
import io
import itertools
import struct
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tiff_writer import tiff

from pipeline.comparison.damage import damage_of
from pipeline.comparison.decode import decode
from pipeline.comparison.measure import compare
from pipeline.errors import InvalidInput

HEIGHT, WIDTH = 21, 19
WHERE = (13, 7)  # of the pixel that changes
EXACT, SPREAD, AS_RGBA, COLOURS, DECODED = (
    *("exact", "exact, spread to 0 to 255", "exact, as RGBA", "its colours"),
    "as it is decoded",
)
Samples = NDArray[Any]


class Pair(NamedTuple):
    """Two files, and what is compared of each, as rows x columns x channels."""

    files: tuple[bytes, bytes]
    samples: tuple[Samples, Samples] | None = None  # None: set aside


def pair(
    first: Samples,
    write: Callable[[Samples], bytes],
    see: Callable[[Samples], Samples] | None,
    channel: int,
    step: int = 1,
) -> Pair:
    """The files of samples, and of the same with one count more in a sample of this channel."""
    second = first.copy()
    old = first[*WHERE, channel]
    is_float = first.dtype.kind == "f"
    second[*WHERE, channel] = (
        np.nextafter(old, old.dtype.type(np.inf)) if is_float else int(old) + step
    )
    seen = (see(first), see(second)) if see else None
    return Pair((write(first), write(second)), seen)


def check(outcome: str, pair: Pair) -> None:
    """The pair has the outcome that the table promises, and no file is taken for damaged."""
    if outcome.startswith("set aside: "):
        for content in pair.files:
            with pytest.raises(InvalidInput, match=outcome.removeprefix("set aside: ")):
                decode(content, "a")
        return
    assert [damage_of(content) for content in pair.files] == ["", ""]
    first, again, second = (decode(pair.files[k]) for k in (0, 0, 1))
    assert compare(first, again) is None
    change = compare(first, second)
    assert pair.samples is not None
    difference = pair.samples[1].astype(np.float64) - pair.samples[0]
    assert change is not None
    assert change.rms == pytest.approx(np.sqrt(np.mean(np.square(difference))), rel=1e-9, abs=0)
    assert change.changed_pixels == np.count_nonzero(difference.any(axis=2))


def write_tiff(samples: Samples, **how: Any) -> bytes:
    """A TIFF of rows x columns x channels."""
    return tiff([samples[:, :, channel] for channel in range(samples.shape[2])], **how)


def noise(dtype: str, bits: int, channels: int) -> Samples:
    """Samples over the whole range that can be compared, of which one more is in it, too."""
    rng = np.random.default_rng(bits + channels)
    kind = np.dtype(dtype)
    shape = (HEIGHT, WIDTH, channels)
    if kind.kind == "f":
        return rng.normal(0, 50, shape).astype(kind)
    low = 0 if kind.kind == "u" else -(2 ** min(bits - 1, 52))
    high = 2 ** min(bits - (kind.kind == "i"), 53)
    samples = rng.integers(low, high, shape).astype(kind)
    samples[WHERE] = high - 2
    return samples


# --- TIFF: kinds of pictures by kinds of numbers ---

NUMBERS = {
    "1, 2, 4 bits": [("u1", 1), ("u1", 2), ("u1", 4)],
    "3, 5 to 7 bits": [("u1", 3), ("u1", 5), ("u1", 6), ("u1", 7)],
    "8 bits": [("u1", 8)],
    "9 to 15 bits": [("u2", 10), ("u2", 12), ("u2", 14)],
    "16 bits": [("u2", 16)],
    "17 to 32 bits": [("u4", 20), ("u4", 24), ("u4", 32)],
    "64 bits": [("u8", 64)],
    "8, 16, 32, 64 bits, signed": [("i1", 8), ("i2", 16), ("i4", 32), ("i8", 64)],
    "floating point of 16, 32, 64 bits": [("f2", 16), ("f4", 32), ("f8", 64)],
}
KINDS: dict[str, tuple[int, dict[str, Any]]] = {
    "grey": (1, {}),
    "grey, 0 is white": (1, {"photometric": 0}),
    "grey and alpha": (2, {"extra": [2]}),
    "grey and another sample": (2, {"extra": [0]}),
    "palette": (1, {"photometric": 3}),
    "RGB": (3, {"photometric": 2}),
    "RGB, planes apart": (3, {"photometric": 2, "apart": True}),
    "RGB and alpha": (4, {"photometric": 2, "extra": [2]}),
    "RGB and premultiplied alpha": (4, {"photometric": 2, "extra": [1]}),
    "RGB and infrared, or another sample": (4, {"photometric": 2, "extra": [0]}),
    "five bands": (5, {"extra": [0, 0, 0, 0]}),
    "CMYK": (4, {"photometric": 5}),
    "Lab": (3, {"photometric": 8}),
    "YCbCr": (3, {"photometric": 6, "more": {530: (1, 1)}}),
    "YCbCr with less colour": (3, {"photometric": 6}),
}
LESS_COLOUR = "set aside: less resolution"
NO_PALETTE = "set aside: a palette for"


def tiff_outcome(kind: str, numbers: str) -> str:
    """The cell of the table."""
    if kind == "YCbCr with less colour":
        return LESS_COLOUR
    if kind == "palette":
        is_read = numbers.split(maxsplit=1)[0] in ("1,", "3,", "9", "16") or numbers == "8 bits"
        return COLOURS if is_read else NO_PALETTE
    if kind.startswith("grey") and "and" not in kind and numbers == "1, 2, 4 bits":
        return SPREAD
    return AS_RGBA if (kind, numbers) == ("grey and alpha", "8 bits") else EXACT


def palette(bits: int) -> NDArray[np.uint16]:
    """Three rows of colours, as a TIFF has them; of up to 8 bits as Pillow keeps them."""
    rng = np.random.default_rng(bits)
    if bits <= 8:
        steps = np.resize(rng.permutation(256), (3, 2**bits))
        return np.asarray(steps * 257, np.uint16)
    return rng.integers(0, 2**16, (3, 2**bits), np.uint16)


def seen_of_tiff(kind: str, bits: int, outcome: str) -> Callable[[Samples], Samples] | None:
    """What is compared of the samples of a TIFF."""
    if outcome.startswith("set aside"):
        return None
    if kind == "palette":
        return lambda samples: as_rgba(np.moveaxis(palette(bits), 0, -1)[samples[:, :, 0]], bits)
    if outcome == AS_RGBA:
        return lambda samples: samples[:, :, [0, 0, 0, 1]]
    step = 255 // (2**bits - 1) if outcome == SPREAD else 1
    return lambda samples: samples.astype(np.float64) * step


def as_rgba(colours: Samples, bits: int) -> Samples:
    """Colours of a palette as Pillow has them, with alpha; where Pillow has none as they are."""
    if bits not in (1, 2, 4, 8):
        return colours
    return np.concatenate([colours // 257, np.full((*colours.shape[:2], 1), 255)], axis=2)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("numbers", NUMBERS)
@pytest.mark.parametrize("kind", KINDS)
def test_tiff(kind: str, numbers: str, order: str) -> None:
    """Of any kind of number, in either order of bytes, as TIFF and as BigTIFF, in each sample."""
    channels, how = KINDS[kind]
    outcome = tiff_outcome(kind, numbers)
    for dtype, bits in NUMBERS[numbers]:
        if kind == "palette":
            how = how | {"more": {320: palette(min(bits, 16)).ravel().tolist()}}
        samples = noise(dtype, bits, channels)
        see = seen_of_tiff(kind, bits, outcome)
        for channel, is_big in [(0, True), *((each, each % 2 == 1) for each in range(channels))]:
            write = partial(write_tiff, bits=bits, order=order, is_big=is_big, **how)
            check(outcome, pair(samples, write, see, channel))


# --- TIFF: ways of packing ---

PACKED = {
    "8 bits": ("u1", 3),
    "16 bits": ("u2", 3),
    "floating point": ("f4", 1),
    "five bands": ("u2", 5),
}
PACKINGS: dict[str, dict[str, Any]] = {
    "uncompressed": {},
    "uncompressed, bits reversed": {"fill_order": 2},
    "LZW": {"compression": 5},
    "deflate": {"compression": 8},
    "deflate of the old number": {"compression": 32946},
    "PackBits": {"compression": 32773},
    "LZMA": {"compression": 34925},
}
LAYOUTS: dict[str, dict[str, Any]] = {
    "strips": {},
    "a strip for each row": {"rows": 1},
    "tiles": {"tile": (16, 16)},
    "large tiles": {"tile": (48, 32)},
}


@pytest.mark.parametrize("predictor", ["no predictor", "predictor"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("packed", PACKED)
def test_packing_of_tiff(packed: str, packing: str, layout: str, predictor: str) -> None:
    """Whatever its compression, its strips or tiles and its predictor, together or apart."""
    dtype, channels = PACKED[packed]
    how = {"photometric": 2 if channels == 3 else 1, **PACKINGS[packing], **LAYOUTS[layout]}
    if predictor == "predictor" and how.get("compression", 1) in (5, 8, 32946, 34925):
        how["predictor"] = 3 if dtype == "f4" else 2
    samples = noise(dtype, 8 * np.dtype(dtype).itemsize, channels)
    for order, apart in itertools.product("<>", (False, True)):
        extra = [0] * (channels - 3)
        write = partial(write_tiff, order=order, apart=apart, extra=extra, **how)
        check(EXACT, pair(samples, write, lambda samples: samples, channels - 1))


@pytest.mark.parametrize("predictor", [1, 3])
@pytest.mark.parametrize("packing", ["tiff_lzw", "tiff_adobe_deflate", "zstd", "lzma", "packbits"])
def test_packing_of_tiff_by_libtiff(packing: str, predictor: int) -> None:
    """What another program packed is read as well, with its predictor for floating point."""
    samples = noise("f4", 32, 1)
    content = io.BytesIO()
    image = Image.fromarray(samples[:, :, 0])
    image.save(content, "TIFF", compression=packing, tiffinfo={317: predictor})
    assert np.array_equal(np.asarray(decode(content.getvalue())), samples[:, :, 0])


REFUSED_PACKINGS = {
    "JPEG, more than 8 bits": ("u2", 1, {259: [7]}, "1 x 16 bits a pixel and the compression JPEG"),
    "JPEG, five bands together": (
        "u1",
        5,
        {259: [7]},
        "5 x 8 bits a pixel and the compression JPEG",
    ),
    "fax, more than black and white": ("u1", 1, {259: [4]}, "the compression fax"),
    "JPEG 2000": ("u1", 1, {259: [34712]}, "the compression JPEG 2000"),
    "WebP": ("u1", 3, {259: [50001]}, "the compression WebP"),
    "any other compression": ("u1", 1, {259: [12345]}, "the compression of the number 12345"),
    "complex numbers": ("f4", 1, {339: [6]}, "complex numbers"),
    "floating point of 24 bits": ("f4", 1, {258: [24]}, "floating point of 24 bits"),
    "signed integers of 12 bits": ("i2", 1, {258: [12]}, "signed integers of 12 bits"),
    "integers of 33 to 63 bits": ("u8", 1, {258: [48]}, "unsigned integers of 48 bits"),
    "samples of several sizes": ("u1", 3, {258: [5, 6, 5]}, "samples of 5 and 6 bits in a pixel"),
    "numbers of several kinds": ("u1", 3, {339: [1, 2, 1]}, "numbers of several kinds in a pixel"),
}


@pytest.mark.parametrize("refused", REFUSED_PACKINGS)
def test_tiff_that_is_set_aside(refused: str) -> None:
    """By its true reason, not as a damaged image and not as no image."""
    dtype, channels, more, reason = REFUSED_PACKINGS[refused]
    samples = noise(dtype, 8 * np.dtype(dtype).itemsize, channels)
    content = write_tiff(samples, more=more)
    with pytest.raises(InvalidInput, match=f"a.tif is a TIFF with .*{reason}, which can't be"):
        decode(content, "a.tif")


# --- PNG, BMP, GIF, WebP, JPEG ---


def chunk(name: bytes, content: bytes) -> bytes:
    """A chunk of a PNG."""
    checksum = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


def png(
    samples: Samples, depth: int, colour: int, *more: bytes, is_interlaced: bool = False
) -> bytes:
    """A PNG without filters."""
    height, width, _ = samples.shape
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, is_interlaced)
    passes = [(0, 0, 1, 1)]
    if is_interlaced:
        passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4)]
        passes += [(1, 0, 2, 2), (0, 1, 1, 2)]
    rows = b""
    for left, top, across, down in passes:
        for row in samples[top::down, left::across]:
            text = "".join(format(int(value), f"0{depth}b") for value in row.ravel())
            text += "0" * (-len(text) % 8)
            rows += b"\0" + int(text, 2).to_bytes(len(text) // 8, "big")
    parts = [chunk(b"IHDR", header), *more, chunk(b"IDAT", zlib.compress(rows))]
    return b"\x89PNG\r\n\x1a\n" + b"".join([*parts, chunk(b"IEND", b"")])


def spread(bits: int) -> Callable[[Samples], Samples]:
    """Grey as Pillow spreads it to 0 to 255."""
    return lambda samples: samples.astype(np.float64) * (255 // (2**bits - 1))


def grey_as_rgba(samples: Samples) -> Samples:
    """Grey and alpha as Pillow compares them."""
    return samples[:, :, [0, 0, 0, 1]].astype(np.float64)


def as_is(samples: Samples) -> Samples:
    """Samples that are compared as they are."""
    return samples


def clear(step: float, full: int) -> Callable[[Samples], Samples]:
    """Samples, of which those of the pixel beside the changed one are transparent.

    Up to 8 bits they are compared as RGBA.
    """

    def see(samples: Samples) -> Samples:
        is_clear = (samples == samples[WHERE[0], WHERE[1] + 1]).all(axis=2, keepdims=True)
        colours = samples if samples.shape[2] == 3 or full > 255 else samples[:, :, [0, 0, 0]]
        return np.concatenate([colours * step, np.where(is_clear, 0, full)], axis=2)

    return see


def of_palette(samples: Samples) -> Samples:
    """The colours of places in COLOURS_OF_8, as RGBA."""
    colours = COLOURS_OF_8[samples[:, :, 0]]
    return np.concatenate([colours, np.full((*colours.shape[:2], 1), 255)], axis=2)


COLOURS_OF_8 = np.random.default_rng(8).permutation(256 * 3).reshape(256, 3) % 256
PLTE = chunk(b"PLTE", COLOURS_OF_8.astype(np.uint8).tobytes())


class Kind(NamedTuple):
    """A kind of file: how it is written, and what is compared of the samples."""

    write: Callable[[Samples], bytes]
    see: Callable[[Samples], Samples]
    samples: Samples


def png_kinds(
    depth: int, colour: int, see: Callable[[Samples], Samples], *more: bytes
) -> list[Kind]:
    """PNGs of this kind, with and without interlacing."""
    samples = noise("u1" if depth <= 8 else "u2", depth, {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour])

    def write(samples: Samples, is_interlaced: bool) -> bytes:
        return png(samples, depth, colour, *more, is_interlaced=is_interlaced)

    return [Kind(partial(write, is_interlaced=each), see, samples) for each in (False, True)]


def clear_png_kinds(depth: int, colour: int, step: float, full: int) -> list[Kind]:
    """PNGs in which the colour of the pixel beside the changed one is transparent."""
    samples = noise("u1" if depth <= 8 else "u2", depth, 3 if colour == 2 else 1)
    colours = samples[WHERE[0], WHERE[1] + 1].tolist()
    transparent = chunk(b"tRNS", struct.pack(f">{len(colours)}H", *colours))
    return png_kinds(depth, colour, clear(step, full), transparent)


def bmp(
    samples: Samples,
    bits: int,
    *,
    masks: tuple[int, ...] = (),
    header: int = 40,
    compression: int = 0,
    colours: int = 0,
    is_top_down: bool = False,
) -> bytes:
    """A BMP of rows x columns x 1 of whole pixels, or of places in the palette COLOURS_OF_8."""
    height, width, _ = samples.shape
    palette = b""
    if bits <= 8:
        entries = np.zeros((colours or 2**bits, 4), np.uint8)
        entries[:, 2::-1] = COLOURS_OF_8[: len(entries)]
        palette = entries.tobytes()
    fields = struct.pack(f"<{len(masks)}I", *masks)
    rows = []
    for row in samples[:, :, 0] if is_top_down else samples[::-1, :, 0]:
        if bits <= 8:
            text = "".join(format(int(value), f"0{bits}b") for value in row)
            text += "0" * (-len(text) % 32)
            rows.append(int(text, 2).to_bytes(len(text) // 8, "big"))
        else:
            content = row.astype("<u4").view(np.uint8).reshape(-1, 4)[:, : bits // 8].tobytes()
            rows.append(content + bytes(-len(content) % 4))
    about = (width, -height if is_top_down else height, 1, bits, compression, 0, 0, 0, colours, 0)
    head = struct.pack("<IiiHHIIiiII", header, *about) + fields
    head = head.ljust(header, b"\0")
    start = 14 + len(head) + len(palette)
    pixels = b"".join(rows)
    return b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + head + palette + pixels


def bmp_kinds(bits: int, see: Callable[[Samples], Samples], **how: Any) -> list[Kind]:
    """BMPs of this kind, bottom up and top down."""
    samples = noise("u1" if bits <= 8 else "u4", min(bits, 31), 1)
    write = partial(bmp, bits=bits, **how)
    return [Kind(partial(write, is_top_down=each), see, samples) for each in (False, True)]


def channels_of(*masks: int, full: int = 0) -> Callable[[Samples], Samples]:
    """The channels in the bits of a pixel, as they are or spread to 0 to `full`."""

    def see(samples: Samples) -> Samples:
        planes = []
        for mask in masks:
            lowest = mask & -mask
            plane = ((samples[:, :, 0] & mask) // lowest).astype(np.float64)
            planes.append(np.floor(plane * full / (mask // lowest)) if full else plane)
        return np.stack(planes, axis=2)

    return see


def by_pillow(image_format: str, mode: str, **how: Any) -> list[Kind]:
    """Files that Pillow writes, and what Pillow decodes of them."""
    channels = len(Image.new(mode, (1, 1)).getbands())
    samples = noise("u1", 8, channels)

    def write(samples: Samples) -> bytes:
        content = io.BytesIO()
        pixels = samples[:, :, 0] if channels == 1 else samples
        image = Image.frombytes(mode, (WIDTH, HEIGHT), pixels.tobytes())
        if mode == "P":
            image.putpalette(COLOURS_OF_8.astype(np.uint8).ravel().tolist())
        image.save(content, image_format, **how)
        return content.getvalue()

    def see(samples: Samples) -> Samples:
        image = Image.open(io.BytesIO(write(samples)))
        image.load()
        seen = np.asarray(image.convert("RGBA") if mode == "P" else image)
        return seen.reshape(HEIGHT, WIDTH, -1)

    return [Kind(write, see, samples)]


def run_lengths(samples: Samples, bits: int) -> bytes:
    """A BMP in runs, each of a single pixel."""
    content = bmp(samples, bits, compression=1 if bits == 8 else 2)
    (start,) = struct.unpack_from("<I", content, 10)
    rows = []
    for row in samples[::-1, :, 0]:
        value = [int(place) << (0 if bits == 8 else 4) for place in row]
        rows.append(b"".join(bytes([1, place]) for place in value) + b"\0\0")
    return content[:start] + b"".join(rows) + b"\0\1"


def header_of_jpeg(bits: int, channels: int, marker: int) -> bytes:
    """The beginning of a JPEG that no decoder at hand knows."""
    components = b"".join(bytes([number, 0x11, 0]) for number in range(channels))
    frame = struct.pack(">BHHB", bits, HEIGHT, WIDTH, channels) + components
    return b"\xff\xd8\xff" + bytes([marker]) + struct.pack(">H", len(frame) + 2) + frame


def refused(content: bytes) -> list[Kind]:
    """A file that is set aside."""
    return [Kind(lambda _: content, as_is, noise("u1", 8, 1))]


def refused_bmp(**how: Any) -> list[Kind]:
    """A BMP that is set aside."""
    return refused(bmp(noise("u1", 8, 1), 8, **how))


def written(*files: str) -> list[Kind]:
    """Two files that another program wrote, in base64; of the first, no sample is changed."""
    samples = noise("u1", 8, 1)

    def content(changed: Samples) -> bytes:
        return base64.b64decode(files[not np.array_equal(changed, samples)])

    def see(changed: Samples) -> Samples:
        return np.asarray(Image.open(io.BytesIO(content(changed))))[..., np.newaxis]

    return [Kind(content, see, samples)]


# Two pictures of 16 x 16 pixels by cjpeg -arithmetic, and two of 8 x 8 by imagecodecs, lossless.
START_OF_16 = (
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAIBAQEBAQIBAQECAgICAgQDAgICAgUEBAMEBgUGBgYFBgYGBwkIBgcJBwYG"
    "CAsICQoKCgoKBggLDAsKDAkKCgr/yQALCAAQABABAREA/8wABgAQEAX/2gAIAQEAAD8A/wD"
)
END_OF_16 = "yGOsFAHPjjYXOcUtXrP/Z"
ARITHMETIC = (
    f"{START_OF_16}tCE+2yUFo7+AAlNZKT6KEZwwjn8rQ/NgflTt7m70R5OD/2Q==",
    f"{START_OF_16}s4byhIACgHtg3Kq3I+qqmuHSTEpc6ux1ZBH02c0SKIUZp5KLibStBs3sIhfWaVcw/aJ9o+QIlKA/{END_OF_16}",
)
START_OF_8 = (
    "/9j/4AAQSkZJRgABAQAAAQABAAD/wwALCAAIAAgBAREA/8QAFgABAQEAAAAAAAAAAAAAAAAAAwQI/9oACAEBAAE"
)
LOSSLESS = (
    f"{START_OF_8}AAM/qqqqrSqqqqtKqqqq0qqqqrSqqqqtKqqqq0qqqqrSqqqqv/9k=",
    f"{START_OF_8}AAM/qqqqrSqqqqtKqqqq0qqqyLSqqqqtKqqqq0qqqqrSqqqqv/9k=",
)
FIELDS_OF_10 = (0x3FF00000, 0xFFC00, 0x3FF)
ALPHA = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
OTHERS: dict[tuple[str, str], tuple[str, list[Kind]]] = {
    ("PNG", "grey of 1, 2, 4 bits"): (
        SPREAD,
        [kind for bits in (1, 2, 4) for kind in png_kinds(bits, 0, spread(bits))],
    ),
    ("PNG", "grey of 8, 16 bits"): (
        EXACT,
        [kind for bits in (8, 16) for kind in png_kinds(bits, 0, as_is)],
    ),
    ("PNG", "grey and alpha of 8 bits"): (AS_RGBA, png_kinds(8, 4, grey_as_rgba)),
    ("PNG", "grey and alpha of 16 bits"): (EXACT, png_kinds(16, 4, as_is)),
    ("PNG", "RGB, and RGB and alpha, of 8 and 16 bits"): (
        EXACT,
        [kind for bits in (8, 16) for colour in (2, 6) for kind in png_kinds(bits, colour, as_is)],
    ),
    ("PNG", "palette of 1, 2, 4, 8 bits"): (
        COLOURS,
        [kind for bits in (1, 2, 4, 8) for kind in png_kinds(bits, 3, of_palette, PLTE)],
    ),
    ("PNG", "a grey or a colour that is transparent, to 8 bits"): (
        AS_RGBA,
        [
            *(
                kind
                for bits in (1, 2, 4, 8)
                for kind in clear_png_kinds(bits, 0, 255 // (2**bits - 1), 255)
            ),
            *clear_png_kinds(8, 2, 1, 255),
        ],
    ),
    ("PNG", "a grey or a colour that is transparent, of 16 bits"): (
        EXACT,
        [kind for colour in (0, 2) for kind in clear_png_kinds(16, colour, 1, 65535)],
    ),
    ("BMP", "palette of 1, 2, 4, 8 bits"): (
        COLOURS,
        [
            *(
                kind
                for bits in (2, 4)
                for kind in bmp_kinds(bits, lambda at: of_palette(at)[:, :, :3])
            ),
            *(kind for bits in (1, 8) for kind in bmp_kinds(bits, of_palette)),
        ],
    ),
    ("BMP", "palette, in runs of 4 or 8 bits"): (
        COLOURS,
        [
            Kind(partial(run_lengths, bits=bits), of_palette, noise("u1", bits, 1))
            for bits in (4, 8)
        ],
    ),
    ("BMP", "16 bits: 5-5-5, 5-6-5"): (
        SPREAD,
        [
            *bmp_kinds(16, channels_of(0x7C00, 0x3E0, 0x1F, full=255)),
            *bmp_kinds(
                16,
                channels_of(0xF800, 0x7E0, 0x1F, full=255),
                masks=(0xF800, 0x7E0, 0x1F),
                compression=3,
            ),
        ],
    ),
    ("BMP", "16 and 32 bits in other fields: 4-4-4-4, 10-10-10, …"): (
        EXACT,
        [
            *bmp_kinds(
                16,
                channels_of(0xF00, 0xF0, 0xF, 0xF000),
                masks=(0xF00, 0xF0, 0xF, 0xF000),
                header=56,
                compression=3,
            ),
            *bmp_kinds(
                16,
                channels_of(0x7C00, 0x3E0, 0x1F, 0x8000),
                masks=(0x7C00, 0x3E0, 0x1F, 0x8000),
                header=124,
                compression=3,
            ),
            *bmp_kinds(32, channels_of(*FIELDS_OF_10), masks=FIELDS_OF_10, compression=3),
        ],
    ),
    ("BMP", "24 bits, 32 bits with alpha"): (
        EXACT,
        [
            *bmp_kinds(24, channels_of(*ALPHA[:3])),
            *bmp_kinds(32, channels_of(*ALPHA), masks=ALPHA, header=124, compression=3),
        ],
    ),
    ("BMP", "32 bits without alpha"): (
        "exact; the fourth byte means nothing and isn't compared",
        bmp_kinds(32, channels_of(*ALPHA[:3])),
    ),
    ("BMP", "JPEG or PNG in a BMP"): (
        "set aside: a BMP with the compression [45]",
        [*refused_bmp(compression=4), *refused_bmp(compression=5)],
    ),
    ("BMP", "another count of bits"): (
        "set aside: a BMP with 64 bits a pixel",
        refused(bmp(noise("u1", 8, 1), 64)),
    ),
    ("GIF", "the first frame"): (COLOURS, by_pillow("GIF", "P")),
    ("WebP", "lossless, with and without alpha; the first frame"): (
        EXACT,
        [
            kind
            for mode in ("RGB", "RGBA")
            for kind in by_pillow("WEBP", mode, lossless=True, exact=True)
        ],
    ),
    ("WebP", "lossy"): (DECODED, by_pillow("WEBP", "RGB", quality=100)),
    ("JPEG", "grey, RGB, CMYK; progressive"): (
        DECODED,
        [
            *(
                kind
                for mode in ("L", "RGB", "CMYK")
                for kind in by_pillow("JPEG", mode, quality=100, subsampling=0)
            ),
            *by_pillow("JPEG", "RGB", quality=100, subsampling=0, progressive=True),
        ],
    ),
    ("JPEG", "in arithmetic coding"): (DECODED, written(*ARITHMETIC)),
    ("JPEG", "lossless, of 8 bits"): (EXACT, written(*LOSSLESS)),
    ("JPEG", "lossless in arithmetic coding, hierarchical"): (
        "set aside: a JPEG with a rare kind of compression",
        [*refused(header_of_jpeg(8, 1, 0xCB)), *refused(header_of_jpeg(8, 1, 0xC5))],
    ),
    ("JPEG", "12 bits"): (
        "set aside: a JPEG with 12 bits a sample",
        refused(header_of_jpeg(12, 1, 0xC1)),
    ),
    ("JPEG", "2 channels, or more than 4"): (
        "set aside: a JPEG with [25] channels",
        [*refused(header_of_jpeg(8, 2, 0xC0)), *refused(header_of_jpeg(8, 5, 0xC0))],
    ),
    ("JPEG", "JPEG-LS"): (
        "set aside: a JPEG with the compression JPEG-LS",
        refused(header_of_jpeg(8, 1, 0xF7)),
    ),
}


@pytest.mark.parametrize("name", OTHERS, ids=" ".join)
def test_other_formats(name: tuple[str, str]) -> None:
    """In each channel, where Pillow doesn't write the file."""
    outcome, kinds = OTHERS[name]
    for kind in kinds:
        for channel in range(kind.samples.shape[2]):
            step = -60 if outcome == DECODED else 1  # which compression with losses keeps
            check(outcome, pair(kind.samples, kind.write, kind.see, channel, step))


# --- The page that says all this ---


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def in_words(outcome: str) -> str:
    """An outcome as the page has it: what is set aside, without the words that the tests match."""
    return "set aside" if outcome.startswith("set aside") else outcome


def test_the_page_has_these_tables() -> None:
    """docs/formats.md says what the tests of this file prove, and nothing else."""
    page = (Path(__file__).parents[2] / "docs" / "formats.md").read_text()
    kinds = [[kind, *(in_words(tiff_outcome(kind, each)) for each in NUMBERS)] for kind in KINDS]
    assert table(["TIFF", *NUMBERS], kinds) in page
    others = [[*name, in_words(outcome)] for name, (outcome, _) in OTHERS.items()]
    assert table(["format", "kind", "is compared"], others) in page
    assert f"{'; '.join(PACKINGS)}" in " ".join(page.split())
    assert "\n".join(f"- {refused};" for refused in REFUSED_PACKINGS) in page


@pytest.mark.parametrize(("width", "height"), [(1174405120, 0), (0, 5), (-9, 5)])
def test_a_bmp_without_pixels(width: int, height: int) -> None:
    """It is refused at once, however wide it says that it is: nothing waits for so much memory."""
    header = struct.pack("<2sIIIIiiHHIIiiII", b"BM", 70, 0, 0, 40, width, height, 1, 2, *[0] * 6)
    with pytest.raises(InvalidInput, match=f"has {width} x {height} pixels: none at all"):
        decode(header + bytes(16))
