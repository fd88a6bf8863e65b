"""Pictures for browsers and mails: a file as it is if they can show it, else drawn anew."""

import io
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.comparison.decode import FORMATS, decode
from pipeline.comparison.planes import MAX_PIXELS, AnyImage, Planes
from pipeline.comparison.strips import strips
from pipeline.errors import InvalidInput
from pipeline.store.names import digest

SHOWN = {  # the formats that every browser shows, as Pillow names them
    "JPEG": "image/jpeg",
    "MPO": "image/jpeg",
    "PNG": "image/png",
    "GIF": "image/gif",
    "WEBP": "image/webp",
    "BMP": "image/bmp",
}
SHOWN_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")
DARK, BRIGHT = 0.5, 99.5  # the percentiles of the samples that become black and white
MAX_SAMPLES = 2**20  # that are looked at to find the percentiles
ORIENTATION = 0x0112
SIDE = 112  # pixels of the longer side of a small picture

MAX_LOOKS = 10_000  # at images, that are remembered
COLOURS = 3  # planes that can be seen at the same time

_drawing = threading.BoundedSemaphore(2)  # each picture may need a gigabyte of memory
_looks: dict[str, "Look"] = {}  # by an image's hash

Plane = NDArray[Any]  # one channel of an image


@dataclass(frozen=True)
class Look:
    """What was found when an image was looked at."""

    fault: str = ""  # why it can't be shown whole; empty if it can
    media_type: str = ""  # if browsers show it as the analysis sees it; else it is drawn for them


def look_at(content: bytes, path: str) -> Look:
    """Whether an image can be shown, and how.

    It is decoded for that: a browser would show the half of an image that is half there as if it
    were all.
    """
    image_hash = digest(content)
    if image_hash not in _looks:
        with _drawing:
            try:
                is_plain = _is_plain(decode(content, path))
                look = Look(media_type=_media_type_of(content) if is_plain else "")
            except InvalidInput as reason:
                look = Look(fault=str(reason))
        if len(_looks) >= MAX_LOOKS:
            _looks.clear()
        _looks[image_hash] = look
    return _looks[image_hash]


def _media_type_of(content: bytes) -> str:
    """The media type of an image that every browser shows upright; empty of others."""
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        is_shown = image.format in SHOWN and image.mode in SHOWN_MODES
        if image.format not in ("JPEG", "MPO"):  # browsers respect the orientation in these
            is_shown &= image.getexif().get(ORIENTATION, 1) == 1
            is_shown &= not getattr(image, "is_animated", False)
        return SHOWN[str(image.format)] if is_shown else ""


def draw_shown(content: bytes, other: bytes | None, path: str) -> tuple[bytes, str]:
    """An image drawn for browsers, and its media type. Raises `InvalidInput`.

    Samples of more than 8 bits are stretched to the range that most of them have, and of many
    planes those that changed most are shown, as colours. `other` is the image to compare with: both
    get the same stretch, and the same planes are shown.
    """
    with _drawing:
        image = decode(content, path)
        if _is_plain(image):
            shown = image.convert("RGB") if image.mode == "CMYK" else image
        else:
            planes, of_other = _planes_of(image), _planes_in(other)
            numbers = _shown_planes(planes, of_other)
            planes = [planes[number] for number in numbers]
            of_other = [of_other[number] for number in numbers if number < len(of_other)]
            low, high = _stretch([*planes, *of_other])
            levels = [Image.fromarray(_stretched(plane, low, high)) for plane in planes]
            shown = Image.merge("RGB", levels) if len(levels) == COLOURS else levels[0]
        drawn = io.BytesIO()
        if shown.mode == "RGBA":
            shown.save(drawn, "PNG", compress_level=1)
            return drawn.getvalue(), "image/png"
        shown.save(drawn, "JPEG", quality=95, subsampling=0)
        return drawn.getvalue(), "image/jpeg"


