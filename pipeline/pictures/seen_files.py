"""Which files of a watched directory were received already, so that none is received twice."""

import os
from collections.abc import Set

from pipeline.store.names import digest

SET_ASIDE = -1


class SeenFiles:
    """The fingerprints of files that were received or set aside, with the images' numbers.

    A fingerprint has up to three parts, with `-` between: the file's path, time and size, hashed;
    when its status was last changed; and the hash of its bytes. The first part finds a file again.
    If the status was changed since, by another file in its place or by new rights, the bytes tell
    which of the two. Fingerprints of earlier versions have the first part alone.

    The outbox stores them together with the messages of a batch, before the images of the batch.
    """

    def __init__(self, directories: dict[str, dict[str, int]]) -> None:
        """`directories` has the numbers by fingerprint, for each directory that was ever watched.

        A file that was set aside has the number SET_ASIDE, and a fingerprint without its bytes.
        """
        self.directories = directories
        self._watched: dict[str, int] | None = None
        self._fingerprints: dict[str, str] = {}  # of the watched directory, by their first parts

    def watch(self, directory: str) -> None:
        """Begin to look up and add files of this directory."""
        key = digest(os.fsencode(os.path.abspath(directory)))[:16]
        self._watched = self.directories.setdefault(key, {})
        self._fingerprints = {found.partition("-")[0]: found for found in self._watched}

    def add(self, fingerprint: str, number: int) -> None:
        """Add a file of the watched directory. Nothing is added if no directory is watched."""
        if self._watched is not None:
            first = fingerprint.partition("-")[0]
            self._watched.pop(self._fingerprints.get(first, ""), None)
            self._fingerprints[first] = fingerprint
            self._watched[fingerprint] = number

    def has(self, name_hash: str, changed: str) -> bool:
        """Whether a file with this first part, and whose status was changed then, was seen."""
        found = self._fingerprints.get(name_hash)
        return found is not None and (found == name_hash or found.split("-")[1] == changed)

    def has_bytes(self, name_hash: str, changed: str, bytes_hash: str) -> bool:
        """Whether it is a file that was received, with the same bytes; notes its new status."""
        found = self._fingerprints.get(name_hash, "")
        if self._watched is None or found.split("-")[2:] != [bytes_hash]:
            return False
        self.add(f"{name_hash}-{changed}-{bytes_hash}", self._watched[found])
        return True

    def has_any(self, name_hashes: Set[str]) -> bool:
        """Whether a file with one of these first parts was received or set aside."""
        return not name_hashes.isdisjoint(self._fingerprints)

    def keep_only(self, name_hashes: Set[str]) -> None:
        """Drop the fingerprints of vanished files: those that don't begin with one of these."""
        if self._watched is not None:
            for name_hash in self._fingerprints.keys() - name_hashes:
                del self._watched[self._fingerprints.pop(name_hash)]

    def forget_from(self, next_number: int) -> None:
        """Drop the files whose images were never stored, so that they are received again.

        The fingerprints are stored before the images are, so after a kill there may be some whose
        numbers are given out again. When all images are deleted, all files are received anew.
        """
        for numbers in self.directories.values():
            for fingerprint, number in list(numbers.items()):
                if number >= next_number:
                    del numbers[fingerprint]


def hash_of_name(path: str, status: os.stat_result) -> str:
    """The first part of a file's fingerprint: the hash of its path, its time and its size.

    The inode's number is left out, since another mount of the same disk may number them otherwise.
    """
    about = f"{os.path.abspath(path)}\0{status.st_mtime_ns}\0{status.st_size}"
    return digest(os.fsencode(about))[:16]


def hash_of_bytes(content: bytes) -> str:
    """The last part of a file's fingerprint."""
    return digest(content)[:16]
