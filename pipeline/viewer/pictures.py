"""Pictures as a browser can show them: the bytes as they are where it can, drawn anew elsewhere."""

import io
import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.comparison.decode import FORMATS, MAX_PIXELS, decode
from pipeline.errors import InvalidInput

SHOWN = {  # by every browser, and as Pillow names them
    "JPEG": "image/jpeg",
    "MPO": "image/jpeg",
    "PNG": "image/png",
    "GIF": "image/gif",
    "WEBP": "image/webp",
    "BMP": "image/bmp",
}
SHOWN_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")
DARK, BRIGHT = 0.5, 99.5  # percentiles of the samples that become black and white
ENOUGH = 2**20  # samples to find them
ORIENTATION = 0x0112
SIDE = 112  # of a small picture, in pixels

_drawing = threading.BoundedSemaphore(2)  # each takes up to half a gigabyte


def kind_of(content: bytes) -> str:
    """The media type of an image that a browser shows as we compare it; nothing of another one."""
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            is_shown = image.format in SHOWN and image.mode in SHOWN_MODES
            is_shown &= image.width * image.height <= MAX_PIXELS
            if image.format not in ("JPEG", "MPO"):  # whose orientation all browsers know
                is_shown &= image.getexif().get(ORIENTATION, 1) == 1
                is_shown &= not getattr(image, "is_animated", False)
            return SHOWN[str(image.format)] if is_shown else ""
    except Exception:  # decoders raise whatever they stumble over; decode() says it in words
        return ""


def draw_shown(content: bytes, other: bytes | None, path: str) -> tuple[bytes, str]:
    """An image drawn for a browser, and its media type. Raises `Unusable`.

    More than 8 bits a sample are stretched so that what matters is seen; `other` is the image it
    is compared with, for which the stretch is the same.
    """
    with _drawing:
        image = decode(content, path)
        if image.mode in ("L", "RGB", "RGBA", "CMYK"):
            shown = image.convert("RGB") if image.mode == "CMYK" else image
        else:
            samples = [np.asarray(image, np.float64)]
            if other is not None:
                with_other = _deep(other)
                samples += [with_other] if with_other is not None else []
            low, high = _stretch(samples)
            with np.errstate(all="ignore"):  # of samples that are no number, or next to infinite
                level = np.clip((samples[0] - low) / (high - low), 0, 1) * 255
            shown = Image.fromarray(np.nan_to_num(level).astype(np.uint8))
        drawn = io.BytesIO()
        if shown.mode == "RGBA":
            shown.save(drawn, "PNG", compress_level=1)
            return drawn.getvalue(), "image/png"
        shown.save(drawn, "JPEG", quality=95, subsampling=0)
        return drawn.getvalue(), "image/jpeg"


def draw_small(content: bytes, path: str) -> tuple[bytes, str]:
    """An image small, and its media type. Raises `Unusable`."""
    with _drawing:
        try:
            image = Image.open(io.BytesIO(content), formats=FORMATS)
            if image.width * image.height > MAX_PIXELS:
                raise InvalidInput(f"{path} is too large: {image.width} x {image.height} pixels")
            image.draft("RGB", (2 * SIDE, 2 * SIDE))  # a JPEG is decoded small
            small = image.convert("RGB")
            small.thumbnail((SIDE, SIDE))
            drawn = io.BytesIO()
            small.save(drawn, "JPEG", quality=85)
        except InvalidInput:
            raise
        except Exception as error:  # decoders raise whatever they stumble over
            raise InvalidInput(f"{path} is no image, or damaged: {error}") from error
        return drawn.getvalue(), "image/jpeg"


def _deep(content: bytes) -> NDArray[np.float64] | None:
    """The samples of an image that needs a stretch."""
    try:
        image = decode(content)
    except InvalidInput:
        return None
    return None if image.mode in ("L", "RGB", "RGBA", "CMYK") else np.asarray(image, np.float64)


def _stretch(images: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    """Which samples become black and white."""
    some = np.concatenate([one.ravel()[:: max(1, one.size // ENOUGH)] for one in images])
    some = some[np.isfinite(some)]
    low, high = np.percentile(some, [DARK, BRIGHT]) if some.size else (0.0, 1.0)
    return float(low), float(high) if high > low else float(low) + 1
