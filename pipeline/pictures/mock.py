"""The mock camera: image n is a copy of image n - 1, turned by 90 degrees when n % 4 == 3."""

import io
import itertools
from collections.abc import Iterator, Mapping

from PIL import Image, ImageOps

from pipeline.comparison.decode import FORMATS, decode
from pipeline.errors import FatalError, InvalidInput
from pipeline.messages import image_id
from pipeline.pictures.picture import Picture
from pipeline.settings import REPOSITORY, Location, Settings
from pipeline.store.database import Database
from pipeline.store.names import IMAGE_ORIGINAL
from pipeline.store.numbering import find_image

ORIGINAL = f"{IMAGE_ORIGINAL}/original_image.jpg"


def check_original(settings: Settings, databases: Mapping[str, Database]) -> None:
    """Read the original if a source has no image yet, so that a bad one is noticed at the start.

    The databases are those of the sources. Raises `FatalError`.
    """
    for source, images in databases.items():
        if not images.has(find_image(images, image_id(source, 0))):
            read_original(settings)
            return


def read_original(settings: Settings) -> bytes:
    """The original image, with which each source begins. Raises `FatalError`."""
    originals = Database(settings.data, IMAGE_ORIGINAL)
    # An object store needs no original of its own: the repository's is used then.
    if settings.data.directory is None and not originals.has(ORIGINAL):
        originals = Database(Location(str(REPOSITORY)), IMAGE_ORIGINAL)
    return _read_image(originals, ORIGINAL)


def mock_pictures(
    number: int, images: Database, previous_path: str, settings: Settings
) -> Iterator[Picture]:
    """The pictures of the mock camera from this number on.

    The image before is at `previous_path` in the image database. If that is empty, there is none,
    and the original is sent first. Raises `FatalError`.
    """
    content = _read_image(images, previous_path) if previous_path else read_original(settings)
    extension = (previous_path or ORIGINAL).rpartition(".")[2]
    for n in itertools.count(number):
        if n:
            content = next_image(n, content)
        yield Picture(content, extension, remark=", turned by 90 degrees" if n % 4 == 3 else "")


def next_image(number: int, previous: bytes) -> bytes:
    """Image `number` as the mock camera sends it: the previous one's bytes, turned or not.

    Raises `FatalError` if the format can't be turned.
    """
    if number % 4 != 3:
        return previous
    content = io.BytesIO()
    try:
        image = Image.open(io.BytesIO(previous), formats=FORMATS)
        turned = ImageOps.exif_transpose(image).transpose(Image.Transpose.ROTATE_90)
        if image.format in ("JPEG", "MPO"):
            turned.save(content, "JPEG", quality=95)
        else:
            turned.save(content, image.format, lossless=True)  # only WebP loses without it
    except (OSError, ValueError) as error:
        raise FatalError(
            f"image_receiving: the image before can't be turned: {error}; receive files with "
            "--from, or begin anew with another --source"
        ) from error
    return content.getvalue()


def _read_image(database: Database, path: str) -> bytes:
    try:
        content = database.read(path)
        decode(content, path)
    except InvalidInput as reason:
        raise FatalError(
            f"image_receiving: cannot begin: {reason}; put a picture there"
        ) from reason
    return content
