"""Draw the difference image."""

import io

import numpy as np
from PIL import ImageDraw

from pipeline.comparison.measure import Change
from pipeline.retrying import retrying

MAX_SIDE = 16384  # of the difference image; JPEG allows 65500


@retrying
def draw(change: Change) -> bytes:
    """The difference image as JPEG: black where nothing changed, and the brighter the more did.

    Even the faintest change is well above black, and a small change has a frame around it.
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
