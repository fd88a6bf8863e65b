"""Names of the mock databases and of the files in them."""

import hashlib
import re

from pipeline.messages import IMAGE_ID

IMAGE_ORIGINAL = "image_original"


IMAGE_DATABASE = "image_database"


IMAGE_EVENT_DATABASE = "image_event_database"


IMAGE_EVENT_ALERTS = "image_event_alerts"


# As images come; the first is the usual one.
EXTENSIONS = ("jpg", "jpeg", "png", "tif", "tiff", "fits", "fit", "fts", "gif", "bmp", "webp")


IMAGE = re.compile(rf"({IMAGE_ID})\.({'|'.join(EXTENSIONS)})")  # an image's file


def image_path(name: str, extension: str = EXTENSIONS[0]) -> str:
    """Where the image of this id is stored."""
    return f"{IMAGE_DATABASE}/{name}.{extension}"


def digest(content: bytes) -> str:
    """The SHA-256 of these bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()
