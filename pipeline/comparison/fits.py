"""Read the picture of a FITS file: the parts that are compared, as planes.

A FITS file is a row of parts, each with a header. Those with an image of two dimensions or more are
image parts, also if the image is compressed in tiles, as `fpack` does it. What is compared:

1. the parts named `SCI`; if there are none, all but those whose names speak of errors, weights, or
   masks; if there are only such, all;
2. of these, the largest (of several, rather one of more than 8 bits; then the first), and all parts
   that have the same size and type of number, such as the CCDs of a mosaic.

Each plane of a cube is a plane of the image. The lowest row comes first in the file, so that the
planes are turned over. The file may be compressed as a whole, by `gzip`.
"""

import io
import math
import re
import subprocess
import sys
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.comparison.planes import AnyImage, check_size, image_of
from pipeline.comparison.unpack_fits import MAX_MEMORY, MAX_SECONDS, TOO_LARGE
from pipeline.errors import InvalidInput, TransientError

FITS = b"SIMPLE  ="  # how a FITS file begins
GZIP = b"\x1f\x8b"  # how a compressed file begins
BLOCK = 2880  # bytes, of which a FITS file has a whole number
BLANK = b"\0 \r\n"  # what may come after the last part
MAX_UNPACKED = 256 * 2**20  # bytes: as many as a file may have that isn't compressed
MAX_PARTS = 1000
BITS = (8, 16, 32, 64, -32, -64)  # of a sample, as headers say them
MAX_NAMED = 5  # parts that are named where more are left out
REPOSITORY = Path(__file__).parents[2]
WAIT_SECONDS = 5 * MAX_SECONDS  # for the program that unpacks, on a machine that is busy

SCIENCE = re.compile(r"SCI\d*")
OTHER_WORDS = {  # in the names of image parts that are no pictures
    *(
        "ERR",
        "ERROR",
        "ERRORS",
        "UNC",
        "UNCERT",
        "UNCERTAINTY",
        "VAR",
        "VARIANCE",
        "IVAR",
        "INVVAR",
    ),
    *("SIGMA", "STD", "STDDEV", "RMS", "NOISE", "DQ", "DQF", "QUALITY", "FLAG", "FLAGS", "BPM"),
    *("MASK", "BADPIX", "WHT", "WGT", "WT", "WEIGHT", "WEIGHTS", "WEIGHTMAP", "EXP", "EXPTIME"),
    *("EXPOSURE", "CTX", "CON", "CONTEXT", "SAMP", "TIME", "BACKGROUND", "BKG"),
}


@dataclass(frozen=True)
class Part:
    """An image part, as its header describes it."""

    number: int  # the first part is 0
    name: str
    planes: int
    height: int
    width: int
    bits: int  # less than 0: floating point
    is_packed: bool

    @property
    def kind(self) -> tuple[int, int, int, int]:
        """What parts have in common that are compared as planes of one image."""
        return self.planes, self.height, self.width, self.bits

    def __str__(self) -> str:
        return (
            f"{self.number} ({self.name + ', ' if self.name else ''}{self.width} x {self.height})"
        )


def is_fits(content: bytes) -> bool:
    """Whether the bytes are a FITS file, or compressed, which only FITS files may be here."""
    return content.startswith((FITS, GZIP))


