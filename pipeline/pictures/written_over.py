"""Copies a file that never rests, since a camera writes over the same name again and again."""

import os
import time
from dataclasses import dataclass

from pipeline.errors import InvalidInput
from pipeline.pictures.files import read_file
from pipeline.pictures.whole import tells_its_end, what_is_missing

LOOK_PAUSE = 0.05  # seconds between two looks at such a file
COPY_REST = 0.1  # seconds for which it must stay unchanged after it was copied


@dataclass(frozen=True)
class Copy:
    """The bytes of a file, and its status while it was copied."""

    content: bytes
    status: os.stat_result
    made: float


class WrittenOver:
    """A file whose copies are looked at, as it is replaced before it has rested.

    A copy is whole if its format says so, and if nobody wrote to the file for a moment after it was
    copied. A new file that was put in its place by a rename is no change of the copied one. Of a
    format that can't tell its end, only what came by a rename is copied.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.taken = 0.0  # when the last copy was whole
        self._status: os.stat_result | None = None  # at the last look
        self._copy: Copy | None = None  # that must rest
        self._next = 0.0  # when to look again: half of the time is enough for a large file

    def look(self) -> Copy | None:
        """The last copy, once it is known to be whole; copies the file if it has changed."""
        now = time.monotonic()
        if now < self._next:
            return None
        try:
            status = os.stat(self.path)
        except OSError:
            return None
        last, copy = self._status, self._copy
        is_replaced = last is not None and status.st_ino != last.st_ino
        if last and state_of(last) == state_of(status):
            if not copy or now - copy.made < COPY_REST:
                return None
            self._copy = None
        else:
            self._status = status
            self._copy = self._made(status, is_replaced)
            self._next = 2 * time.monotonic() - now
            if not is_replaced:
                return None
        if copy:
            self.taken = now
        return copy

    def _made(self, status: os.stat_result, is_replaced: bool) -> Copy | None:
        try:
            content, copied = read_file(self.path)
        except InvalidInput:  # as it is just being written
            return None
        can_tell = is_replaced or tells_its_end(content)
        if state_of(copied) != state_of(status) or not can_tell or what_is_missing(content):
            return None
        return Copy(content, copied, time.monotonic())


def state_of(status: os.stat_result) -> tuple[int, int, int]:
    """What changes whenever a file is written, replaced, or given other rights."""
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns
