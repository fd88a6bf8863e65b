"""Receives the pictures of one source from a directory that a camera fills.

A picture is taken once it is whole, as its own format says, and has not changed for a while. A file
that never rests, since a camera writes over the same name again and again, is copied often.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from pipeline.errors import InvalidInput
from pipeline.pictures.files import SetAside, picture_of, read_file
from pipeline.pictures.listing import LISTING_PAUSE, Listing, WatchedDirectory
from pipeline.pictures.picture import Picture
from pipeline.pictures.seen_files import SeenFiles, hash_of_bytes, hash_of_name
from pipeline.pictures.tree import Inode
from pipeline.pictures.whole import ENDS_WITH_ZEROS, tells_its_end, what_is_missing
from pipeline.pictures.written_over import LOOK_PAUSE, WrittenOver, state_of
from pipeline.stop_signal import StopSignal
from pipeline.terminal import printable, say

# For so many seconds a file must stay unchanged:
REST = 1.0  # before it is looked at
LONG_REST = 10.0  # before it is taken, if its format can't tell its end
SAID_AFTER = 5.0  # before it is said why it is not taken yet
UNUSABLE_REST = 30.0  # before it is set aside, or taken although something seems to be missing
RESTLESS = 2.0  # seconds of changes after which a file is copied often
RESTLESS_SAID = 10.0  # seconds of changes, without a whole copy, after which it is said
REPLACED = 60.0  # seconds for which a replaced directory must stay before its listing counts


@dataclass
class FileVersion:
    """A file as it was in one listing and has stayed since."""

    path: str
    status: os.stat_result
    unchanged_since: float
    restless_since: float  # when the first of its versions came that was replaced before its rest
    rest: float = REST  # for how long it must stay unchanged before it is looked at
    may_be_whole: bool = False  # but must rest longer

    def __post_init__(self) -> None:
        self.name_hash = hash_of_name(self.path, self.status)
        self.changed = f"{self.status.st_ctime_ns:x}"


class DirectoryWatcher:
    """Receives the pictures that a watched directory has of one source."""

    def __init__(
        self,
        directory: WatchedDirectory,
        source: str,
        seen: SeenFiles,
        set_aside: SetAside,
        stop: StopSignal,
        *,
        accept_damaged: bool = False,
    ) -> None:
        seen.watch(directory.path)
        self._directory = directory
        self._source = source
        self._seen = seen
        self._set_aside = set_aside
        self._stop = stop
        self._accept_damaged = accept_damaged
        self._versions: dict[str, FileVersion] = {}  # by path, of the last listing
        self._written_over: dict[str, WrittenOver] = {}  # by path: the files that never rest
        self._last_copy = 0.0  # when one of these was copied
        self._said: set[str] = set()  # paths of which it was said why they are not taken yet
        self._inode: Inode | None = None  # of the directory
        self._listing_counts_from = 0.0  # when a file that is not listed has really vanished

    def pictures(self) -> Iterator[Picture | None]:
        """The picture of each file once, when it is whole; `None` when there are no more now.

        A picture must be among the seen files when the iteration goes on after a `None`.
        """
        while True:
            began = time.monotonic()
            if listing := self._directory.listing():
                self._notice(listing)
                for version in self._versions.values():
                    if picture := self._look_at(version, listing.began):
                        yield picture
                    elif version.may_be_whole and not self._is_seen(version):
                        break  # a newer picture must not overtake it
            yield None
            end = time.monotonic() + max(LISTING_PAUSE, time.monotonic() - began)
            while self._written_over and not self._stop and time.monotonic() < end:
                for copied in self._written_over.values():
                    if picture := self._look_at_copy(copied):
                        yield picture
                        yield None
                self._stop.wait(LOOK_PAUSE)
            self._stop.wait(end - time.monotonic())

    def _notice(self, listing: Listing) -> None:
        """Notice what has come, has changed and has vanished since the last listing."""
        now = listing.began
        files = listing.files.get(self._source, {})
        self._versions = {path: self._version(path, files[path], now) for path in files}
        self._said &= files.keys()
        self._written_over = {
            version.path: self._written_over.get(version.path) or WrittenOver(version.path)
            for version in self._versions.values()
            if version.unchanged_since - version.restless_since >= RESTLESS
            and now - version.unchanged_since < LONG_REST
        }
        # A listing that is older than the last copy doesn't have the copied version.
        if listing.is_complete and now > self._last_copy:
            self._drop_vanished(listing.inode, now)

    def _version(self, path: str, status: os.stat_result, now: float) -> FileVersion:
        """The version of the last listing, or a new one if the file has changed since."""
        last = self._versions.get(path)
        if last and state_of(last.status) == state_of(status):
            return last
        is_restless = last and (path in self._written_over or not self._is_seen(last))
        return FileVersion(path, status, now, last.restless_since if last and is_restless else now)

    def _is_seen(self, version: FileVersion) -> bool:
        return self._seen.has(version.name_hash, version.changed)

    def _look_at(self, version: FileVersion, now: float) -> Picture | None:
        """The picture of a file that has rested, if the file is new and whole."""
        age = now - version.unchanged_since
        if self._is_seen(version):
            return None
        if age < version.rest:
            copied = self._written_over.get(version.path)
            last_rest = max(version.restless_since, copied.taken if copied else 0)
            if age < REST and now - last_rest >= RESTLESS_SAID:
                self._say_why(
                    version.path,
                    f"it has changed all the time for {RESTLESS_SAID:g} s, and no copy of it was "
                    "whole; let the camera write it under a hidden name and rename it",
                )
            return None
        try:
            content, status = read_file(version.path)
            if hash_of_name(version.path, status) != version.name_hash:
                return None  # the next listing has the file as it is now
            missing = what_is_missing(content)
            version.may_be_whole = missing in (None, ENDS_WITH_ZEROS)
            if missing and age < UNUSABLE_REST:
                raise InvalidInput(missing)
            if age < LONG_REST and not tells_its_end(content):
                version.rest = LONG_REST
                return None
            return self._picture(version.path, content, status)
        except InvalidInput as reason:
            if age >= UNUSABLE_REST:
                self._set_aside(version.path, reason, f"{version.name_hash}-{version.changed}")
            elif age >= SAID_AFTER:
                self._say_why(version.path, str(reason))
            # It may be half written, by a writer that has paused.
            version.rest = SAID_AFTER if age < SAID_AFTER else UNUSABLE_REST
            return None

    def _look_at_copy(self, copied: WrittenOver) -> Picture | None:
        """The picture of a file that never rests, as it was copied, if it can be used."""
        copy = copied.look()
        if not copy:
            return None
        self._last_copy = time.monotonic()
        try:
            return self._picture(copied.path, copy.content, copy.status)
        except InvalidInput:
            return None  # the next copy may be better

    def _picture(self, path: str, content: bytes, status: os.stat_result) -> Picture | None:
        """The picture of a file with these bytes; None if it was seen. Raises `InvalidInput`."""
        name_hash, changed = hash_of_name(path, status), f"{status.st_ctime_ns:x}"
        bytes_hash = hash_of_bytes(content)
        if self._seen.has(name_hash, changed) or self._seen.has_bytes(
            name_hash, changed, bytes_hash
        ):
            return None
        fingerprint = f"{name_hash}-{changed}-{bytes_hash}"
        picture = picture_of(path, content, self._accept_damaged)
        return replace(picture, fingerprint=fingerprint)

    def _say_why(self, path: str, reason: str) -> None:
        """Say once of a file why it is not taken yet."""
        if path not in self._said:
            self._said.add(path)
            say(f"waits for  {printable(path)}: {printable(reason)}")

    def _drop_vanished(self, inode: Inode, now: float) -> None:
        """Drop fingerprints of vanished files, unless none of them remains.

        If none remains, the disk is probably unmounted. Another directory in the place of the
        watched one, which may be an empty mount point as well, must stay for a while first.
        """
        listed = {version.name_hash for version in self._versions.values()}
        if not self._seen.has_any(listed):
            return
        if inode != self._inode:
            self._listing_counts_from = now + REPLACED if self._inode else now
            self._inode = inode
        if now >= self._listing_counts_from:
            self._seen.keep_only(listed)
