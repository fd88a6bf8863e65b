"""The pictures that come from files: which there are, whether they are whole, which were taken.

Whoever's files they are: none is moved, changed or deleted, and nothing is opened that isn't a
regular file, links to one included.
"""

import errno
import io
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import msgspec
from PIL import Image

from comparison import FITS, FORMATS, decode
from pipeline import Unusable, say
from pipeline.connection import Stop
from pipeline.local_files import read_whole, reason_of
from pipeline.messages import Path
from pipeline.patience import Passing, patiently
from pipeline.store import EXTENSIONS, IMAGE_DATABASE, Database, digest
from pipeline.stream import printable

USUAL = {"TIFF": "tif", "PNG": "png", "GIF": "gif", "BMP": "bmp", "WEBP": "webp"}
SETTLED = 1.0  # seconds that a file must have been as it is, to be taken
PATIENCE = 30.0  # seconds after which one that can't be used so is set aside
SURE = 60.0  # seconds in which a directory that was replaced has been the same again
PAUSE = 0.5  # seconds between two looks at a watched directory, at least
SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # of ours, not the file's fault

SetAside = Callable[[str, Unusable], None]  # with the file's path


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
                raise Unusable(f"{path!r} is no file or directory")
            files.append(path)
            continue
        try:
            names = sorted(os.listdir(path))
        except OSError as error:
            raise Unusable(f"{path!r} can't be listed: {reason_of(error)}") from error
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
        raise Unusable(f"there is no picture in {', '.join(map(repr, paths))}")
    return files, [f"left alone  {line}" for line in left_alone]


def pictures_of(files: Sequence[str], set_aside: SetAside) -> Iterator[Picture]:
    """Each file's picture; those that can't be used are set aside."""
    for path in files:
        try:
            picture = read_picture(path)
        except Unusable as reason:
            set_aside(path, reason)
        else:
            yield picture


@patiently
def read_picture(path: str) -> Picture:
    """A file's picture, whole. Raises `Unusable`."""
    name = os.path.basename(path)
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening some devices does something
            raise Unusable(f"{name} is no regular file")
        content, status = read_whole(path, name)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in SHORTAGES:
            raise Passing(f"cannot read {path!r}: {reason_of(error)}") from error
        raise Unusable(f"{name} can't be read: {reason_of(error)}") from error
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


def _status(entry: "os.DirEntry[str]") -> tuple[os.stat_result | None, bool]:
    """That of a file, or of a link that leads nowhere now; None if it was deleted just now.

    And whether this is for good: what a link leads to, or a disk, may come back.
    """
    try:
        return entry.stat(), True
    except OSError as error:
        with suppress(OSError):
            return entry.stat(follow_symlinks=False), False
        return None, isinstance(error, FileNotFoundError)


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


class Memory:
    """Which files of a watched directory were received, and as which number; -1: set aside.

    It is kept beside the images, and written before the images are that are new in it. So after a
    kill it may know of an image that was never stored: its number is the one that the next image
    gets, or a later one. Those are forgotten at each start, whether anything is watched or not, and
    their files received anew. All is forgotten when the images are deleted for a new beginning.
    """

    def __init__(self, images: Database, name: str, next_number: int, directory: str = "") -> None:
        """Without a directory nothing is added."""
        self.marks: dict[str, int] = {}
        self._images = images
        self._path = f"{IMAGE_DATABASE}/.{name}.seen.json"
        kept: dict[str, dict[str, int]] = {}  # by directory
        with suppress(Unusable):
            content = images.read(self._path)
            try:
                kept = msgspec.json.decode(content, type=dict[str, dict[str, int]])
            except msgspec.MsgspecError as error:
                sys.exit(f"{self._path} in {images.where} is damaged: {error}; remove it")
        self._directories = {
            name: {mark: number for mark, number in marks.items() if number < next_number}
            for name, marks in kept.items()
        }
        self._is_changed = self._directories != kept
        self._is_on = bool(directory)
        if directory:
            name = digest(os.fsencode(os.path.abspath(directory)))[:16]
            self.marks = self._directories.setdefault(name, {})

    def note(self, mark: str, number: int) -> None:
        """The file has become this image, or was set aside."""
        if self._is_on:
            self.marks[mark] = number
            self._is_changed = True

    def write(self) -> None:
        """Begin to write what is new, if anything is."""
        if self._is_changed:
            self._images.write(self._path, msgspec.json.encode(self._directories))
        self._is_changed = False


@dataclass
class _Version:
    """A file as it has been for a while."""

    mark: str
    aside_mark: str  # what is noted if it is set aside: new rights, too, make it another one
    since: float
    was_tried: bool = False


class Watch:
    """A directory that somebody fills, looked at again and again, as any kind of disk allows."""

    def __init__(self, directory: str, memory: Memory, set_aside: SetAside, stop: Stop) -> None:
        self._directory = directory
        self._memory = memory
        self._set_aside = set_aside
        self._stop = stop
        self._versions: dict[str, _Version] = {}  # by path
        self._place: tuple[int, int] | None = None  # of the directory that the memory is about
        self._sure_from = 0.0  # when what isn't in it is gone
        self._is_away = False

    def pictures(self) -> Iterator[Picture | None]:
        """Each picture once, when it is whole; None: there is none now, and next it waits.

        Who takes one notes it in the memory.
        """
        while True:
            began = time.monotonic()
            for path, version in self._look(began):
                age = began - version.since
                is_known = not {version.mark, version.aside_mark}.isdisjoint(self._memory.marks)
                if is_known or age < SETTLED:
                    continue
                if version.was_tried and age < PATIENCE:
                    continue  # whoever writes it has paused, perhaps
                try:
                    picture = read_picture(path)
                except Unusable as reason:
                    if version.was_tried:
                        self._set_aside(path, reason)
                        self._memory.note(version.aside_mark, -1)
                    version.was_tried = True
                else:
                    if picture.mark == version.mark:
                        yield picture
            yield None
            self._stop.wait(max(PAUSE, time.monotonic() - began))

    def _look(self, now: float) -> list[tuple[str, _Version]]:
        """The files that are there now, the oldest first, and since when they are as they are."""
        found: list[tuple[int, str, _Version]] = []
        is_sure = True
        try:
            home = os.stat(self._directory)
            with os.scandir(self._directory) as entries:
                for entry in entries:
                    if not _is_named_so(entry.name):
                        continue
                    status, is_for_good = _status(entry)
                    is_sure &= is_for_good
                    if status and not stat.S_ISDIR(status.st_mode):
                        version = self._version(entry.path, status, now)
                        found.append((status.st_mtime_ns, entry.path, version))
        except OSError as error:
            if not self._is_away:
                where = printable(self._directory)
                say(f"{where} can't be listed: {reason_of(error)}; waiting for it")
            self._is_away = True
            return []
        if self._is_away:
            say(f"{printable(self._directory)} is there again")
        self._is_away = False
        self._versions = {path: version for _, path, version in found}
        if is_sure:
            marks = {mark for *_, one in found for mark in (one.mark, one.aside_mark)}
            self._forget(marks, (home.st_dev, home.st_ino), now)
        return [(path, version) for _, path, version in sorted(found, key=lambda one: one[:2])]

    def _version(self, path: str, status: os.stat_result, now: float) -> _Version:
        known = self._versions.get(path)
        mark = _mark(path, status)
        aside = f"{mark}-{status.st_ctime_ns:x}"
        is_known = known and (known.mark, known.aside_mark) == (mark, aside)
        return known if known and is_known else _Version(mark, aside, now)

    def _forget(self, there: set[str], place: tuple[int, int], now: float) -> None:
        """Forget files that are gone; but not all, since then it may be their disk that is."""
        marks = self._memory.marks
        if there.isdisjoint(marks):
            return
        if place != self._place:
            self._sure_from = now + SURE if self._place else now
            self._place = place
        if now >= self._sure_from:
            for mark in marks.keys() - there:
                del marks[mark]
