"""The parts that only one of two images has, if their sizes differ."""

from PIL import Image

from pipeline.comparison.overlap import Box, numbers_in
from pipeline.comparison.planes import MAX_PIXELS, AnyImage


def unmatched_parts(
    previous: AnyImage, image: AnyImage, mask: Image.Image | None
) -> dict[Box, Image.Image]:
    """The parts that only one image has, by their boxes, in mode L: 255 is a pixel that counts.

    A pixel doesn't count if the mask covers it, or if it is no number.
    """
    width, height = min(previous.width, image.width), min(previous.height, image.height)
    parts = {}
    for either in (previous, image):
        for box in ((width, 0, *either.size), (0, height, width, either.height)):
            left, top, right, bottom = box
            if left == right or top == bottom:
                continue
            parts[box] = Image.new("L", (right - left, bottom - top), 255)
            if mask:
                parts[box].paste(0, mask=mask.crop(box))
            is_number = numbers_in(either.crop(box))
            if is_number is not None:
                parts[box].paste(0, mask=Image.fromarray(~is_number))
    return parts


def changed_boxes(parts: dict[Box, Image.Image]) -> list[Box]:
    """The box around the pixels that count, of each part that has some."""
    boxes = []
    for (part_left, part_top, _, _), part in parts.items():
        if box := part.getbbox():
            left, top, right, bottom = box
            boxes.append((part_left + left, part_top + top, part_left + right, part_top + bottom))
    return boxes


def with_unmatched_parts(
    overlap: Image.Image, parts: dict[Box, Image.Image], size: tuple[int, int]
) -> Image.Image:
    """The overlap with the unmatched parts beside it; cut to a size if that would be too large.

    A wide image and a tall image can make a picture that is far larger than each of them.
    """
    _, _, rights, bottoms = zip((0, 0, *overlap.size), *parts, strict=True)
    width, height = max(rights), max(bottoms)
    canvas = Image.new("L", (width, height) if width * height <= MAX_PIXELS else size)
    canvas.paste(overlap)
    for (left, top, _, _), part in parts.items():
        canvas.paste(part, (left, top))
    return canvas
