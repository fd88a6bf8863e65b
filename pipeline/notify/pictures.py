"""The pictures of a message: read from the mock databases, and made smaller where they must be."""

import io
import re
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from pipeline.comparison.shown import draw_shown
from pipeline.errors import InvalidInput, TransientError
from pipeline.messages import ImageEvent
from pipeline.store.database import Database
from pipeline.store.names import IMAGE_DATABASE, IMAGE_EVENT_DATABASE, digest
from pipeline.terminal import printable

SIDES = (1600, 640)  # pixels of the longer side of smaller pictures, the largest first


class Pictures:
    """The pictures of an image event, by the names that they have in a message."""

    def __init__(self, event: ImageEvent, databases: Mapping[str, Database]) -> None:
        """Read them from the databases, of which the mapping has each by its name."""
        self.missing: list[str] = []  # a line for each picture that can't be read
        self._contents: dict[str, bytes] = {}
        self._smaller: dict[int, dict[str, bytes]] = {}  # by the longer side
        # The event of another program may lack the paths of the images, which have these names.
        image = event.image_path or f"{IMAGE_DATABASE}/{event.image_id}.jpg"
        previous = event.previous_image_path or f"{IMAGE_DATABASE}/{event.previous_image_id}.jpg"
        for database, path, sha256 in (
            (IMAGE_DATABASE, image, None),
            (IMAGE_DATABASE, previous, None),
            (IMAGE_EVENT_DATABASE, event.difference_path, event.difference_sha256),
        ):
            if path is None:
                continue
            try:
                content = databases[database].files.read(path)
                if sha256 not in (None, digest(content)):
                    raise InvalidInput(f"{path} has other bytes than when it was stored")
            except (InvalidInput, TransientError) as reason:
                self.missing.append(f"Not attached: {printable(str(reason))}")
                continue
            # The name becomes part of a header, and not every channel quotes it.
            name = re.sub(r"[^\w.-]", "_", Path(path).name, flags=re.ASCII)
            self._contents[name] = content

    def fitting(self, size: int) -> dict[str, bytes]:
        """The pictures, as large as they can be in so many bytes of a message; or none."""
        if encoded_size(self._contents) <= size:
            return self._contents
        for side in SIDES:
            if side not in self._smaller:
                smaller = [_smaller(*picture, side) for picture in self._contents.items()]
                self._smaller[side] = dict(filter(None, smaller))
            if 0 < encoded_size(self._smaller[side]) <= size:
                return self._smaller[side]
        return {}

    def change_to(self, attached: Mapping[str, bytes]) -> str:
        """What was done to the pictures so that these are attached; empty if nothing was."""
        if attached == self._contents:
            return ""
        return "the pictures are made smaller" if attached else "the pictures are left out"


def encoded_size(pictures: Mapping[str, bytes]) -> int:
    """How many bytes they have in a message: base64 in lines of 76 characters."""
    return sum(-(-len(content) // 57) * 78 for content in pictures.values())


def _smaller(name: str, content: bytes, side: int) -> tuple[str, bytes] | None:
    """The name and content of a picture made smaller; None of a file that is no picture."""
    try:
        shown, _ = draw_shown(content, None, name)
    except InvalidInput:
        return None
    drawn = io.BytesIO()
    with Image.open(io.BytesIO(shown)) as image:
        image.thumbnail((side, side))
        image.convert("RGB").save(drawn, "JPEG", quality=85)
    if len(content) <= len(drawn.getvalue()):
        return name, content
    return f"{Path(name).stem}.jpg", drawn.getvalue()
