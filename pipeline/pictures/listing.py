"""Lists a watched directory again and again, since network disks announce no changes."""

import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby

from pipeline.pictures.source_names import MAX_SOURCES, SourcePattern, sources_of, spelling
from pipeline.pictures.tree import Inode, LeftAlone, Tree, list_tree, natural
from pipeline.stop_signal import StopSignal
from pipeline.store.local_files import reason_of
from pipeline.terminal import printable, say

LISTING_PAUSE = 0.5  # seconds between two listings, or as long as one takes


@dataclass(frozen=True)
class Listing:
    """What was in the directory at a time."""

    began: float
    files: dict[str, dict[str, os.stat_result]]  # by source and path, the oldest first
    is_complete: bool  # whether a file that isn't here has really gone
    inode: Inode  # of the directory


class WatchedDirectory:
    """A directory that is watched with all below it; all sources share its listings."""

    def __init__(
        self, path: str, pattern: SourcePattern | None, source: str, ours: Sequence[str]
    ) -> None:
        """Without a pattern, all files are of the `source`; `ours` are directories of ours."""
        self.path = path
        self._pattern = pattern
        self._source = source
        self._ours = ours
        self._lock = threading.Lock()
        self._listing: Listing | None = None
        self._next = 0.0  # when to list the directory again
        self._is_away = False
        self._left_alone = LeftAlone()
        self._spelled: set[str] = (
            set()
        )  # names of sources of which it was said how they are spelled
        self._faults: set[str] = set()  # directories of which it was said that they can't be listed

    def listing(self) -> Listing | None:
        """The newest listing; None while the directory is away."""
        with self._lock:
            began = time.monotonic()
            if began >= self._next:
                self._listing = self._list(began)
                ended = time.monotonic()
                self._next = ended + max(LISTING_PAUSE, ended - began)
            return self._listing

    def sources(self, stop: StopSignal) -> Iterator[str]:
        """The sources that files are of: each once, when its first file appears."""
        found: set[str] = set()
        too_many: set[str] = set()
        while not stop:
            listing = self.listing()
            for source in sorted((listing.files if listing else {}).keys() - found - too_many):
                if len(found) < MAX_SOURCES:
                    found.add(source)
                    yield source
                else:
                    if not too_many:
                        say(
                            f"left alone  source {source}, as there are {MAX_SOURCES} already; "
                            "the pattern may find a source in each file"
                        )
                    too_many.add(source)
            stop.wait(LISTING_PAUSE)

    def _list(self, began: float) -> Listing | None:
        try:
            tree = list_tree(self.path, inodes(self._ours))
        except OSError as error:
            if not self._is_away:
                where = printable(self.path)
                say(f"{where} can't be listed: {reason_of(error)}; waiting for it")
            self._is_away = True
            return None
        if self._is_away:
            say(f"{printable(self.path)} is there again")
        self._is_away = False
        for path in tree.faults.keys() - self._faults:
            say(f"{printable(path)} can't be listed: {tree.faults[path]}; waiting for it")
        self._faults = set(tree.faults)
        files = self._by_source(tree)
        self._left_alone.say(tree.left_alone)
        return Listing(began, files, tree.is_complete, tree.inode)

    def _by_source(self, tree: Tree) -> dict[str, dict[str, os.stat_result]]:
        paths = []

        def time_of(path: str) -> int:
            return tree.files[path].st_mtime_ns

        for _, of_same_time in groupby(sorted(tree.files, key=time_of), key=time_of):
            same = list(of_same_time)  # mostly one: the key of a name takes longer than all else
            paths += same if len(same) == 1 else sorted(same, key=natural)
        if self._pattern is None:
            return {self._source: {path: tree.files[path] for path in paths}}
        sources = sources_of(paths, self.path, self._pattern)
        tree.left_alone.update(sources.left_alone)
        for name in sources.spelled.keys() - self._spelled:
            self._spelled.add(name)
            say(spelling(name, sources.spelled[name]))
        files: dict[str, dict[str, os.stat_result]] = defaultdict(dict)
        for path, source in sources.of_files.items():
            files[source][path] = tree.files[path]
        return files


def inodes(paths: Iterable[str]) -> list[Inode]:
    """The inodes of the directories that are there."""
    found = []
    for path in paths:
        with suppress(OSError):
            status = os.stat(path)
            found.append((status.st_dev, status.st_ino))
    return found
