"""The mock databases: directories of whole files, and the copies that write to them."""

import errno
import fcntl
import hashlib
import itertools
import os
import re
import socket
import stat
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import IO

from pipeline import Unusable
from pipeline.patience import Passing, patiently

IMAGE_ORIGINAL = "image_original"
IMAGE_DATABASE = "image_database"
IMAGE_EVENT_DATABASE = "image_event_database"
IMAGE_EVENT_ALERTS = "image_event_alerts"

MAX_BYTES = 256 * 2**20  # a file that is larger is no image
# Faults of the machine, not of what a message names.
PASSING = {
    *(errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT),
    *(errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EBUSY),
}


class Copy:
    """One running copy of a program, under a name that no other living copy has.

    The name is the same again after a restart, so that Kafka knows the restarted copy for the
    dead one: program, host, and the lowest number that is free. A number is held by a locked
    file, which the operating system unlocks when the process ends, however it ends. `scope`
    keeps apart those who don't meet.
    """

    def __init__(self, program: str, scope: str = "", most: int | None = None) -> None:
        """Take a number; with `most` copies running already, end with a line that says so."""
        host = re.sub(r"[^a-zA-Z0-9._-]", "-", socket.gethostname())
        key = digest(scope.encode())[:16]
        for number in itertools.count():
            if number == most:
                sys.exit(f"{program} is running for {scope} already; wait until it has ended")
            try:
                locks = Path(tempfile.gettempdir(), f"image-pipeline-{os.getuid()}")
                locks.mkdir(mode=0o700, exist_ok=True)
                self._lock: IO[str] = (locks / f"{program}-{key}-{number}.lock").open("w")
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                self._lock.close()
            except OSError as error:
                sys.exit(f"cannot keep a lock among temporary files: {error}; set TMPDIR")
        self.name = f"{program}-{host}-{number}"


class Database:
    """A directory of files that appear whole or not at all. Paths are relative to the data's."""

    def __init__(self, data: Path, name: str, copy: Copy | None = None) -> None:
        """Only with a `copy` it can be written; what a dead copy of that name left goes."""
        self.data = data
        self.name = name
        self.directory = data / name
        self._copy = copy  # which holds its lock for as long as it is kept
        self._part_suffix = f".{copy.name}.part" if copy else ""
        if copy:
            try:
                self.directory.mkdir(exist_ok=True)
                for part in self.directory.glob(f".*{self._part_suffix}"):
                    part.unlink()
                (self.directory / f".probe{self._part_suffix}").touch()
                (self.directory / f".probe{self._part_suffix}").unlink()
            except OSError as error:
                if error.errno in PASSING:
                    return
                sys.exit(f"cannot write to {self.directory}: {_reason(error)}; make it writable")

    def has(self, path: str) -> bool:
        """Whether there is a file of this path."""
        return (self.data / path).is_file()

    @patiently
    def write(self, path: str, content: bytes, *, is_new: bool = False) -> None:
        """Put a file in place, safe from a crash; `is_new` never overwrites one.

        When that fails, as on a full disk, it says so and tries again until it is done.
        """
        target = self.data / path
        part = target.with_name(f".{target.name}{self._part_suffix}")
        try:
            # Whatever stands in its place, such as a link to somewhere else, is not written to.
            with part.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            if is_new and target.exists():
                part.unlink()
                sys.exit(f"{target} is there already, by another program; it stays as it is")
            part.replace(target)
            self._sync()
        except OSError as error:
            with suppress(OSError):
                part.unlink()
            raise Passing(f"cannot write {target}: {_reason(error)}") from error

    @patiently
    def read(self, path: str, sha256: str | None = None) -> bytes:
        """A file's bytes, by the path and, if known, the SHA-256 that a message gives.

        Raises `Unusable` if it isn't that file, or none in this directory, links resolved. When
        the machine is at fault, it says so and tries again.
        """
        try:
            target = (self.data / path).resolve()
            if not target.is_relative_to(self.directory.resolve()):
                raise Unusable(f"{path!r} is not in {self.name}")
            with open(target, "rb", opener=_open) as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    raise Unusable(f"{path} is no regular file")
                if status.st_size > MAX_BYTES:
                    raise Unusable(f"{path} has {status.st_size} bytes, more than {MAX_BYTES}")
                content = file.read(status.st_size + 1)
        except (OSError, ValueError, RuntimeError) as error:  # a NUL in it, a loop of links
            if isinstance(error, OSError) and self._may_pass(error):
                raise Passing(f"cannot read {path!r}: {_reason(error)}") from error
            raise Unusable(f"{path!r} can't be read: {_reason(error)}") from error
        if len(content) != status.st_size:
            raise Unusable(f"{path} changed while it was read")
        if sha256 not in (None, digest(content)):
            raise Unusable(f"{path} has other bytes than when it was stored")
        return content

    def _may_pass(self, error: OSError) -> bool:
        is_closed = error.errno in (errno.EACCES, errno.EPERM)
        return error.errno in PASSING or (is_closed and not os.access(self.directory, os.X_OK))

    def numbers(self, source: str) -> list[int]:
        """The numbers of the images of this source, in order."""
        prefix = f"{source}-" if source else ""
        name = re.compile(rf"{re.escape(prefix)}([0-9]{{5,9}})\.jpg")
        names = os.listdir(self.directory) if self.directory.is_dir() else []
        matches = map(name.fullmatch, names)
        return sorted(int(match[1]) for match in matches if match)

    def _sync(self) -> None:
        """Make renames in the directory outlast a power cut."""
        directory = os.open(self.directory, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def digest(content: bytes) -> str:
    """The SHA-256 of these bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def _open(path: str, flags: int) -> int:
    """Open, not waiting for a pipe's other end, nor for where a link leads that has just come."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW)


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)
