"""A mock database: files that appear whole or not at all, and are never lost once written."""

from collections.abc import Iterable

from pipeline.errors import InvalidInput
from pipeline.retrying import retrying
from pipeline.settings import Location
from pipeline.store.concurrent import ConcurrentWriter, Prefetcher
from pipeline.store.files import Files
from pipeline.store.instance_lock import InstanceLock
from pipeline.store.local_files import LocalFiles
from pipeline.store.names import digest


class Database:
    """One mock database. Its paths are those of the messages: relative to the data directory.

    When the disk or the network fails, each method says so and tries again until it succeeds.
    """

    def __init__(self, data: Location, name: str, lock: InstanceLock | None = None) -> None:
        """Open the database in a directory or at a URL; without a `lock` it is only read."""
        self.name = name
        self.files = _files(data, name, lock)
        self._lock = lock  # held for as long as the database is open
        self._writer = ConcurrentWriter(self.files)
        self._prefetcher = Prefetcher(self.files)

    @property
    def where(self) -> str:
        """The directory or URL, for people."""
        return self.files.where

    def has(self, path: str) -> bool:
        """Whether the file exists or is being written."""
        return self._writer.is_writing(path) or retrying(self.files.has)(path)

    def names(self, prefix: str = "") -> list[str]:
        """The names of all files that begin with the prefix, without the database's name."""
        return retrying(self.files.names)(prefix)

    def age(self, path: str) -> float:
        """Seconds since the file was written; 0 if it does not exist."""
        return retrying(self.files.age)(path)

    def write(self, path: str, content: bytes, *, is_new: bool = False) -> None:
        """Begin to write a file; several are written at the same time until `sync` is called.

        With `is_new`, an existing file is not replaced: a later `write` or `sync` raises
        `FatalError`.
        """
        self._writer.write(path, content, is_new)

    def sync(self) -> None:
        """Return once all files that were written are in place and survive a power cut."""
        self._writer.sync()

    def prefetch(self, paths: Iterable[str]) -> None:
        """Announce what will be read, in this order: an object store reads a few files ahead."""
        self._prefetcher.prefetch(paths)

    @retrying
    def read(self, path: str, sha256: str | None = None) -> bytes:
        """A file's bytes.

        Raises `InvalidInput` if the path names no file of this database, or if the file's SHA-256
        is not the one that a message gives.
        """
        content = self._prefetcher.read(path)
        if sha256 not in (None, digest(content)):
            raise InvalidInput(f"{path} has other bytes than when it was stored")
        return content

    def remove(self, path: str) -> None:
        """Delete the file if it exists."""
        retrying(self.files.remove)(path)


def _files(data: Location, name: str, lock: InstanceLock | None) -> Files:
    if data.directory:
        return LocalFiles(data.directory, name, lock)
    # Imported only if needed: it is an optional requirement, and slow to import.
    from pipeline.store.object_store import ObjectFiles  # noqa: PLC0415

    return ObjectFiles(str(data), name)
