"""The mock camera: image n is a copy of image n - 1, turned by 90 degrees when n % 4 == 3."""

import io
import itertools
from collections.abc import Iterator

from PIL import Image, ImageOps

from pipeline.comparison.decode import FORMATS, decode
from pipeline.errors import FatalError, InvalidInput
from pipeline.pictures.files import Picture
from pipeline.settings import REPOSITORY, Location, Settings
from pipeline.store.database import Database
from pipeline.store.names import IMAGE_ORIGINAL

ORIGINAL = f"{IMAGE_ORIGINAL}/original_image.jpg"


def read_original(settings: Settings) -> bytes:
    """The picture to begin with; ends the program if there is none."""
    originals = Database(settings.data, IMAGE_ORIGINAL)
    if settings.data.directory is None and not originals.has(ORIGINAL):
        # Nobody has put an original into the object store.
        originals = Database(Location(str(REPOSITORY)), IMAGE_ORIGINAL)
    return read_image(originals, ORIGINAL)


def read_image(database: Database, path: str) -> bytes:
    """An image's bytes; ends the program if there is none to begin with."""
    try:
        content = database.read(path)
        decode(content, path)
    except InvalidInput as reason:
        raise FatalError(
            f"image_receiving: cannot begin: {reason}; put a picture there"
        ) from reason
    return content


def mock(first: int, picture: Picture) -> Iterator[Picture]:
    """The pictures of the mock camera from number `first` on; `picture` is the one before it."""
    for number in itertools.count(first):
        content = next_image(number, picture.content) if number else picture.content
        picture = Picture(content, picture.extension)
        yield picture


def next_image(number: int, previous: bytes) -> bytes:
    """Image `number` as the mock camera sends it: the previous one's bytes, turned or not."""
    if number % 4 != 3:
        return previous
    content = io.BytesIO()
    try:
        image = Image.open(io.BytesIO(previous), formats=FORMATS)
        turned = ImageOps.exif_transpose(image).transpose(Image.Transpose.ROTATE_90)
        if image.format in ("JPEG", "MPO"):
            turned.save(content, "JPEG", quality=95)
        else:
            turned.save(content, image.format, lossless=True)  # which only WebP needs to be told
    except (OSError, ValueError) as error:
        raise FatalError(
            f"image_receiving: the image before can't be turned: {error}; receive files with "
            "--from, or begin anew with another --source"
        ) from error
    return content.getvalue()
