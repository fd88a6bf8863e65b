"""A directory that a camera fills, and which of its files were received already."""

import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from pipeline.errors import FatalError, InvalidInput
from pipeline.pictures.files import Picture, SetAside, _is_named_so, _mark, read_picture
from pipeline.stop_signal import StopSignal
from pipeline.store.database import Database
from pipeline.store.local_files import reason_of
from pipeline.store.names import IMAGE_DATABASE, digest
from pipeline.terminal import printable, say

SETTLED = 1.0  # seconds that a file must have been as it is, to be taken


PATIENCE = 30.0  # seconds after which one that can't be used so is set aside


SURE = 60.0  # seconds in which a directory that was replaced has been the same again


PAUSE = 0.5  # seconds between two looks at a watched directory, at least


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


class SeenFiles:
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
        with suppress(InvalidInput):
            content = images.read(self._path)
            try:
                kept = msgspec.json.decode(content, type=dict[str, dict[str, int]])
            except msgspec.MsgspecError as error:
                raise FatalError(
                    f"{self._path} in {images.where} is damaged: {error}; remove it"
                ) from error
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


class DirectoryWatcher:
    """A directory that somebody fills, looked at again and again, as any kind of disk allows."""

    def __init__(
        self, directory: str, memory: SeenFiles, set_aside: SetAside, stop: StopSignal
    ) -> None:
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
                except InvalidInput as reason:
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
