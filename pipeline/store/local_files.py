"""The files of a mock database in a directory."""

import errno
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.errors import FatalError, InvalidInput, TransientError
from pipeline.store.files import MAX_BYTES
from pipeline.store.instance_lock import InstanceLock

# Errors of the machine, such as a full disk, which have nothing to do with the file itself.
MACHINE_ERRORS = {
    *(errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT),
    *(errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EBUSY),
}


class LocalFiles:
    """The files of one directory; see `Files` for what each method does."""

    max_concurrent = 8  # the disk syncs eight files in little more time than one
    read_ahead = 0
    is_listing_fast = True

    def __init__(self, data: Path, name: str, lock: InstanceLock | None) -> None:
        """Open the directory `name` in `data`, to write to it only with a `lock`.

        What a dead instance of the lock's name left half written is deleted. Raises `FatalError` if
        the directory can't be written to.
        """
        self.where = str(data / name)
        self._data = data
        self._name = name
        self._directory = data / name
        self._part_suffix = f".{lock.name}.part" if lock else ""
        if lock:
            try:
                self._directory.mkdir(exist_ok=True)
                for part in self._directory.glob(f".*{self._part_suffix}"):
                    part.unlink()
                probe = self._directory / f".probe{self._part_suffix}"
                probe.touch()
                probe.unlink()
            except OSError as error:
                if error.errno in MACHINE_ERRORS:
                    return  # the first write says so, and is tried again
                raise FatalError(
                    f"cannot write to {self.where}: {reason_of(error)}; make it writable"
                ) from error

    def has(self, path: str) -> bool:
        """Whether the file exists."""
        return (self._data / path).is_file()

    def write(self, path: str, content: bytes, *, is_new: bool) -> bool:
        """Write the file under a temporary name, and rename it once it is whole and on the disk."""
        target = f"{self._data}/{path}"
        directory, _, name = target.rpartition("/")
        part = f"{directory}/.{name}{self._part_suffix}"
        try:
            # "x" refuses to follow a symlink that somebody has put at the temporary name.
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
        """Sync the directory, so that the renames in it survive a power cut."""
        with _transient(f"cannot write to {self.where}"):
            directory = os.open(self._directory, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)

    def read(self, path: str) -> bytes:
        """A regular file's bytes. Raises `InvalidInput` if a link leads out of the directory."""
        try:
            return read_whole(self._locate(path), path, os.O_NOFOLLOW)[0]
        except (OSError, ValueError, RuntimeError) as error:  # a NUL in the path, a loop of links
            if isinstance(error, OSError) and self._is_transient(error):
                raise TransientError(f"cannot read {path!r}: {reason_of(error)}") from error
            raise InvalidInput(f"{path!r} can't be read: {reason_of(error)}") from error

    def names(self, prefix: str = "") -> list[str]:
        """The names that begin with the prefix."""
        with _transient(f"cannot list {self.where}"):
            names = os.listdir(self._directory) if self._directory.is_dir() else []
        return [name for name in names if name.startswith(prefix)]

    def age(self, path: str) -> float:
        """Seconds since the file was written; 0 if it does not exist."""
        with _transient(f"cannot look at {path}"), suppress(FileNotFoundError):
            return time.time() - (self._data / path).stat().st_mtime
        return 0

    def remove(self, path: str) -> None:
        """Delete the file if it exists."""
        with _transient(f"cannot delete {path}"):
            (self._data / path).unlink(missing_ok=True)

    def _locate(self, path: str) -> str:
        """The file's real path. Raises `InvalidInput` if that is not in the directory."""
        directory, _, name = path.rpartition("/")
        target = f"{self.where}/{name}"
        if directory == self._name and name not in (".", "..") and not os.path.islink(target):
            return target  # the usual case, without the slow `resolve`
        real = (self._data / path).resolve()
        if not real.is_relative_to(self._directory.resolve()):
            raise InvalidInput(f"{path!r} is not in {self._name}")
        return str(real)

    def _is_transient(self, error: OSError) -> bool:
        """Whether the machine, or rights to the whole directory, are at fault."""
        is_denied = error.errno in (errno.EACCES, errno.EPERM)
        is_closed = is_denied and not os.access(self._directory, os.X_OK)
        return error.errno in MACHINE_ERRORS or is_closed


@contextmanager
def _transient(what: str) -> Iterator[None]:
    """Turn each error of the operating system into a `TransientError`."""
    try:
        yield
    except OSError as error:
        raise TransientError(f"{what}: {reason_of(error)}") from error


def read_whole(file_path: str, name: str, flags: int = 0) -> tuple[bytes, os.stat_result]:
    """A regular file's bytes, and its status while it was read.

    O_NONBLOCK keeps a named pipe without a writer from blocking. With O_NOFOLLOW among the `flags`,
    a symlink that was swapped in after the path was checked is refused. Raises `OSError`, and
    `InvalidInput` with this name if it is no regular file, is too large, or changes meanwhile.
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
    """The text of an error, without the number and the path that an `OSError` adds."""
    return (isinstance(error, OSError) and error.strerror) or str(error)
