"""Pictures for browsers: a file as it is if browsers can show it, and drawn anew if they can't."""

import io
import threading
from collections.abc import Sequence
from functools import reduce

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.comparison.decode import FORMATS, decode
from pipeline.comparison.fits import is_fits
from pipeline.comparison.planes import MAX_PIXELS, AnyImage, Planes
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

MAX_FAULTS = 10_000  # of images looked at last, that are remembered

_drawing = threading.BoundedSemaphore(2)  # each picture needs up to half a gigabyte of memory
_faults: dict[str, str] = {}  # by an image's hash: why it can't be shown; empty if it can


def kind_of(content: bytes) -> str:
    """The media type of an image that browsers show as the analysis sees it; empty of others."""
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            is_shown = image.format in SHOWN and image.mode in SHOWN_MODES
            is_shown &= image.width * image.height <= MAX_PIXELS
            if image.format not in ("JPEG", "MPO"):  # browsers respect the orientation in these
                is_shown &= image.getexif().get(ORIENTATION, 1) == 1
                is_shown &= not getattr(image, "is_animated", False)
            return SHOWN[str(image.format)] if is_shown else ""
    except Exception:  # decoders raise any error; draw_shown() says what is wrong
        return ""


def fault_of(content: bytes, path: str) -> str:
    """Why an image can't be shown whole; empty if it can.

    A browser would show the half of an image that is half there as if it were all.
    """
    image_hash = digest(content)
    if image_hash not in _faults:
        with _drawing:
            try:
                decode(content, path)
                fault = ""
            except InvalidInput as reason:
                fault = str(reason)
        if len(_faults) >= MAX_FAULTS:
            _faults.clear()
        _faults[image_hash] = fault
    return _faults[image_hash]


def draw_shown(content: bytes, other: bytes | None, path: str) -> tuple[bytes, str]:
    """An image drawn for browsers, and its media type. Raises `InvalidInput`.

    Samples of more than 8 bits are stretched to the range that most of them have. `other` is the
    image to compare with: both get the same stretch.
    """
    with _drawing:
        image = decode(content, path)
        if isinstance(image, Image.Image) and image.mode in ("L", "RGB", "RGBA", "CMYK"):
            shown = image.convert("RGB") if image.mode == "CMYK" else image
        else:
            samples = [_shown_samples(image, content)]
            if other is not None:
                with_other = _deep(other)
                samples += [with_other] if with_other is not None else []
            low, high = _stretch(samples)
            with np.errstate(all="ignore"):  # some samples may be NaN or infinite
                level = np.clip((samples[0] - low) / (high - low), 0, 1) * 255
            shown = Image.fromarray(np.nan_to_num(level).astype(np.uint8))
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


def _deep(content: bytes) -> NDArray[np.float64] | None:
    """The samples of an image with more than 8 bits a sample; None of another."""
    try:
        image = decode(content)
    except InvalidInput:
        return None
    is_deep = image.mode not in ("L", "RGB", "RGBA", "CMYK")
    return _shown_samples(image, content) if is_deep else None


def _shown_samples(image: AnyImage, content: bytes) -> NDArray[np.float64]:
    """The samples that are shown: three or four planes as colours, of others the brightest plane.

    In FITS, planes are no colours, but pictures of several CCDs or wavelengths.
    """
    if not isinstance(image, Planes):
        return np.asarray(image, np.float64)
    if len(image.planes) in (3, 4) and not is_fits(content):
        return np.stack(image.planes[:3], axis=2, dtype=np.float64)
    return reduce(np.fmax, image.planes).astype(np.float64)


def _stretch(images: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    """The values of the samples that become black and white."""
    some = np.concatenate([image.ravel()[:: max(1, image.size // MAX_SAMPLES)] for image in images])
    some = some[np.isfinite(some)]
    low, high = np.percentile(some, [DARK, BRIGHT]) if some.size else (0.0, 1.0)
    return float(low), float(high) if high > low else float(low) + 1
