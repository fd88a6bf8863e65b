"""Find out whether a picture's file is damaged, though it can be decoded.

A decoder draws something in the place of what is missing, mostly without a word: a false change.
Each format tells in its own way. JPEG has no checksum, so libjpeg's warnings about impossible data
are heard, except for those that harm no pixel. PNG and gzip have checksums; TIFF has with Deflate,
and FITS if it likes. GIF and WebP have parts whose lengths must fit, and TIFF has strips that must
be there. BMP says nothing but its size, which decoding finds out.
"""

import re
import zlib
from collections.abc import Callable

import simplejpeg

from pipeline.comparison import tiff_directories as tags
from pipeline.comparison.fits import FITS, GZIP, damage_of_fits
from pipeline.comparison.tiff import Layout
from pipeline.comparison.tiff_directories import Directory, pictures_in
from pipeline.errors import InvalidInput
from pipeline.retrying import retrying

# Some cameras put up to 8 bytes between the data of a scan and the marker after them. More bytes
# are data that were not decoded, since those before them are damaged.
MAX_PADDING = 8
NO_SEGMENTS = {0x00, 0x01, 0xFF, *range(0xD0, 0xDA)}  # after 0xFF no segment begins with these
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # the markers that tell the number of channels
# Of a lossless JPEG, libjpeg writes the whole picture into the memory of the smaller one that it is
# asked for, and beyond: valgrind shows it, and a test that decoded such files crashed later.
LOSSLESS = re.compile(rb"\xff[\xc3\xc5-\xc7\xcb\xcd-\xcf]")

UNCOMPRESSED, JPEG, DEFLATE = 1, 7, (8, 32946)  # TIFF's numbers of the compressions
MAX_STRIPS = 1_000_000  # of a TIFF that are looked at
INFLATED_AT_A_TIME = 2**20  # bytes


@retrying
def damage_of(content: bytes) -> str:
    """What is damaged in the picture of a file that can be decoded, for people; empty if nothing.

    Damage that leaves valid data, such as another brightness in a BMP, can't be known.
    """
    for beginning, check in CHECKS.items():
        if content.startswith(beginning):
            return check(content)
    return ""


def _check_jpeg(content: bytes) -> str:
    """What libjpeg warns of while it decodes all of the data.

    It is asked for an eighth of the size in grey, which takes half the time of decoding.
    """
    stripped, channels = _without_remarks(content)
    if LOSSLESS.search(stripped):
        return ""
    mode = "CMYK" if channels == 4 else "GRAY"  # CMYK can't be converted to grey
    try:
        simplejpeg.decode_jpeg(stripped, mode, min_height=1, min_width=1, strict=True)
    except KeyError:
        return ""  # simplejpeg has no name for this subsampling
    except ValueError as error:  # the first warning
        warning = str(error)
        padding = re.search(r"(\d+) extraneous bytes", warning)
        is_damage = warning.startswith(("Corrupt JPEG data", "Premature end"))
        if is_damage and not (padding and int(padding[1]) <= MAX_PADDING):
            return f"bytes inside it are missing or wrong (libjpeg: {warning})"
    return ""


def _without_remarks(content: bytes) -> tuple[bytes, int]:
    """A JPEG with only the segments that its decoder needs, and its number of channels.

    Only the first warning can be heard. So what may cause a harmless one before the pixels is left
    out: the segments of applications, comments, and stray bytes.
    """
    kept = [content[:2]]
    channels = 0
    at = content.find(b"\xff", 2)
    while 0 <= at < len(content) - 4:
        marker = content[at + 1]
        if marker == 0xDA:  # the scan, and all that comes after it up to the end marker
            end = content.find(b"\xff\xd9", at)
            return b"".join([*kept, content[at : len(content) if end < 0 else end + 2]]), channels
        if marker in NO_SEGMENTS:
            at = content.find(b"\xff", at + 1)
            continue
        end = at + 2 + int.from_bytes(content[at + 2 : at + 4])
        if marker in FRAMES and at + 9 < len(content):
            channels = content[at + 9]
        if not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            kept.append(content[at:end])
        at = content.find(b"\xff", end)
    return content, channels


