"""Reads and writes several files at a time, so that their waits for disk or network overlap."""

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from pipeline.errors import FatalError
from pipeline.retrying import retrying
from pipeline.store.files import Files

MAX_UNFINISHED = 32  # files in memory that wait to be written or are being written


class ConcurrentWriter:
    """Writes files in threads, each until it succeeds."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._threads = ThreadPoolExecutor(files.max_concurrent)
        self._unfinished: dict[str, Future[None]] = {}  # by path, the oldest first
        self._needs_sync = False

    def is_writing(self, path: str) -> bool:
        """Whether the file is not in place yet."""
        return path in self._unfinished

    def write(self, path: str, content: bytes, is_new: bool) -> None:
        """Begin to write a file. Raises `FatalError` if an earlier one could not be written."""
        # Two writes of one path are done in their order.
        self._finish(path)
        if len(self._unfinished) >= MAX_UNFINISHED:
            self._finish(next(iter(self._unfinished)))
        self._unfinished[path] = self._threads.submit(self._write, path, content, is_new)

    def sync(self) -> None:
        """Return once all files are in place. Raises `FatalError` if one could not be written."""
        for path in list(self._unfinished):
            self._finish(path)
        if self._needs_sync:
            retrying(self._files.sync)()
        self._needs_sync = False

    def _finish(self, path: str) -> None:
        if path in self._unfinished:
            self._needs_sync = True
            self._unfinished.pop(path).result()

    @retrying
    def _write(self, path: str, content: bytes, is_new: bool) -> None:
        if not self._files.write(path, content, is_new=is_new):
            raise FatalError(f"{path} is there already, by another program; it stays as it is")


class Prefetcher:
    """Reads files, a few of them before they are asked for."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._threads = ThreadPoolExecutor(max(1, files.read_ahead))
        self._announced: Iterator[str] = iter(())
        self._reading: dict[str, Future[bytes]] = {}  # by path

    def prefetch(self, paths: Iterable[str]) -> None:
        """Announce what will be read, in this order, instead of what was announced before."""
        self._announced = iter(paths)
        self._reading.clear()
        self._start_reads()

    def read(self, path: str) -> bytes:
        """A file's bytes. Raises the errors of `Files.read`."""
        reading = self._reading.pop(path, None)
        content = reading.result() if reading else self._files.read(path)
        self._start_reads()
        return content

    def _start_reads(self) -> None:
        while len(self._reading) < self._files.read_ahead:
            path = next(self._announced, None)
            if path is None:
                return
            self._reading[path] = self._threads.submit(self._files.read, path)
