"""Receives pictures from files.

The files are somebody else's: none is moved, changed or deleted, and only regular files are opened,
directly or through a link.
"""

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Protocol

import msgspec

from pipeline.comparison.damage import damage_of
from pipeline.comparison.decode import decode
from pipeline.comparison.fits import GZIP, is_fits, parts_left_out
from pipeline.comparison.tiff_directories import is_tiff, main_picture_remark
from pipeline.errors import InvalidInput, TransientError
from pipeline.messages import Path
from pipeline.pictures.picture import Picture
from pipeline.retrying import retrying
from pipeline.store.local_files import read_whole, reason_of
from pipeline.store.names import EXTENSIONS, extension_of
from pipeline.terminal import printable

USUAL_EXTENSIONS = {  # by what the files of a format begin with
    b"II": "tif",
    b"MM": "tif",
    b"\x89PNG": "png",
    b"GIF8": "gif",
    b"BM": "bmp",
    b"RIFF": "webp",
}
SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # of this machine: the file is not at fault


class SetAside(Protocol):
    """A function that sets aside a file."""

    def __call__(self, path: str, reason: InvalidInput, fingerprint: str = "") -> None:
        """Set aside the file at the path; only a watched file needs its fingerprint remembered."""


def pictures_of(
    files: Sequence[str], set_aside: SetAside, accept_damaged: bool = False
) -> Iterator[Picture]:
    """The picture of each file, in this order; files that can't be used are set aside."""
    for path in files:
        try:
            picture = read_picture(path, accept_damaged)
        except InvalidInput as reason:
            set_aside(path, reason)
        else:
            yield picture


def read_picture(path: str, accept_damaged: bool = False) -> Picture:
    """Read a file's picture. Raises `InvalidInput` if the file has no whole picture.

    Only receiving looks for damage that can be decoded: an image that was received is analysed.
    """
    return picture_of(path, read_file(path)[0], accept_damaged)


@retrying
def read_file(path: str) -> tuple[bytes, os.stat_result]:
    """A file's bytes, and its status while it was read. Raises `InvalidInput` if it has none."""
    name = os.path.basename(path)
    try:
        # Asked before the file is opened: merely opening some devices has an effect.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise InvalidInput(f"{name} is no regular file")
        return read_whole(path, name)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in SHORTAGES:
            raise TransientError(f"cannot read {path!r}: {reason_of(error)}") from error
        raise InvalidInput(f"{name} can't be read: {reason_of(error)}") from error


@retrying
def picture_of(path: str, content: bytes, accept_damaged: bool = False) -> Picture:
    """The picture of a file with these bytes. Raises `InvalidInput` if it has no whole picture."""
    name = os.path.basename(path)
    decode(content, name)
    if not accept_damaged and (damage := damage_of(content)):
        raise InvalidInput(
            f"{name} is a damaged image: {damage}; --accept-damaged receives it all the same"
        )
    extension = extension_of(name) or _usual_extension(content)
    original_name = None
    with suppress(msgspec.ValidationError, UnicodeEncodeError):  # a name can be any bytes
        original_name = msgspec.convert(name.encode().decode(), Path)
    remark = f": {printable(original_name or 'a file whose name is no text')}"
    if is_tiff(content):
        remark += main_picture_remark(content, name)
    if is_fits(content) and (left_out := parts_left_out(content)):
        remark += f" ({printable(left_out)})"
    return Picture(content, extension, original_name, remark=remark)


def has_image_name(path: str) -> bool:
    """Whether the name says that the file is a picture and not hidden."""
    name = os.path.basename(path)
    return not name.startswith(".") and bool(extension_of(name))


def _usual_extension(content: bytes) -> str:
    """The usual extension of the format that the bytes have."""
    if is_fits(content):
        return "fits.gz" if content.startswith(GZIP) else "fits"
    found = (name for start, name in USUAL_EXTENSIONS.items() if content.startswith(start))
    return next(found, EXTENSIONS[0])
