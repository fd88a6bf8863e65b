"""What a directory and an object store can both do with the files of one mock database."""

from typing import Protocol

MAX_BYTES = 256 * 2**20  # a file that is larger is no image


class Files(Protocol):
    """The files of one mock database. A path begins with the database's name.

    Each method raises `TransientError` for a fault that a later try may not meet.
    """

    where: str  # the directory or URL, for people
    max_concurrent: int  # how many writes may run at the same time
    read_ahead: int  # how many files to read before they are asked for
    is_listing_fast: bool  # whether it is cheap to list all names

    def read(self, path: str) -> bytes:
        """A file's bytes. Raises `InvalidInput` if the path names no file of this database."""

    def write(self, path: str, content: bytes, *, is_new: bool) -> bool:
        """Write a whole file; with `is_new`, return False instead of replacing an existing one."""

    def sync(self) -> None:
        """Return once everything that was written survives a power cut."""

    def has(self, path: str) -> bool:
        """Whether the file exists."""

    def names(self, prefix: str = "") -> list[str]:
        """The names of all files that begin with the prefix, without the database's name."""

    def age(self, path: str) -> float:
        """Seconds since the file was written; 0 if it does not exist."""

    def remove(self, path: str) -> None:
        """Delete the file if it exists."""
