"""Which files of a watched directory were received already, so that none is received twice."""

import os
from collections.abc import Set

from pipeline.store.names import digest

SET_ASIDE = -1


class SeenFiles:
    """The fingerprints of files that were received or set aside, with the images' numbers.

    The outbox stores them together with the messages of a batch, before the images of the batch.
    """

    def __init__(self, directories: dict[str, dict[str, int]]) -> None:
        """`directories` has the numbers by fingerprint, for each directory that was ever watched.

        A file that was set aside has the number SET_ASIDE.
        """
        self.directories = directories
        self._watched: dict[str, int] | None = None

    def watch(self, directory: str) -> None:
        """Begin to look up and add files of this directory."""
        key = digest(os.fsencode(os.path.abspath(directory)))[:16]
        self._watched = self.directories.setdefault(key, {})

    def add(self, fingerprint: str, number: int) -> None:
        """Add a file of the watched directory. Nothing is added if no directory is watched."""
        if self._watched is not None:
            self._watched[fingerprint] = number

    def has_any(self, fingerprints: Set[str]) -> bool:
        """Whether a file with one of the fingerprints was received or set aside."""
        return not fingerprints.isdisjoint(self._watched or {})

    def keep_only(self, fingerprints: Set[str]) -> None:
        """Drop the fingerprints of vanished files: those that are not among the given ones."""
        if self._watched is not None:
            for fingerprint in self._watched.keys() - fingerprints:
                del self._watched[fingerprint]

    def forget_from(self, next_number: int) -> None:
        """Drop the files whose images were never stored, so that they are received again.

        The fingerprints are stored before the images are, so after a kill there may be some whose
        numbers are given out again. When all images are deleted, all files are received anew.
        """
        for numbers in self.directories.values():
            for fingerprint, number in list(numbers.items()):
                if number >= next_number:
                    del numbers[fingerprint]
