"""The names of the mock databases, and of the files in them."""

import hashlib
import re

from pipeline.messages import IMAGE_ID

IMAGE_ORIGINAL = "image_original"
IMAGE_DATABASE = "image_database"
IMAGE_EVENT_DATABASE = "image_event_database"
IMAGE_EVENT_ALERTS = "image_event_alerts"

# An image keeps the extension that it came with; the first is the usual one.
EXTENSIONS = (
    *("jpg", "jpeg", "png", "tif", "tiff", "fits", "fit", "fts", "gif", "bmp", "webp"),
    *("fits.fz", "fits.gz"),
)
PACKED_FITS = {"fz": "fits.fz", "fit.gz": "fits.gz", "fts.gz": "fits.gz"}  # as they are stored
IMAGE = re.compile(  # the name of an image's file
    rf"({IMAGE_ID})\.({'|'.join(map(re.escape, EXTENSIONS))})"
)
EVENT_PATH = re.compile(rf"{IMAGE_EVENT_DATABASE}/image_event_({IMAGE_ID})\.(txt|jpg)")
ALERT_PATH = re.compile(rf"{IMAGE_EVENT_ALERTS}/image_event_alert_({IMAGE_ID})\.txt")


def image_path(image_id: str, extension: str = EXTENSIONS[0]) -> str:
    """The path of an image."""
    return f"{IMAGE_DATABASE}/{image_id}.{extension}"


def extension_of(name: str) -> str:
    """The extension under which an image from a file of this name is stored; empty if none is."""
    for extension in sorted((*EXTENSIONS, *PACKED_FITS), key=len, reverse=True):
        if name.lower().endswith(f".{extension}"):
            return PACKED_FITS.get(extension, extension)
    return ""


def event_path(event_id: str, extension: str = "txt") -> str:
    """The path of an image event's description, or with `jpg` of its difference image."""
    return f"{IMAGE_EVENT_DATABASE}/image_event_{event_id}.{extension}"


def alert_path(event_id: str) -> str:
    """The path of an alert."""
    return f"{IMAGE_EVENT_ALERTS}/image_event_alert_{event_id}.txt"


def digest(content: bytes) -> str:
    """The SHA-256 of these bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()
