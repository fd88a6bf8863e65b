"""Receives pictures from a directory that a camera fills."""

import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from pipeline.errors import InvalidInput
from pipeline.pictures.files import SetAside, fingerprint, has_image_name, read_picture
from pipeline.pictures.picture import Picture
from pipeline.pictures.seen_files import SeenFiles
from pipeline.stop_signal import StopSignal
from pipeline.store.local_files import reason_of
from pipeline.terminal import printable, say

LISTING_PAUSE = 0.5  # seconds between two listings, or as long as one takes
UNCHANGED_SECONDS = 1.0  # for which a file must stay unchanged before it is read
UNUSABLE_SECONDS = 30.0  # for which an unusable file must stay unchanged before it is set aside
REPLACED_SECONDS = 60.0  # for which a replaced directory must stay before its listing counts


@dataclass
class FileVersion:
    """A file as it was in one listing and has stayed since."""

    fingerprint: str
    # This one also contains when the file's rights were last changed. It is noted when the file is
    # set aside, so that a file that could not be opened is tried again once its rights are mended.
    aside_fingerprint: str
    unchanged_since: float
    was_unusable: bool = False

    @property
    def fingerprints(self) -> set[str]:
        """Both fingerprints: the file may have been seen under either."""
        return {self.fingerprint, self.aside_fingerprint}


class DirectoryWatcher:
    """Lists a directory again and again, since network disks announce no changes."""

    def __init__(
        self,
        directory: str,
        seen: SeenFiles,
        set_aside: SetAside,
        stop: StopSignal,
        accept_damaged: bool = False,
    ) -> None:
        seen.watch(directory)
        self._directory = directory
        self._seen = seen
        self._set_aside = set_aside
        self._stop = stop
        self._accept_damaged = accept_damaged
        self._versions: dict[str, FileVersion] = {}  # by path, of the last listing
        self._identity: tuple[int, int] | None = None  # of the directory: its device and inode
        self._listing_counts_from = 0.0  # when a file that is not listed has really vanished
        self._is_away = False

    def pictures(self) -> Iterator[Picture | None]:
        """The picture of each file once, when it is whole; `None` after each listing.

        A picture must be among the seen files when the iteration goes on after a `None`.
        """
        while True:
            began = time.monotonic()
            for path, version in self._list(began):
                age = began - version.unchanged_since
                if self._seen.has_any(version.fingerprints) or age < UNCHANGED_SECONDS:
                    continue
                # A file that can't be used may be half written, by a writer that has paused.
                if version.was_unusable and age < UNUSABLE_SECONDS:
                    continue
                try:
                    picture = read_picture(path, self._accept_damaged)
                except InvalidInput as reason:
                    if version.was_unusable:
                        self._set_aside(path, reason, version.aside_fingerprint)
                    version.was_unusable = True
                else:
                    if picture.fingerprint == version.fingerprint:
                        yield picture
            yield None
            self._stop.wait(max(LISTING_PAUSE, time.monotonic() - began))

    def _list(self, now: float) -> list[tuple[str, FileVersion]]:
        """The paths and versions of the files that are there now, the oldest file first."""
        found: list[tuple[int, str, FileVersion]] = []
        is_complete = True
        try:
            directory = os.stat(self._directory)
            with os.scandir(self._directory) as entries:
                for entry in entries:
                    if not has_image_name(entry.name):
                        continue
                    status, is_certain = _status(entry)
                    is_complete &= is_certain
                    if status and not stat.S_ISDIR(status.st_mode):
                        version = self._version(entry.path, status, now)
                        found.append((status.st_mtime_ns, entry.path, version))
        except OSError as error:
            if not self._is_away:
                where = printable(self._directory)
                say(f"{where} can't be listed: {reason_of(error)}; waiting for it")
            self._is_away = True
            return []
        if self._is_away:
            say(f"{printable(self._directory)} is there again")
        self._is_away = False
        self._versions = {path: version for _, path, version in found}
        if is_complete:
            self._drop_vanished((directory.st_dev, directory.st_ino), now)
        return [(path, version) for _, path, version in sorted(found, key=lambda file: file[:2])]

    def _version(self, path: str, status: os.stat_result, now: float) -> FileVersion:
        """The version of the last listing, or a new one if the file has changed since."""
        found = fingerprint(path, status)
        version = FileVersion(found, f"{found}-{status.st_ctime_ns:x}", now)
        last = self._versions.get(path)
        return last if last and last.fingerprints == version.fingerprints else version

    def _drop_vanished(self, identity: tuple[int, int], now: float) -> None:
        """Drop fingerprints of vanished files, unless none of them remains.

        If none remains, the disk is probably unmounted. Another directory in the place of the
        watched one, which may be an empty mount point as well, must stay for a while first.
        """
        listed = set().union(*(version.fingerprints for version in self._versions.values()))
        if not self._seen.has_any(listed):
            return
        if identity != self._identity:
            self._listing_counts_from = now + REPLACED_SECONDS if self._identity else now
            self._identity = identity
        if now >= self._listing_counts_from:
            self._seen.keep_only(listed)


def _status(entry: "os.DirEntry[str]") -> tuple[os.stat_result | None, bool]:
    """The status of a file, and whether it is certain.

    The status of a file that was deleted after the listing is `None`. A link whose file is not
    there has the status of the link itself, which is not certain: the file's disk may come back.
    """
    try:
        return entry.stat(), True
    except OSError as error:
        with suppress(OSError):
            return entry.stat(follow_symlinks=False), False
        return None, isinstance(error, FileNotFoundError)
