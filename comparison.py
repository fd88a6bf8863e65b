"""What differs between two images: exact, and without files or Kafka.

Any difference counts, in any channel. Images of one mode are compared in that mode; of two modes,
as RGB (RGBA if one has transparency). Sizes that differ are laid over each other at the top left;
where only one of the two has pixels, the difference is full scale.
"""

import dataclasses
import io
import math
import warnings
from functools import reduce

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageOps, UnidentifiedImageError

from pipeline import Unusable
from pipeline.patience import patiently

FORMATS = ("JPEG", "PNG", "TIFF", "GIF", "BMP", "WEBP")
MAX_PIXELS = 100_000_000  # about 0.4 GB decoded, and three times that while it is compared
STRIP = 2**17  # pixels that are compared at a time
MAX_SIDE = 16384  # of the difference image; JPEG can have 65500
MODES = {  # as Pillow decodes them: as we compare them
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
}
DEEP = ("I;16", "I")

# decode() looks at the size itself, before anything is decoded.
Image.MAX_IMAGE_PIXELS = None
# What decode() makes of a damaged file is said in its own words.
warnings.filterwarnings("ignore", module="PIL")
# Larger blocks of memory make decoding large images 1.75 times as fast.
Image.core.set_blocks_max(16)  # type: ignore[attr-defined]


@dataclasses.dataclass(frozen=True)
class Change:
    """How one image differs from another."""

    l2_norm: float  # the root of the sum of the squared differences of all samples
    rms: float  # the root of their mean; in the samples' own unit
    changed_pixels: int
    pixels: int
    box: tuple[int, int, int, int]  # left, top, right, bottom around the changed pixels
    full_scale: int  # the greatest difference that two samples can have
    largest: Image.Image  # mode L: each pixel's largest difference; more than 0 if there is any

    @property
    def changed_share(self) -> float:
        """Changed pixels by all pixels, 0 to 1."""
        return self.changed_pixels / self.pixels

    @property
    def percent(self) -> str:
        """The changed share for people, never rounded to 0 %."""
        return f"{100 * self.changed_share:.3g} %"


@patiently
def decode(content: bytes, path: str = "the file") -> Image.Image:
    """The image in these bytes of a file, upright, in a mode of `MODES`. Raises `Unusable`."""
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise Unusable(f"{path} has {width} x {height} pixels, more than {MAX_PIXELS:,} in all")
        if image.mode not in MODES:
            raise Unusable(f"{path} has the mode {image.mode}, which can't be compared")
        if image.mode not in DEEP and any(";16" in str(tile.args) for tile in image.tile):
            # Pillow drops the lower half: a change there would go unseen.
            raise Unusable(
                f"{path} has 16-bit colour, which can't be compared exactly; 16-bit grey can"
            )
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        upright = image if image.mode == MODES[image.mode] else image.convert(MODES[image.mode])
        upright.info = {}  # of no more use, and each part of the image would get a copy
        return upright
    except (Unusable, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise Unusable(f"{path} is no image of {', '.join(FORMATS)}") from error
    except Exception as error:  # decoders raise whatever they stumble over
        raise Unusable(f"{path} is a damaged image: {error}") from error


@patiently
def compare(previous: Image.Image, image: Image.Image) -> Change | None:
    """What differs between two decoded images; None if nothing does."""
    if previous is image:
        return None
    is_deep = previous.mode in DEEP or image.mode in DEEP
    squares, largest, channels = (_overlap_deep if is_deep else _overlap)(previous, image)
    sizes = {previous.size, image.size}
    if len(sizes) == 1 and not squares:
        return None
    full_scale = 65535 if is_deep else 255
    both = largest.width * largest.height
    in_one_only = sum(one.width * one.height - both for one in (previous, image))
    squares += in_one_only * channels * full_scale**2
    pixels = both + in_one_only
    boxes = [largest.getbbox() or (0, 0, 0, 0)]
    for width, height in sizes:
        boxes.append((largest.width, 0, width, height) if width > largest.width else boxes[0])
        boxes.append((0, largest.height, width, height) if height > largest.height else boxes[0])
    boxes = [box for box in boxes if any(box)]
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return Change(
        l2_norm=math.sqrt(squares),
        rms=math.sqrt(squares / (pixels * channels)),
        changed_pixels=int(np.count_nonzero(np.asarray(largest))) + in_one_only,
        pixels=pixels,
        box=(min(lefts), min(tops), max(rights), max(bottoms)),
        full_scale=full_scale,
        largest=largest if len(sizes) == 1 else _laid_over(largest, previous, image),
    )


def _overlap(previous: Image.Image, image: Image.Image) -> tuple[float, Image.Image, int]:
    """How two images differ where both have pixels.

    The sum of the squared differences of all samples, each pixel's largest difference as an image
    of mode L, and the number of channels.
    """
    modes = {previous.mode, image.mode}
    mode = image.mode if len(modes) == 1 else "RGBA" if "RGBA" in modes else "RGB"
    width, height = min(previous.width, image.width), min(previous.height, image.height)
    largest = np.zeros((height, width), np.uint8)
    squares = 0
    for top, bottom in _strips(width, height):
        strip = (0, top, width, bottom)
        before, after = previous.crop(strip), image.crop(strip)
        if len(modes) > 1:
            before, after = before.convert(mode), after.convert(mode)
        difference = ImageChops.difference(before, after)
        box = difference.getbbox(alpha_only=False)
        if box is None:
            continue
        left, upper, right, lower = box
        bands = [np.asarray(band) for band in difference.crop(box).split()]
        largest[top + upper : top + lower, left:right] = reduce(np.maximum, bands)
        # In integers, so that the sum is exact: 65536 rows of 255 squared are less than 2**32.
        columns = [np.square(band, dtype=np.uint16).sum(axis=0, dtype=np.uint32) for band in bands]
        squares += int(np.sum(columns, dtype=np.uint64))
    return squares, Image.fromarray(largest), Image.getmodebands(mode)


def _overlap_deep(previous: Image.Image, image: Image.Image) -> tuple[float, Image.Image, int]:
    """As `_overlap`, where one image or both have more than 8 bits a sample: in 16-bit units."""
    as_is = previous.mode in DEEP and image.mode in DEEP
    width, height = min(previous.width, image.width), min(previous.height, image.height)
    parts = _strips(width, height)  # whole images of these samples would be large
    largest = np.empty((height, width), np.uint32)
    squares, channels = 0.0, 0
    for top, bottom in parts:
        box = (0, top, width, bottom)
        before, after = (_samples(one.crop(box), as_is) for one in (previous, image))
        difference = np.abs(after - before)
        difference.max(axis=2, out=largest[top:bottom], initial=0)
        squares += float(np.square(difference, dtype=np.float64).sum())
        channels = difference.shape[2]
    # The scale of the greatest difference: full scale, if there are pixels in one image only.
    greatest = max(int(largest.max()), 1) if previous.size == image.size else 65535
    scaled = np.empty((height, width), np.uint8)
    for top, bottom in parts:
        scaled[top:bottom] = np.ceil(np.minimum(largest[top:bottom] / greatest, 1) * 255)
    return squares, Image.fromarray(scaled), channels


def _strips(width: int, height: int) -> list[tuple[int, int]]:
    """An image's rows in parts that the processor's cache holds: the top and bottom of each."""
    rows = min(max(1, STRIP // width), 65536)
    return [(top, min(top + rows, height)) for top in range(0, height, rows)]


def _laid_over(largest: Image.Image, previous: Image.Image, image: Image.Image) -> Image.Image:
    """What both images have, and around it, at full scale, what only one of them has."""
    width, height = max(previous.width, image.width), max(previous.height, image.height)
    if width * height > MAX_PIXELS:  # as a strip and the same strip turned
        width, height = image.size
    canvas = Image.new("L", (width, height))
    for one in (previous, image):
        canvas.paste(255, (0, 0, *one.size))
    canvas.paste(largest)
    return canvas


def _samples(image: Image.Image, as_is: bool) -> NDArray[np.int64]:
    """H x W x channels; unless `as_is`, four channels in which 65535 is full scale."""
    if image.mode not in DEEP:
        return np.asarray(image.convert("RGBA"), np.int64) * 257
    grey = np.asarray(image, np.int64)[:, :, np.newaxis]
    return grey if as_is else np.concatenate([grey, grey, grey, np.full_like(grey, 65535)], axis=2)


@patiently
def draw(change: Change) -> bytes:
    """The difference image, as JPEG: what changed, bright on black, the more the brighter.

    Even the faintest change is well above black, and a frame shows where a small one is.
    """
    greatest = int(np.asarray(change.largest).max())
    level = np.minimum(np.arange(256) / greatest, 1) ** 0.6
    level[1:] = 0.25 + 0.75 * level[1:]
    picture = change.largest.point((level * 255).round().astype(int).tolist())
    left, top, right, bottom = change.box
    margin = max(picture.size) // 100 + 2
    if max(right - left, bottom - top) < max(picture.size) // 2:
        ImageDraw.Draw(picture).rectangle(
            (left - margin, top - margin, right + margin, bottom + margin),
            outline=255,
            width=max(1, margin // 6),
        )
    picture.thumbnail((MAX_SIDE, MAX_SIDE))
    content = io.BytesIO()
    picture.save(content, "JPEG")
    return content.getvalue()
