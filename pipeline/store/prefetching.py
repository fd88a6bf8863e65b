"""Reads files before they are asked for, where each read waits for a network."""

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from pipeline.store.files import Files


class Prefetcher:
    """Reads files, and a few of those that were announced ahead."""

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
