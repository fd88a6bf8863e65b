"""Decode the bytes of a picture file into pixels that can be compared."""

import io
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from pipeline.comparison.fits import is_fits, read_fits
from pipeline.comparison.planes import DEEP, AnyImage, check_size, is_number
from pipeline.comparison.strips import strips
from pipeline.errors import InvalidInput, PipelineError
from pipeline.retrying import retrying

FORMATS = ("JPEG", "PNG", "TIFF", "GIF", "BMP", "WEBP")
FORMAT_NAMES = "JPEG, PNG, TIFF, FITS, GIF, BMP and WebP"  # what is decoded, for people
BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG", b"II*\0", b"MM\0*", b"GIF8", b"BM", b"RIFF")  # of these

MODES = {  # of Pillow: the mode in which an image of that mode is compared
    **{mode: mode for mode in ("L", "RGB", "RGBA", "CMYK", "I;16")},
    "1": "L",
    "LA": "RGBA",
    "P": "RGBA",
    "PA": "RGBA",
    "YCbCr": "RGB",
    "RGBX": "RGB",
    "I;16B": "I;16",
    "I;16L": "I;16",
    "I;16N": "I;16",
    "I": "I",
    "F": "F",
}

# Pillow's own limit is off: check_size applies ours before anything is decoded.
Image.MAX_IMAGE_PIXELS = None
# Pillow's warnings about damaged files are off: decode() raises an error that says what is wrong.
warnings.filterwarnings("ignore", module="PIL")
# Pillow keeps up to 16 freed blocks of memory for the next image, instead of none: that makes
# decoding large images 1.75 times as fast.
Image.core.set_blocks_max(16)  # type: ignore[attr-defined]


@retrying
def decode(content: bytes, path: str = "the file") -> AnyImage:
    """The image in a file's bytes, upright, in the mode in which it is compared.

    Raises `InvalidInput` if there is none, or none that can be compared exactly. The `path` is only
    for the error's text.
    """
    try:
        upright = (read_fits if is_fits(content) else _decode)(content, path)
        if upright.mode == "F" and not any(
            is_number(np.asarray(upright.crop((0, top, upright.width, bottom)))).any()
            for top, bottom in strips(*upright.size)
        ):
            raise InvalidInput(f"{path} has no pixel with a value")
        return upright
    except (PipelineError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        if content.startswith(BEGINNINGS):
            raise InvalidInput(
                f"{path} is a damaged image: what it says of itself is cut"
            ) from error
        raise InvalidInput(f"{path} is no image of {FORMAT_NAMES}") from error
    except Exception as error:  # decoders raise whatever they stumble over
        raise InvalidInput(f"{path} is a damaged image: {error}") from error


def _decode(content: bytes, path: str) -> Image.Image:
    image = Image.open(io.BytesIO(content), formats=FORMATS)
    check_size(*image.size, path)
    if image.mode not in MODES:
        raise InvalidInput(f"{path} has the mode {image.mode}, which can't be compared")
    if image.mode not in DEEP and any(";16" in str(tile.args) for tile in image.tile):
        # Pillow drops the lower 8 bits of each sample, so a change there would go unseen.
        raise InvalidInput(
            f"{path} has 16-bit colour, which can't be compared exactly; 16-bit grey can"
        )
    image.load()
    ImageOps.exif_transpose(image, in_place=True)
    upright = image if image.mode == MODES[image.mode] else image.convert(MODES[image.mode])
    upright.info = {}  # Pillow would copy it to each strip
    return upright
