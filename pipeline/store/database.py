"""The mock databases: whole files, in directories or in an object store, and their names."""

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from pipeline.errors import FatalError, InvalidInput
from pipeline.messages import image_id, parts_of
from pipeline.retrying import retrying
from pipeline.settings import Location
from pipeline.store.instance_lock import InstanceLock
from pipeline.store.local_files import LocalFiles
from pipeline.store.names import EXTENSIONS, IMAGE, digest, image_path

MOST_WRITING = 32  # files that wait to be written or are being written
NEAR = 16  # numbers to try one by one before the names are listed


class Files(Protocol):
    """What a directory and an object store both can do, for paths relative to the data's place.

    `Passing` is raised for what may pass, `Unusable` for what no retry can mend.
    """

    where: str  # for people
    max_concurrent: int  # writes under way at the same time
    read_ahead: int  # reads that are worth it to begin before they are asked for
    lists_at_once: bool  # whether all names are to be had in no time

    def read(self, path: str) -> bytes:
        """A file's bytes; `Unusable` if it is none of ours."""

    def write(self, path: str, content: bytes, *, is_new: bool) -> bool:
        """Put a file in place, whole or not at all; False if `is_new` and one is there already."""

    def sync(self) -> None:
        """Make what was written outlast a power cut."""

    def has(self, path: str) -> bool:
        """Whether there is a file of this path."""

    def names(self, prefix: str = "") -> list[str]:
        """The names that begin so."""

    def age(self, path: str) -> float:
        """Seconds since the file was written; none if it has gone."""

    def remove(self, path: str) -> None:
        """Delete a file, if it is there."""


class Database:
    """Files that appear whole or not at all. Paths are relative to where the data is."""

    def __init__(self, data: Location, name: str, copy: InstanceLock | None = None) -> None:
        """At a directory or a URL; only with a `copy` it can be written."""
        self.name = name
        self.files: Files
        if data.directory:
            self.files = LocalFiles(data.directory, name, copy)
        else:
            # An optional requirement, which takes a while to import.
            from pipeline.store.object_store import ObjectFiles  # noqa: PLC0415

            self.files = ObjectFiles(str(data), name)
        self._copy = copy  # which holds its lock for as long as it is kept
        self._threads = ThreadPoolExecutor(self.files.max_concurrent)
        self._writing: dict[str, Future[None]] = {}
        self._is_to_sync = False
        self._expected: Iterator[str] = iter(())
        self._reading: dict[str, Future[bytes]] = {}

    @property
    def where(self) -> str:
        """Where it is, for people."""
        return self.files.where

    def has(self, path: str) -> bool:
        """Whether there is a file of this path, or one is just being written."""
        return path in self._writing or retrying(self.files.has)(path)

    def names(self, prefix: str = "") -> list[str]:
        """The names that begin so, without the directory before them."""
        return retrying(self.files.names)(prefix)

    def age(self, path: str) -> float:
        """Seconds since the file was written; none if it has gone."""
        return retrying(self.files.age)(path)

    def write(self, path: str, content: bytes, *, is_new: bool = False) -> None:
        """Begin to put a file in place, beside others; `is_new` never overwrites one.

        When that fails, as on a full disk, it says so and tries again until it is done.
        """
        oldest = next(iter(self._writing), "")
        # What waits is in memory; and of a path that comes twice, one is written after the other.
        for one in {path, oldest} if len(self._writing) >= MOST_WRITING else {path}:
            if one in self._writing:
                self._writing[one].result()
                self._is_to_sync = True
                del self._writing[one]
        self._writing[path] = self._threads.submit(self._write, path, content, is_new)

    def sync(self) -> None:
        """Return once all that was written is in place, safe from a crash."""
        writing, self._writing = self._writing, {}
        for one in writing.values():
            one.result()
        if writing or self._is_to_sync:
            retrying(self.files.sync)()
        self._is_to_sync = False

    @retrying
    def read(self, path: str, sha256: str | None = None) -> bytes:
        """A file's bytes, by the path and, if known, the SHA-256 that a message gives.

        Raises `Unusable` if it isn't that file, or none of this database. When the machine is at
        fault, it says so and tries again.
        """
        reading = self._reading.pop(path, None)
        content = reading.result() if reading else self.files.read(path)
        self._read_ahead()
        if sha256 not in (None, digest(content)):
            raise InvalidInput(f"{path} has other bytes than when it was stored")
        return content

    def expect(self, paths: Iterable[str]) -> None:
        """These will be read, in this order: where reading takes a while, a few are read ahead."""
        self._expected = iter(paths)
        self._reading.clear()
        self._read_ahead()

    def _read_ahead(self) -> None:
        while len(self._reading) < self.files.read_ahead:
            path = next(self._expected, None)
            if path is None:
                return
            self._reading[path] = self._threads.submit(self.files.read, path)

    def remove(self, path: str) -> None:
        """Delete a file, if it is there."""
        retrying(self.files.remove)(path)

    def find(self, name: str) -> str:
        """Where the image of this id is, whatever its extension; as if a JPEG if it's nowhere."""
        paths = [image_path(name, one) for one in EXTENSIONS]
        if self.files.lists_at_once or self.has(paths[0]):
            return next(filter(self.has, paths), paths[0])
        there = {f"{self.name}/{one}" for one in self.names(f"{name}.")}
        return next((one for one in paths if one in there), paths[0])

    def last(self, source: str, known: int) -> tuple[int, str]:
        """The number and the path of the source's last image, of which Kafka knows this many.

        The number is -1 if there is none. An object store's names take long to list, so there only
        those near `known` are.
        """
        if known and not self.files.lists_at_once:
            near = {image_id(source, one)[:-3] for one in (known - 1, known, known + 1000)}
            found = self._images(source, near)
            if known - 1 in found:
                return max(found.items())
        # Names without a source begin with a digit, and others seldom do.
        digits = [""] if self.files.lists_at_once else list("0123456789")
        prefixes = [f"{source}-"] if source else digits
        return max(self._images(source, prefixes).items(), default=(-1, ""))

    def numbers_before(self, source: str, number: int) -> Iterator[int]:
        """The numbers of the source's images that may be there before this one, the nearest first.

        Those next to it are named unasked; so beside a hundred thousand images none is listed.
        """
        end = max(0, number - NEAR)
        yield from range(number - 1, end - 1, -1)
        digits = image_id("", end)
        for length in range(len(digits) - 1 if end else -1, -1, -1):
            # Numbers with the same first digits are near, and an object store lists just these.
            first = int(digits[:length].ljust(len(digits), "0")) if length else 0
            prefix = f"{source}-{digits[:length]}" if source else digits[:length]
            near = self._images(source, [prefix])
            yield from sorted((one for one in near if first <= one < end), reverse=True)
            end = first

    def _images(self, source: str, prefixes: Iterable[str]) -> dict[int, str]:
        """The paths of the source's images whose names begin so, by their numbers."""
        found = {}
        for one in (IMAGE.fullmatch(name) for prefix in prefixes for name in self.names(prefix)):
            if one and parts_of(one[1])[0] == source:
                found[parts_of(one[1])[1]] = f"{self.name}/{one[0]}"
        return found

    @retrying
    def _write(self, path: str, content: bytes, is_new: bool) -> None:
        if not self.files.write(path, content, is_new=is_new):
            raise FatalError(f"{path} is there already, by another program; it stays as it is")
