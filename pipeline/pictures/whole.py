"""Whether a picture's bytes are all there, as its format says: each format knows its own end.

A file that is being uploaded is shorter than its format says, or it was given its full size first
and ends with zeros. A file that only breaks its format's rules is not judged here: decoding it says
what is wrong with it.
"""

import math
import re
import struct
from collections.abc import Callable, Iterator

JPEG, PNG, BMP = b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"BM"
GIF = (b"GIF87a", b"GIF89a")
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two are BigTIFF
FITS = b"SIMPLE  ="
FITS_BLOCK = 2880
# The reason that a whole picture may have, too: one that is black where its file ends.
ENDS_WITH_ZEROS = "it ends with zeros, as if it was given its size and is not filled yet"
FITS_CARD = 80
MAX_CARDS = 36 * 1000  # of one FITS header
MAX_PARTS = 1_000_000  # of a file that are looked at
SHORTEST = 12  # bytes that tell a format
ZEROS = (
    4096  # bytes at the end, or an eighth of a small file, that look as if they are to be filled
)

# In a JPEG's compressed samples, the first marker that isn't part of them.
JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
TIFF_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
TIFF_SIZES |= {13: 4, 16: 8, 17: 8, 18: 8}  # bytes of a value by its type
OFFSETS_AND_COUNTS = ((273, 279), (324, 325))  # the tags of strips and of tiles


def tells_its_end(content: bytes) -> bool:
    """Whether the format has an end that only a whole file can have.

    A FITS file or a TIFF may get another part behind a whole one, and a BMP may have been given its
    full size before its pixels.
    """
    return content.startswith((JPEG, PNG, *GIF)) or _is_webp(content)


def what_is_missing(content: bytes) -> str | None:
    """Why the picture can't be whole; None if it seems to be."""
    try:
        end = _end(content)
    except (IndexError, OverflowError, struct.error):
        return "its end, or what says where it ends, is missing"
    if end > len(content):
        return f"it has {len(content)} of the {end} bytes that its header says"
    length = min(ZEROS, len(content) // 8)
    # The zeros that fill a FITS file's last block are no part of its data.
    tail = content[max(0, end - length) : end] if content.startswith(FITS) else content[-length:]
    if end and not any(tail):
        return ENDS_WITH_ZEROS
    return None


def _end(content: bytes) -> int:
    """Where the picture ends by its header; 0 if its end is there, or if decoding must judge it.

    Raises `IndexError` or `struct.error` if an end marker, or a part of a header, is missing.
    """
    if len(content) < SHORTEST:
        raise IndexError
    if _is_webp(content):
        return 8 + _number("<I", content, 4)
    for beginning, end in ENDS.items():
        if content.startswith(beginning):
            return end(content)
    return 0


def _is_webp(content: bytes) -> bool:
    return content.startswith(b"RIFF") and content[8:12] == b"WEBP"


def _number(kind: str, content: bytes, at: int) -> int:
    """The number at this place. Raises `struct.error` where the file has ended."""
    (number,) = struct.unpack_from(kind, content, at)
    return int(number)


def _jpeg_end(content: bytes) -> int:
    """0 if the end marker comes after all segments; one in a thumbnail inside doesn't count."""
    at = 2
    for _ in range(MAX_PARTS):
        if content[at] != 0xFF:
            return 0  # it breaks the rules
        marker = content[at + 1]
        if marker == 0xD9:
            return 0
        if marker == 0xFF:  # a filler
            at += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:  # a marker without a segment
            at += 2
        else:
            at += 2 + _number(">H", content, at + 2)
            if marker == 0xDA:
                found = JPEG_MARKER.search(content, at)
                if not found:
                    raise IndexError
                at = found.start()
    return 0


def _png_end(content: bytes) -> int:
    at = len(PNG)
    for _ in range(MAX_PARTS):
        end = at + 12 + _number(">I", content, at)
        _ = content[end - 1]
        if content[at + 4 : at + 8] == b"IEND":
            break
        at = end
    return 0


def _gif_end(content: bytes) -> int:
    def table(flags: int) -> int:
        return 3 * 2 ** (1 + (flags & 7)) if flags & 0x80 else 0

    at = 13 + table(content[10])
    for _ in range(MAX_PARTS):
        kind = content[at]
        if kind == 0x21:  # an extension
            at += 2
        elif kind == 0x2C:  # a frame
            at += 11 + table(content[at + 9])
        elif kind:  # the trailer, or it breaks the rules
            break
        else:  # zeros are not filled yet
            raise IndexError
        while content[at]:  # the blocks of it, of which the last is empty
            at += 1 + content[at]
        at += 1
    return 0


def _bmp_end(content: bytes) -> int:
    """Where the file ends that the header describes."""
    size, offset = _number("<I", content, 2), _number("<I", content, 10)
    if _number("<I", content, 14) < 40:  # the header of OS/2, which has no compression
        return max(size, offset)
    width, height = _number("<i", content, 18), _number("<i", content, 22)
    bits, compression = _number("<H", content, 28), _number("<I", content, 30)
    is_plain = compression in (0, 3)
    samples = (width * bits + 31) // 32 * 4 * abs(height)
    return max(size, offset + (samples if is_plain else _number("<I", content, 34)))


def _tiff_end(content: bytes) -> int:
    """Where the last of the directories, their values, strips and tiles ends."""
    order = "<" if content.startswith(b"I") else ">"
    is_big = content[2:4].strip(b"\0") == b"+"
    kind, count_kind = (f"{order}Q", f"{order}Q") if is_big else (f"{order}I", f"{order}H")
    width = struct.calcsize(kind)
    entry_size, count_size = 4 + 2 * width, struct.calcsize(count_kind)
    ends = [8]
    seen: set[int] = set()
    entries = 0
    at = _number(kind, content, 8 if is_big else 4)
    if not at:
        raise IndexError  # its first directory is written last
    while at and at not in seen:
        seen.add(at)
        count = _number(count_kind, content, at)
        entries += count
        if entries > MAX_PARTS:
            break
        values: dict[int, list[int]] = {}
        for number in range(count):
            entry = at + count_size + number * entry_size
            tag, value_type = struct.unpack_from(f"{order}HH", content, entry)
            length = _number(kind, content, entry + 4)
            size = length * TIFF_SIZES.get(value_type, 1)
            place = entry + 4 + width
            if size > width:
                place = _number(kind, content, place)
                ends.append(place + size)
            code = {3: "H", 4: "I", 16: "Q"}.get(value_type)
            if code and place + size <= len(content) and tag in (273, 279, 324, 325):
                values[tag] = list(struct.unpack_from(f"{order}{length}{code}", content, place))
        for offsets, counts in OFFSETS_AND_COUNTS:
            pairs = zip(values.get(offsets, []), values.get(counts, []), strict=False)
            ends += [offset + length for offset, length in pairs]
        after = at + count_size + count * entry_size
        ends.append(after + width)
        at = _number(kind, content, after)
    return max(ends)


def _fits_end(content: bytes) -> int:
    """Where the data of the last part ends that the headers describe, without what fills it up.

    Raises `IndexError` if a header has begun and is not all there.
    """
    at = end = 0
    while not at or b"XTENSION".startswith(content[at : at + 8]):
        cards = list(_cards(content, at))
        numbers: dict[str, int] = {}
        for card in cards:
            name, value = card[:8].decode("ascii", "replace").rstrip(), card[10:30].strip()
            if re.fullmatch(rb"-?[0-9]{1,18}", value):
                numbers[name] = int(value)
            elif name == "GROUPS" and value == b"T":
                numbers[name] = 1
        data = at + _in_blocks(len(cards) * FITS_CARD)
        end = data + _fits_bytes(numbers)
        at = data + _in_blocks(end - data)
        if at >= len(content):
            break
    return end


def _in_blocks(size: int) -> int:
    """The size of so many bytes in whole blocks."""
    return -(-size // FITS_BLOCK) * FITS_BLOCK


def _cards(content: bytes, at: int) -> Iterator[bytes]:
    """The cards of a header, with the last one, END. Raises `IndexError` if that is missing."""
    for number in range(MAX_CARDS):
        begin = at + number * FITS_CARD
        card = content[begin : begin + FITS_CARD]
        if len(card) < FITS_CARD:
            break
        yield card
        if card.startswith(b"END     "):
            return
    raise IndexError


def _fits_bytes(numbers: dict[str, int]) -> int:
    """The bytes of a part's data."""
    count = min(999, numbers.get("NAXIS", 0))
    axes = [numbers.get(f"NAXIS{axis}", 0) for axis in range(1, count + 1)]
    if not axes:
        return 0
    if numbers.get("GROUPS") and axes[0] == 0:
        axes = axes[1:]
    values = numbers.get("PCOUNT", 0) + math.prod(axes)
    return max(0, abs(numbers.get("BITPIX", 8)) // 8 * numbers.get("GCOUNT", 1) * values)


ENDS: dict[bytes, Callable[[bytes], int]] = {
    JPEG: _jpeg_end,
    PNG: _png_end,
    **dict.fromkeys(GIF, _gif_end),
    BMP: _bmp_end,
    **dict.fromkeys(TIFF, _tiff_end),
    FITS: _fits_end,
}
