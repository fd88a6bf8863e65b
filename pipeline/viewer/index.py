"""The index: what the databases and the topics hold, in tables that pages search.

The tables are in a temporary file, not in memory, so that each thread reads them with a connection
of its own: a page that takes long holds up no other page. Each start of the viewer makes them anew.
"""

import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import FatalError, TransientError

TABLES = """
CREATE TABLE events (id TEXT PRIMARY KEY, source TEXT, number INT, received INT, share REAL,
    rms TEXT, box TEXT, fault TEXT, kind TEXT) WITHOUT ROWID;
CREATE INDEX newest_events ON events (received, number, source);
CREATE INDEX events_of_source ON events (source, received, number);
CREATE TABLE images (id TEXT PRIMARY KEY, source TEXT, number INT, listed INT DEFAULT 0,
    time INT, reason TEXT) WITHOUT ROWID;
CREATE INDEX images_of_source ON images (source, number) WHERE listed;
CREATE INDEX images_in_time ON images (source, time) WHERE listed;
CREATE INDEX images_not_listed ON images (time) WHERE NOT listed;
CREATE TABLE letters (partition INT, offset INT, time INT, stage TEXT, origin TEXT,
    key TEXT, reason TEXT, value TEXT, size INT, image_id TEXT, UNIQUE (partition, offset));
CREATE VIEW moments AS SELECT source, time, 0 AS is_event FROM images WHERE listed
    UNION ALL SELECT source, received, 1 FROM events;
-- A step for each source, not for each event, since SQLite looks up the next source in an index.
CREATE VIEW sources AS WITH RECURSIVE some(source) AS (
    SELECT min(source) FROM events
    UNION ALL SELECT (SELECT min(source) FROM events WHERE source > some.source) FROM some
    WHERE some.source NOT NULL) SELECT source FROM some WHERE source NOT NULL;
CREATE INDEX newest_letters ON letters (time, partition, offset);
CREATE INDEX letters_of_image ON letters (image_id);
"""

SPACE = "free space there, or set TMPDIR to a directory that has some"

Row = sqlite3.Row


class Index:
    """Tables of image events, images and dead letters, for any thread."""

    def __init__(self) -> None:
        self.version = time.time_ns() // 1000  # changes whenever a page may look different
        self.unread = 0  # descriptions that are not in the tables yet
        self.troubles: dict[str, str] = {}  # what is wrong now, for people, by its subject
        try:
            self._directory = tempfile.TemporaryDirectory(
                prefix="image-events-", ignore_cleanup_errors=True
            )
            self._path = Path(self._directory.name, "index.sqlite")
            self._tables = self._connect()
            self._tables.executescript(TABLES)
        except (OSError, sqlite3.Error) as error:
            raise FatalError(f"view: the index can't be written: {error}; {SPACE}") from error
        self._writing = threading.Lock()
        self._reading = threading.local()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, check_same_thread=False)
        # With a write-ahead log, readers and the writer don't wait for each other.
        for setting in ("journal_mode = WAL", "synchronous = OFF", f"mmap_size = {2**30}"):
            connection.execute(f"PRAGMA {setting}")
        connection.row_factory = sqlite3.Row
        return connection

    def select(self, query: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> list[Row]:
        """The rows that an SQL query finds."""
        if not hasattr(self._reading, "tables"):
            self._reading.tables = self._connect()
        rows: list[Row] = self._reading.tables.execute(query, values).fetchall()
        return rows

    def write(self, statement: str, rows: Iterable[Sequence[Any]] = ((),)) -> None:
        """Run an SQL statement for each of these rows, in one transaction.

        Raises `TransientError` if there is no space for them.
        """
        try:
            with self._writing, self._tables:
                before = self._tables.total_changes
                self._tables.executemany(statement, rows)
                changes = self._tables.total_changes - before
        except sqlite3.OperationalError as error:
            reason = f"The index in {self._path.parent} can't be written: {error}; {SPACE}"
            raise TransientError(reason) from error
        self.version += changes > 0

    def set_trouble(self, subject: str, trouble: str) -> None:
        """Show on all pages what is wrong with something; an empty text says that all is well."""
        if self.troubles.get(subject, "") != trouble:
            self.troubles[subject] = trouble
            self.version += 1
