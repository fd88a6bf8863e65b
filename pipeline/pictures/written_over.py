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

    It is copied once it is the same in two looks, so that an upload that grows all the time isn't
    read over and over. A copy is whole if its format says so, and if nobody wrote to the file for a
    moment after it was copied. A file that was put in the place of another by a rename is copied at
    once, and the next one in its place is no change of it. Of a format that can't tell its end,
    only what came by a rename is copied.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.taken = 0.0  # when the last copy was whole
        self._status: os.stat_result | None = None  # at the last look
        self._is_replaced = False  # whether it was put in the place of another file
        self._is_copied = False
        self._copy: Copy | None = None  # that must rest
        self._next = 0.0  # when to look again: half of the time is enough for a large file

    def look(self) -> Copy | None:
        """The last copy, once it is known to be whole; copies the file if it is a new one."""
        now = time.monotonic()
        if now < self._next:
            return None
        try:
            status = os.stat(self.path)
        except OSError:
            return None
        last, self._status = self._status, status
        copy, rested = self._copy, None
        if last and state_of(last) == state_of(status):
            if copy and now - copy.made >= COPY_REST:
                rested, self._copy = copy, None
            elif not self._is_copied:
                self._make_copy(status)
        else:
            self._is_replaced = last is not None and status.st_ino != last.st_ino
            self._is_copied, self._copy = False, None
            if self._is_replaced:
                rested = copy
                self._make_copy(status)
        self._next = 2 * time.monotonic() - now
        if rested:
            self.taken = now
        return rested

    def _make_copy(self, status: os.stat_result) -> None:
        """Copy the file, if its bytes seem to be whole and it still has this status."""
        self._is_copied = True
        try:
            content, copied = read_file(self.path)
        except InvalidInput:  # it is just being written
            return
        can_tell = self._is_replaced or tells_its_end(content)
        if state_of(copied) == state_of(status) and can_tell and not what_is_missing(content):
            self._copy = Copy(content, copied, time.monotonic())


def state_of(status: os.stat_result) -> tuple[int, int, int]:
    """What changes whenever a file is written, replaced, or given other rights."""
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns
