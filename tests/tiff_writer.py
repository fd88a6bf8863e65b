"""Write TIFFs of any layout, for tests: an encoder that shares nothing with the decoder."""

import lzma
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Planes = Sequence[NDArray[Any]]


class Page:
    """A picture in a TIFF, and how it is laid out.

    Of `how`: photometric, extra (samples), apart (planes), tile (width, height), rows (of a strip),
    compression, predictor, fill_order, more (tags and their numbers), missing (tags), and children
    (pages that belong to this page).
    """

    def __init__(self, planes: Planes, bits: int | None = None, **how: Any) -> None:
        self.planes = planes
        self.bits = bits or 8 * planes[0].dtype.itemsize
        self.how = {"compression": 1, "predictor": 1, "fill_order": 1, "rows": 7, **how}


def tiff(planes: Planes, bits: int | None = None, order: str = "<", **how: Any) -> bytes:
    """A TIFF of one picture."""
    is_big = how.pop("is_big", False)
    return tiff_of([Page(planes, bits, **how)], order, is_big)


def tiff_of(pages: Sequence[Page], order: str = "<", is_big: bool = False) -> bytes:
    """A TIFF of several pictures, or a BigTIFF."""
    out = bytearray(b"II" if order == "<" else b"MM")
    out += struct.pack(f"{order}HHHQ", 43, 8, 0, 0) if is_big else struct.pack(f"{order}HI", 42, 0)
    link = 8 if is_big else 4
    for page in pages:
        link = _write(out, page, order, "Q" if is_big else "I", link)
    return bytes(out)


def _write(out: bytearray, page: Page, order: str, word: str, link: int) -> int:
    """Write a picture, and its place at `link`; where the place of the next picture belongs."""
    entries = _entries(out, page, order)
    out += bytes(len(out) % 2)
    struct.pack_into(order + word, out, link, len(out))
    size = struct.calcsize(order + word)
    out += struct.pack(order + ("Q" if word == "Q" else "H"), len(entries))
    values_at = len(out) + (4 + 2 * size) * len(entries) + size
    values, children_at = b"", 0
    for tag, (code, numbers) in sorted(entries.items()):
        content = struct.pack(f"{order}{len(numbers)}{code}", *numbers)
        out += struct.pack(f"{order}HH{word}", tag, {"B": 7, "H": 3, "I": 4}[code], len(numbers))
        place = values_at + len(values)
        if tag == 330:
            children_at = len(out) if len(content) <= size else place
        if len(content) > size:
            values += content + bytes(len(content) % 2)
            content = struct.pack(order + word, place)
        out += content.ljust(size, b"\0")
    next_at = len(out)
    out += bytes(size) + values
    for number, child in enumerate(page.how.get("children", ())):
        _write(out, child, order, "I", children_at + 4 * number)
    return next_at


def _entries(out: bytearray, page: Page, order: str) -> dict[int, tuple[str, list[int]]]:
    """Write the samples of a picture; its tags, with their types and numbers."""
    how, count = page.how, len(page.planes)
    height, width = page.planes[0].shape
    kind = {"u": 1, "i": 2, "f": 3, "c": 6}[page.planes[0].dtype.kind]
    offsets, lengths = [], []
    for layer in [[plane] for plane in page.planes] if how.get("apart") else [page.planes]:
        for content in _segments(layer, page, order):
            offsets.append(len(out))
            lengths.append(len(content))
            out += content
    entries: dict[int, tuple[str, list[int]]] = {
        256: ("I", [width]),
        257: ("I", [height]),
        258: ("H", [page.bits] * count),
        259: ("H", [how["compression"]]),
        262: ("H", [how.get("photometric", 1)]),
        266: ("H", [how["fill_order"]]),
        277: ("H", [count]),
        284: ("H", [2 if how.get("apart") else 1]),
        317: ("H", [how["predictor"]]),
        339: ("H", [kind] * count),
    }
    if "tile" in how:
        entries |= {322: ("I", [how["tile"][0]]), 323: ("I", [how["tile"][1]])}
        entries |= {324: ("I", offsets), 325: ("I", lengths)}
    else:
        entries |= {273: ("I", offsets), 278: ("I", [how["rows"]]), 279: ("I", lengths)}
    if how.get("extra"):
        entries[338] = ("H", list(how["extra"]))
    if how.get("children"):
        entries[330] = ("I", [0] * len(how["children"]))
    for tag, numbers in how.get("more", {}).items():
        entries[tag] = ("H" if max(numbers) < 65536 else "I", list(numbers))
    for tag in how.get("missing", ()):
        del entries[tag]
    return entries


def _segments(planes: Planes, page: Page, order: str) -> Iterator[bytes]:
    """The bytes of the strips or tiles of samples that lie together."""
    values = np.stack(planes, axis=2)
    height, width = values.shape[:2]
    across, down = page.how.get("tile", (width, page.how["rows"]))
    for top in range(0, height, down):
        for left in range(0, width, across):
            part = values[top : top + down, left : left + across]
            if "tile" in page.how:
                missing = [(0, down - part.shape[0]), (0, across - part.shape[1]), (0, 0)]
                part = np.pad(part, missing)
            part = np.ascontiguousarray(part)
            if page.how["predictor"] > 1:
                content = _predicted(part, page.how["predictor"], order)
            else:
                content = _packed(part, page.bits, order)
            content = PACKERS[page.how["compression"]](content)
            if page.how["fill_order"] == 2:
                content = bytes(int(f"{byte:08b}"[::-1], 2) for byte in content)
            yield content


def _packed(values: NDArray[Any], bits: int, order: str) -> bytes:
    """Rows of numbers; each row begins with a byte of its own."""
    if bits == 8 * values.dtype.itemsize:
        return (values if order == "<" else values.byteswap()).tobytes()
    if bits == 24:
        as_bytes = values.astype(f"{order}u4")[..., np.newaxis].view(np.uint8)
        return as_bytes[..., slice(3) if order == "<" else slice(1, 4)].tobytes()
    rows = []
    for row in values.reshape(len(values), -1):
        text = "".join(format(int(value), f"0{bits}b") for value in row)
        text += "0" * (-len(text) % 8)
        rows.append(int(text, 2).to_bytes(len(text) // 8, "big"))
    return b"".join(rows)


def _predicted(values: NDArray[Any], predictor: int, order: str) -> bytes:
    """Rows x columns x samples as differences of integers (2), or of bytes (3)."""
    size = values.dtype.itemsize
    if predictor == 2:
        whole = values.view(f"u{size}")
        steps = np.concatenate([whole[:, :1], np.diff(whole, axis=1)], axis=1)
        return _packed(steps, 8 * size, order)
    rows, columns, samples = values.shape
    as_bytes = values.astype(values.dtype.newbyteorder(">")).view(np.uint8)
    apart = as_bytes.reshape(rows, columns * samples, size).swapaxes(1, 2)
    apart = apart.reshape(rows, -1, samples)
    return np.concatenate([apart[:, :1], np.diff(apart, axis=1)], axis=1).tobytes()


def _lzw(content: bytes) -> bytes:
    """Codes of 9 bits, none of which stands for more than a byte."""
    codes: list[int] = []
    for start in range(0, len(content), 200):
        codes += [256, *content[start : start + 200]]
    text = "".join(format(code, "09b") for code in [*codes, 257])
    text += "0" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big")


def _pack_bits(content: bytes) -> bytes:
    """Parts of up to 128 bytes, without a run."""
    parts = [content[start : start + 128] for start in range(0, len(content), 128)]
    return b"".join(bytes([len(part) - 1]) + part for part in parts)


PACKERS: dict[int, Callable[[bytes], bytes]] = {
    1: bytes,
    5: _lzw,
    8: zlib.compress,
    32773: _pack_bits,
    32946: zlib.compress,
    34925: lzma.compress,
}
