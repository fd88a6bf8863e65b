"""The pictures that come from files: which there are, whether they are whole, which were taken.

Whoever's files they are: none is moved, changed or deleted, and nothing is opened that isn't a
regular file, links to one included.
"""

import errno
import io
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import msgspec
from PIL import Image

from pipeline.comparison.decode import FITS, FORMATS, decode
from pipeline.errors import InvalidInput, TransientError
from pipeline.messages import Path
from pipeline.retrying import retrying
from pipeline.store.local_files import read_whole, reason_of
from pipeline.store.names import EXTENSIONS, digest
from pipeline.terminal import printable

USUAL = {"TIFF": "tif", "PNG": "png", "GIF": "gif", "BMP": "bmp", "WEBP": "webp"}
SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # of ours, not the file's fault

SetAside = Callable[[str, InvalidInput], None]  # with the file's path


@dataclass(frozen=True)
class Picture:
    """A picture that has come, byte for byte."""

    content: bytes
    extension: str
    name: str | None = None  # of its file
    mark: str = ""  # by which a file is known again, as long as nobody changes it


def files_of(paths: Sequence[str]) -> tuple[list[str], list[str]]:
    """These files, and of directories their pictures in the order of their names.

    And, for people, what is left alone. Raises `Unusable` if there is nothing to take.
    """
    files: list[str] = []
    left_alone: list[str] = []
    for path in paths:
        if not os.path.isdir(path):
            if not os.path.lexists(path):
                raise InvalidInput(f"{path!r} is no file or directory")
            files.append(path)
            continue
        try:
            names = sorted(os.listdir(path))
        except OSError as error:
            raise InvalidInput(f"{path!r} can't be listed: {reason_of(error)}") from error
        inside = [os.path.join(path, name) for name in names]
        directories = {one for one in inside if os.path.isdir(one)}
        pictures = [one for one in inside if _is_named_so(one) and one not in directories]
        left_alone += [
            f"{printable(one)}: a directory; name it to take its pictures, too"
            for one in sorted(directories)
        ]
        others = len(inside) - len(directories) - len(pictures)
        if others:
            left_alone.append(f"{printable(path)}: {others} hidden or without an image's extension")
        files += pictures
    if not files:
        raise InvalidInput(f"there is no picture in {', '.join(map(repr, paths))}")
    return files, [f"left alone  {line}" for line in left_alone]


def pictures_of(files: Sequence[str], set_aside: SetAside) -> Iterator[Picture]:
    """Each file's picture; those that can't be used are set aside."""
    for path in files:
        try:
            picture = read_picture(path)
        except InvalidInput as reason:
            set_aside(path, reason)
        else:
            yield picture


@retrying
def read_picture(path: str) -> Picture:
    """A file's picture, whole. Raises `Unusable`."""
    name = os.path.basename(path)
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening some devices does something
            raise InvalidInput(f"{name} is no regular file")
        content, status = read_whole(path, name)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in SHORTAGES:
            raise TransientError(f"cannot read {path!r}: {reason_of(error)}") from error
        raise InvalidInput(f"{name} can't be read: {reason_of(error)}") from error
    decode(content, name)
    extension = _extension(name)
    if extension not in EXTENSIONS:
        extension = usual_extension(content)
    original_name = None
    with suppress(msgspec.ValidationError, UnicodeEncodeError):
        original_name = msgspec.convert(name.encode().decode(), Path)
    return Picture(content, extension, original_name, _mark(path, status))


def usual_extension(content: bytes) -> str:
    """That of the format that an image's bytes have."""
    if content.startswith(FITS):
        return "fits"
    kind = Image.open(io.BytesIO(content), formats=FORMATS).format
    return USUAL.get(str(kind), EXTENSIONS[0])


def _is_named_so(path: str) -> bool:
    """Whether a file in a directory is taken for a picture."""
    name = os.path.basename(path)
    return not name.startswith(".") and _extension(name) in EXTENSIONS


def _extension(name: str) -> str:
    return os.path.splitext(name)[1][1:].lower()


def _mark(path: str, status: os.stat_result) -> str:
    """Not of the inode, which another mount of the same disk may number otherwise."""
    about = f"{os.path.abspath(path)}\0{status.st_mtime_ns}\0{status.st_size}"
    return digest(os.fsencode(about))[:16]
