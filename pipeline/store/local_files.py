"""Files in a directory."""

import errno
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.errors import FatalError, InvalidInput, TransientError
from pipeline.store.instance_lock import InstanceLock

MAX_BYTES = 256 * 2**20  # a file that is larger is no image
# Faults of the machine, not of what a message names.
PASSING = {
    *(errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT),
    *(errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EBUSY),
}


class LocalFiles:
    """The files of one directory; paths are relative to the one above it."""

    max_concurrent = 8  # syncs under way together cost the disk little more than one
    read_ahead = 0
    lists_at_once = True

    def __init__(self, data: Path, name: str, copy: InstanceLock | None) -> None:
        """Only with a `copy` it can be written; what a dead copy of that name left goes."""
        self.where = str(data / name)
        self._data = data
        self._name = name
        self._directory = data / name
        self._part_suffix = f".{copy.name}.part" if copy else ""
        if copy:
            try:
                self._directory.mkdir(exist_ok=True)
                for part in self._directory.glob(f".*{self._part_suffix}"):
                    part.unlink()
                (self._directory / f".probe{self._part_suffix}").touch()
                (self._directory / f".probe{self._part_suffix}").unlink()
            except OSError as error:
                if error.errno in PASSING:
                    return
                raise FatalError(
                    f"cannot write to {self.where}: {reason_of(error)}; make it writable"
                ) from error

    def has(self, path: str) -> bool:
        """Whether there is a file of this path."""
        return (self._data / path).is_file()

    def write(self, path: str, content: bytes, *, is_new: bool) -> bool:
        """Put a file in place, under another name until it is whole and on the disk.

        False if one is there already that must not be overwritten.
        """
        target = f"{self._data}/{path}"
        directory, _, name = target.rpartition("/")
        part = f"{directory}/.{name}{self._part_suffix}"
        try:
            # Whatever stands in its place, such as a link to somewhere else, is not written to.
            with open(part, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            if is_new and os.path.lexists(target):
                os.unlink(part)
                return False
            os.replace(part, target)
        except OSError as error:
            with suppress(OSError):
                os.unlink(part)
            raise TransientError(f"cannot write {target}: {reason_of(error)}") from error
        return True

    def sync(self) -> None:
        """Make renames in the directory outlast a power cut."""
        with _passing(f"cannot write to {self.where}"):
            directory = os.open(self._directory, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)

    def read(self, path: str) -> bytes:
        """A regular file's bytes; of this directory, links resolved."""
        try:
            return read_whole(self._locate(path), path, os.O_NOFOLLOW)[0]
        except (OSError, ValueError, RuntimeError) as error:  # a NUL in it, a loop of links
            if isinstance(error, OSError) and self._may_pass(error):
                raise TransientError(f"cannot read {path!r}: {reason_of(error)}") from error
            raise InvalidInput(f"{path!r} can't be read: {reason_of(error)}") from error

    def names(self, prefix: str = "") -> list[str]:
        """The names that begin so."""
        with _passing(f"cannot list {self.where}"):
            names = os.listdir(self._directory) if self._directory.is_dir() else []
        return [name for name in names if name.startswith(prefix)]

    def age(self, path: str) -> float:
        """Seconds since the file was written; none if it has gone."""
        with _passing(f"cannot look at {path}"), suppress(FileNotFoundError):
            return time.time() - (self._data / path).stat().st_mtime
        return 0

    def remove(self, path: str) -> None:
        """Delete a file, if it is there."""
        with _passing(f"cannot delete {path}"):
            (self._data / path).unlink(missing_ok=True)

    def _locate(self, path: str) -> str:
        """Where the file really is, links resolved; `Unusable` if that isn't in the directory."""
        directory, _, name = path.rpartition("/")
        target = f"{self.where}/{name}"
        if directory == self._name and name not in (".", "..") and not os.path.islink(target):
            return target  # the usual case, at a tenth of the cost
        real = (self._data / path).resolve()
        if not real.is_relative_to(self._directory.resolve()):
            raise InvalidInput(f"{path!r} is not in {self._name}")
        return str(real)

    def _may_pass(self, error: OSError) -> bool:
        is_closed = error.errno in (errno.EACCES, errno.EPERM)
        return error.errno in PASSING or (is_closed and not os.access(self._directory, os.X_OK))


@contextmanager
def _passing(what: str) -> Iterator[None]:
    """What fails for want of room, rights or a disk that is well is to be tried again."""
    try:
        yield
    except OSError as error:
        raise TransientError(f"{what}: {reason_of(error)}") from error


def read_whole(file_path: str, name: str, flags: int = 0) -> tuple[bytes, os.stat_result]:
    """A regular file's bytes, and what it was while they were read.

    It doesn't wait for a pipe's other end; with `O_NOFOLLOW` nor for where a link leads that has
    just come. Raises `Unusable` of this name, and what opening a file does.
    """

    def opener(path: str, mode: int) -> int:
        return os.open(path, mode | os.O_NONBLOCK | flags)

    with open(file_path, "rb", opener=opener) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise InvalidInput(f"{name} is no regular file")
        if status.st_size > MAX_BYTES:
            raise InvalidInput(f"{name} has {status.st_size} bytes, more than {MAX_BYTES}")
        content = file.read(status.st_size + 1)
        has_changed = os.fstat(file.fileno()).st_mtime_ns != status.st_mtime_ns
    if has_changed or len(content) != status.st_size:
        raise InvalidInput(f"{name} changed while it was read")
    return content, status


def reason_of(error: Exception) -> str:
    """What an error says, without its number and its file."""
    return (isinstance(error, OSError) and error.strerror) or str(error)