def draw_small(content: bytes, path: str) -> tuple[bytes, str]:
    """An image drawn small, and its media type. Raises `InvalidInput`."""
    with _drawing:
        try:
            image = Image.open(io.BytesIO(content), formats=FORMATS)
            if image.width * image.height > MAX_PIXELS:
                raise InvalidInput(f"{path} is too large: {image.width} x {image.height} pixels")
            image.draft("RGB", (2 * SIDE, 2 * SIDE))  # decodes a JPEG at a smaller size
            small = image.convert("RGB")
            small.thumbnail((SIDE, SIDE))
            drawn = io.BytesIO()
            small.save(drawn, "JPEG", quality=85)
        except InvalidInput:
            raise
        except Exception as error:  # decoders raise any error
            raise InvalidInput(f"{path} is no image, or damaged: {error}") from error
        return drawn.getvalue(), "image/jpeg"


def _is_plain(image: AnyImage) -> TypeGuard[Image.Image]:
    """Whether the image has 8 bits a sample, and needs no planes."""
    return image.mode in ("L", "RGB", "RGBA", "CMYK")


def _planes_of(image: AnyImage) -> list[Plane]:
    return list(image.planes) if isinstance(image, Planes) else [np.asarray(image)]


def _planes_in(content: bytes | None) -> list[Plane]:
    """The planes of the image to compare with; none if it has 8 bits a sample, or can't be read."""
    if content is None:
        return []
    with suppress(InvalidInput):
        image = decode(content)
        return [] if _is_plain(image) else _planes_of(image)
    return []


def _shown_planes(planes: Sequence[Plane], of_other: Sequence[Plane]) -> list[int]:
    """The numbers of the planes to show: one as grey, or three as colours.

    Three planes are colours. Of another number, those are shown that changed most, since a change
    in a plane that is not shown would not be seen.
    """
    if len(planes) == COLOURS:
        return [0, 1, 2]
    changes = {
        number: change
        for number, (plane, other) in enumerate(zip(planes, of_other, strict=False))
        if (change := _change(plane, other)) > 0
    }
    most = sorted(sorted(changes, key=lambda number: -changes[number])[:COLOURS])
    if not changes:
        return [0, 1, 2] if len(planes) > COLOURS else [0]
    # Of two planes that changed, the second one has two colours.
    return most if len(most) == 1 else [*most, most[-1]][:COLOURS]


def _change(plane: Plane, other: Plane) -> float:
    """The sum of the differences of the samples that both have."""
    height, width = (min(sides) for sides in zip(plane.shape, other.shape, strict=True))
    total = 0.0
    for top, bottom in strips(width, height):
        with np.errstate(all="ignore"):  # some samples may be NaN or infinite
            difference = plane[top:bottom, :width] - other[top:bottom, :width].astype(np.float64)
        total += float(np.abs(difference[np.isfinite(difference)]).sum())
    return total


def _stretched(plane: Plane, low: float, high: float) -> NDArray[np.uint8]:
    """The brightness of each sample, in strips: larger numbers of all would need much memory."""
    height, width = plane.shape
    levels = np.empty((height, width), np.uint8)
    for top, bottom in strips(width, height):
        with np.errstate(all="ignore"):  # some samples may be NaN or infinite
            level = np.clip((plane[top:bottom].astype(np.float64) - low) / (high - low), 0, 1)
        levels[top:bottom] = np.nan_to_num(level * 255)
    return levels


def _stretch(planes: Sequence[Plane]) -> tuple[float, float]:
    """The values of the samples that become black and white."""
    some = np.concatenate(
        [plane.flat[:: max(1, plane.size // MAX_SAMPLES)].astype(np.float64) for plane in planes]
    )
    some = some[np.isfinite(some)]
    low, high = np.percentile(some, [DARK, BRIGHT]) if some.size else (0.0, 1.0)
    return float(low), float(high) if high > low else float(low) + 1