def _check_png(content: bytes) -> str:
    """Whether each chunk has the bytes that its checksum was made of, up to the last chunk."""
    at = 8
    while at + 12 <= len(content):
        kind = content[at + 4 : at + 8]
        end = at + 8 + int.from_bytes(content[at : at + 4])
        if end + 4 > len(content):
            break
        if zlib.crc32(memoryview(content)[at + 4 : end]) != int.from_bytes(content[end : end + 4]):
            return f"the checksum of its bytes {at} to {end} is wrong"
        if kind == b"IEND":
            return ""
        at = end + 4
    return "its end is missing"


def _check_gif(content: bytes) -> str:
    """Whether one block follows the other up to the last one."""
    at = 13 + _colour_table(content[10:11])
    while True:
        kind = content[at : at + 1]
        if kind == b";":
            return ""
        if kind == b"!":
            at += 2
        elif kind == b",":
            at += 11 + _colour_table(content[at + 9 : at + 10])
        elif kind:
            return f"at byte {at} a block should begin, and none does"
        while size := content[at : at + 1]:  # sub-blocks, of which the last is empty
            at += 1 + size[0]
            if size == b"\0":
                break
        if at >= len(content):
            return "its end is missing"


def _colour_table(flags: bytes) -> int:
    """How many bytes the colour table has that these flags of a GIF speak of."""
    return 3 * 2 ** ((flags[0] & 7) + 1) if flags and flags[0] & 0x80 else 0


def _check_webp(content: bytes) -> str:
    """Whether the file is as long as it says."""
    size = 8 + int.from_bytes(content[4:8], "little")
    return f"it has {len(content)} bytes of {size}" if len(content) < size else ""


def _check_tiff(content: bytes) -> str:
    """Whether each strip or tile of each picture is there, and what its compression knows of it."""
    try:
        for number, directory in enumerate(pictures_in(content, "it")[0], 1):
            if damage := _check_strips(content, directory, number):
                return damage
    except (InvalidInput, ValueError, OverflowError):
        return "what it says of its pages can't be read"
    return ""


def _check_strips(content: bytes, directory: Directory, page: int) -> str:
    """Which strip or tile of a picture is damaged, and how."""
    for offsets, lengths in ((tags.STRIPS, tags.STRIP_BYTES), (tags.TILES, tags.TILE_BYTES)):
        places = (directory.array(tag)[:MAX_STRIPS].tolist() for tag in (offsets, lengths))
        for number, place in enumerate(zip(*places, strict=False), 1):
            if damage := _check_strip(content, directory, *place):
                return f"strip {number} of its page {page} {damage}"
    return ""


def _check_strip(content: bytes, directory: Directory, offset: int, length: int) -> str:
    """What is wrong with a strip or a tile of a TIFF."""
    compression = directory.value(tags.COMPRESSION, UNCOMPRESSED)
    # Without compression, decoding finds out whether all pixels are there, and the length may be
    # too large.
    end = offset + (1 if compression == UNCOMPRESSED else length)
    if not offset or not length or end > len(content):
        return "is missing"
    if directory.value(tags.FILL_ORDER, 1) != 1:  # each byte is reversed
        return ""
    strip = content[offset : offset + length]
    damage = ""
    if compression == JPEG:
        tables = directory.array(tags.JPEG_TABLES).tobytes()
        damage = _check_jpeg(tables[:-2] + strip[2:] if tables else strip)
    elif compression in DEFLATE:
        damage = _check_deflate(strip, Layout(directory).segment_bytes)
    return f"is damaged: {damage}" if damage else ""


def _check_deflate(strip: bytes, expected: int) -> str:
    """Whether the checksum at the end is right. The decoder stops before, at the last pixel.

    Of a strip that unpacks to more than is expected, nobody needs the end.
    """
    inflating = zlib.decompressobj()
    size = 0
    while strip and not inflating.eof and size <= expected:
        try:
            size += len(inflating.decompress(strip, INFLATED_AT_A_TIME))
        except zlib.error as error:
            return f"it can't be unpacked ({str(error).rpartition(': ')[2]})"
        strip = inflating.unconsumed_tail
    return ""


CHECKS: dict[bytes, Callable[[bytes], str]] = {  # by what the files of a format begin with
    b"\xff\xd8": _check_jpeg,
    b"\x89PNG\r\n\x1a\n": _check_png,
    b"GIF8": _check_gif,
    b"RIFF": _check_webp,
    b"II": _check_tiff,
    b"MM": _check_tiff,
    FITS: damage_of_fits,
    GZIP: damage_of_fits,
}
