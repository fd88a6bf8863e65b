"""Decode the bytes of a picture file into pixels that can be compared."""

import io
import warnings

from PIL import Image, ImageOps, UnidentifiedImageError

from pipeline.comparison import bmp, png
from pipeline.comparison.fits import is_fits, read_fits
from pipeline.comparison.jpeg import jpeg_refusal
from pipeline.comparison.planes import AnyImage, check_size
from pipeline.comparison.tiff import Layout, alone, read_planes
from pipeline.comparison.tiff_directories import is_tiff, pictures_in
from pipeline.errors import InvalidInput, PipelineError
from pipeline.retrying import retrying

FORMATS = ("JPEG", "PNG", "TIFF", "GIF", "BMP", "WEBP")
FORMAT_NAMES = "JPEG, PNG, TIFF, FITS, GIF, BMP and WebP"  # what is decoded, for people
BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"RIFF")  # of these
# How errors of Pillow begin that say nothing to people; nor do errors that aren't Pillow's own.
UNCLEAR = ("decoder error", "could not create decoder", "failed to read", "cannot load")

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
        if is_fits(content):
            return read_fits(content, path)
        if is_tiff(content):
            return _decode_tiff(content, path)
        return (_decode_bmp if content.startswith(b"BM") else _decode)(content, path)
    except (PipelineError, MemoryError):
        raise
    except Exception as error:  # decoders raise whatever they stumble over
        raise InvalidInput(f"{path} {_what_is_wrong(content, error)}") from error


def _what_is_wrong(content: bytes, error: Exception) -> str:
    """What is wrong with a file in which a decoder stumbled over this error."""
    if reason := jpeg_refusal(content):
        return f"is a JPEG with {reason}, which can't be read"
    if str(error).startswith("Decompressed data too large"):  # Pillow's limit for texts in a PNG
        return "has a compressed text that is too large"
    if not isinstance(error, UnidentifiedImageError):
        is_clear = isinstance(error, OSError) and not str(error).startswith(UNCLEAR)
        return f"is a damaged image: {error if is_clear else 'its bytes make no picture'}"
    if content.startswith(BEGINNINGS) or is_tiff(content):
        return "is a damaged image: what it says of itself is cut"
    return f"is no image of {FORMAT_NAMES}"


def _decode(content: bytes, path: str) -> AnyImage:
    image = Image.open(io.BytesIO(content), formats=FORMATS)
    check_size(*image.size, path)
    if image.format == "TIFF" and not is_tiff(content):
        raise InvalidInput(f"{path} is a damaged image: it begins as no TIFF does")
    if image.mode not in MODES:
        raise InvalidInput(f"{path} has the mode {image.mode}, which can't be compared")
    if image.format == "PNG" and png.needs_planes(image):
        return png.read_planes(content, image, path)
    image.load()
    ImageOps.exif_transpose(image, in_place=True)
    mode = MODES[image.mode]
    if "transparency" in image.info and mode in ("L", "RGB"):
        mode = "RGBA"  # a grey or a colour means transparent
        if image.format == "PNG" and image.mode == "L":
            image.info["transparency"] *= png.grey_step(content)
    upright = image if image.mode == mode else image.convert(mode)
    upright.info = {}  # Pillow would copy it to each strip
    return upright


def _decode_tiff(content: bytes, path: str) -> AnyImage:
    """The main picture of a TIFF, by Pillow if it has a mode that keeps every sample."""
    pictures, main = pictures_in(content, path)
    layout = Layout(pictures[main])
    layout.check(path)
    if layout.is_pillows:
        # Pillow takes a BigTIFF of big-endian order for a TIFF.
        is_seen = main == 0 and not content.startswith(b"MM\0+")
        return _decode(content if is_seen else alone(content, pictures[main]), path)
    return read_planes(content, layout, path)


def _decode_bmp(content: bytes, path: str) -> AnyImage:
    """A BMP, by Pillow if it keeps every sample."""
    layout = bmp.Layout(content)
    if layout.refusal:
        raise InvalidInput(f"{path} is a BMP with {layout.refusal}, which can't be read")
    return layout.read(path) if layout.needs_planes else _decode(content, path)