def read_fits(content: bytes, path: str) -> AnyImage:
    """The image in a FITS file. Raises `InvalidInput`."""
    plain = _gunzipped(content, path)
    with _open(plain, path) as parts:
        compared, _ = _choose(_image_parts(parts, path), path)
        first = compared[0]
        count = first.planes * len(compared)
        check_size(first.width, first.height, path, count, abs(first.bits) // 8)
        for part in compared:
            _check_end(parts[part.number], part.number, plain, path)
        packed = [part.number for part in compared if part.is_packed]
        unpacked = iter(_unpack(plain, packed, path) if packed else ())
        images: list[NDArray[Any]] = [
            next(unpacked) if part.is_packed else parts[part.number].data for part in compared
        ]
    if any(image.size != math.prod(first.kind[:3]) for image in images):
        raise InvalidInput(f"{path} is a damaged image: its compressed part has another size")
    kind = np.result_type(*images)
    planes = [
        plane[::-1].astype(kind, copy=False)
        for image in images
        for plane in image.reshape(first.kind[:3])
    ]
    return image_of(planes, path)


def parts_left_out(content: bytes) -> str:
    """For people: how many image parts are compared if not one, and which aren't; may be empty."""
    with _open(_gunzipped(content, ""), "") as parts:
        compared, left_out = _choose(_image_parts(parts, ""), "")
    remarks = []
    if len(compared) > 1:
        remarks.append(f"{len(compared)} parts of {compared[0].width} x {compared[0].height}")
    if left_out:
        more = len(left_out) - MAX_NAMED
        named = ", ".join(map(str, left_out[:MAX_NAMED])) + (f", {more} more" if more > 0 else "")
        remarks.append(f"not compared: part {named}")
    return "; ".join(remarks)


def damage_of_fits(content: bytes) -> str:
    """What is damaged in a FITS file that can be read: a part that is cut, or a wrong checksum."""
    try:
        plain = _gunzipped(content, "it")
        with _open(plain, "it") as parts:
            for number, part in enumerate(parts):
                _check_end(part, number, plain, "it")
                _check_sums(part, number, plain)
            places = part.fileinfo()
        end = places["datLoc"] + places["datSpan"]
        if end > len(plain):
            return f"the block at its end has {len(plain) - end + BLOCK} of {BLOCK} bytes"
        if plain[end:].strip(BLANK):
            return f"what comes after its part {number} is no part of a FITS file"
    except InvalidInput as reason:
        return str(reason)
    return ""


def _gunzipped(content: bytes, path: str) -> bytes:
    """The bytes of the FITS file, of at most `MAX_UNPACKED`, whatever is in the compressed file."""
    if not content.startswith(GZIP):
        return content
    unpacked: list[bytes] = []
    room = MAX_UNPACKED
    rest = content
    while rest.startswith(GZIP):  # a compressed file may have several members
        inflating = zlib.decompressobj(wbits=31)
        try:
            unpacked.append(inflating.decompress(rest, room + 1))
        except zlib.error as error:
            what = str(error).rpartition(": ")[2]
            raise InvalidInput(
                f"{path} is a damaged image: gzip can't unpack it ({what})"
            ) from error
        room -= len(unpacked[-1])
        if room < 0:
            raise InvalidInput(f"{path} has more than {MAX_UNPACKED} bytes when it is unpacked")
        if not inflating.eof:
            raise InvalidInput(f"{path} is a damaged image: its gzip data are cut")
        rest = inflating.unused_data
    plain = b"".join(unpacked)
    if not plain.startswith(FITS):
        raise InvalidInput(f"{path} is compressed, and no FITS is inside; unpack it with gunzip")
    return plain


@contextmanager
def _open(content: bytes, path: str) -> Iterator[Any]:
    """The parts of a FITS file, of which compressed images are tables here."""
    if not find_spec("astropy"):
        raise InvalidInput(f"{path} needs astropy; install it with pip install astropy")
    # Imported here, since astropy is optional and takes a while to import.
    fits: Any = import_module("astropy.io.fits")
    options = {"memmap": False, "disable_image_compression": True}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with fits.open(io.BytesIO(content), **options) as parts:
                yield parts
        except (InvalidInput, TransientError, MemoryError):
            raise
        except Exception as error:  # astropy raises whatever it stumbles over
            raise InvalidInput(
                f"{path} is a damaged image: a header in it is cut or makes no sense"
            ) from error


def _image_parts(parts: Any, path: str) -> list[Part]:
    """The image parts that have pixels."""
    found = []
    for number, part in enumerate(parts):
        if number == MAX_PARTS:
            raise InvalidInput(f"{path} has more than {MAX_PARTS} parts")
        header = part.header
        is_packed = header.get("ZIMAGE") is True
        if not is_packed and not part.is_image:
            continue
        prefix = "Z" if is_packed else ""
        bits = header[f"{prefix}BITPIX"]
        axes = [header[f"{prefix}NAXIS{axis}"] for axis in range(header[f"{prefix}NAXIS"], 0, -1)]
        if bits not in BITS or not all(isinstance(axis, int) and axis >= 0 for axis in axes):
            size = " x ".join(map(str, reversed(axes)))
            raise InvalidInput(
                f"{path} is a damaged image: its part {number} can't have {size} samples of {bits}"
            )
        if len(axes) >= 2 and math.prod(axes):
            name = str(header.get("EXTNAME", "")).strip().upper()
            *more, height, width = axes
            found.append(Part(number, name, math.prod(more), height, width, bits, is_packed))
    return found


def _choose(parts: Sequence[Part], path: str) -> tuple[list[Part], list[Part]]:
    """The image parts that are compared, and those that are left out."""
    if not parts:
        raise InvalidInput(f"{path} has no image of two dimensions")
    named = [part for part in parts if SCIENCE.fullmatch(part.name)]
    pictures = named or [part for part in parts if not _is_other(part.name)] or parts
    best = max(pictures, key=lambda part: (part.width * part.height, abs(part.bits) > 8))
    compared = [part for part in pictures if part.kind == best.kind]
    return compared, [part for part in parts if part not in compared]


def _is_other(name: str) -> bool:
    """Whether the name of a part says that its image is no picture."""
    return not OTHER_WORDS.isdisjoint(re.split(r"[^A-Z]+", name))


def _check_end(part: Any, number: int, content: bytes, path: str) -> None:
    """Raise `InvalidInput` if the data of a part aren't all there."""
    end = part.fileinfo()["datLoc"] + part.size
    if end > len(content):
        raise InvalidInput(
            f"{path} is a damaged image: its part {number} ends at byte {end} of {len(content)}"
        )


def _check_sums(part: Any, number: int, content: bytes) -> None:
    """Raise `InvalidInput` if a part isn't what its checksums were made of."""
    places = part.fileinfo()
    data = places["datLoc"], places["datLoc"] + places["datSpan"]
    expected = str(part.header.get("DATASUM", "")).strip()
    if expected.isdecimal() and _sum(content[slice(*data)]) != int(expected):
        raise InvalidInput(f"the data of its part {number} don't have its DATASUM")
    is_summed = bool(str(part.header.get("CHECKSUM", "")).strip(" 0"))
    if is_summed and _sum(content[places["hdrLoc"] : data[1]]) not in (0, 2**32 - 1):
        raise InvalidInput(f"its part {number} doesn't have its CHECKSUM")


def _sum(content: bytes) -> int:
    """The sum that FITS defines: of words of 32 bits, where what is carried over is added again."""
    words = np.frombuffer(content + bytes(-len(content) % 4), ">u4")
    total = int(words.sum(dtype=np.uint64))
    while total >> 32:
        total = (total & 0xFFFFFFFF) + (total >> 32)
    return total


def _unpack(content: bytes, numbers: Sequence[int], path: str) -> list[NDArray[Any]]:
    """The compressed images of these parts, unpacked by a program that may crash."""
    program = [sys.executable, "-m", "pipeline.comparison.unpack_fits", *map(str, numbers)]
    damaged = f"{path} is a damaged image: its compressed part can't be unpacked"
    try:
        # In a session of its own, so that Ctrl-C doesn't end it.
        done = subprocess.run(
            program,
            input=content,
            capture_output=True,
            cwd=REPOSITORY,
            check=False,
            timeout=WAIT_SECONDS,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired as error:
        raise InvalidInput(f"{damaged} in {WAIT_SECONDS} s") from error
    except OSError as error:
        raise TransientError(f"cannot start the program that unpacks FITS: {error}") from error
    if done.returncode == TOO_LARGE:
        raise InvalidInput(f"{damaged} with {MAX_MEMORY // 2**30} GiB of memory")
    if done.returncode:
        raise InvalidInput(damaged)
    output = io.BytesIO(done.stdout)
    return [np.lib.format.read_array(output, allow_pickle=False) for _ in numbers]
