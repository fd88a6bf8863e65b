"""The index: what the databases and the topics hold, in tables in memory that pages search.

Each start of the viewer makes it anew.
"""

import sqlite3
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

TABLES = """
CREATE TABLE events (id TEXT PRIMARY KEY, source TEXT, number INT, received INT, share REAL,
    rms TEXT, box TEXT, fault TEXT) WITHOUT ROWID;
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
"""

Row = sqlite3.Row


class Index:
    """Tables of image events, images and dead letters, for any thread."""

    def __init__(self) -> None:
        self.version = time.time_ns() // 1000  # changes whenever a page may look different
        self.unread = 0  # descriptions that are not in the tables yet
        self.troubles: dict[str, str] = {}  # what is wrong now, for people, by its subject
        self._lock = threading.Lock()
        self._tables = sqlite3.connect(":memory:", check_same_thread=False)
        self._tables.row_factory = sqlite3.Row
        self._tables.executescript(TABLES)

    def select(self, query: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> list[Row]:
        """The rows that an SQL query finds."""
        with self._lock:
            return self._tables.execute(query, values).fetchall()

    def write(self, statement: str, rows: Iterable[Sequence[Any]] = ((),)) -> None:
        """Run an SQL statement for each of these rows, in one transaction."""
        with self._lock, self._tables:
            before = self._tables.total_changes
            self._tables.executemany(statement, rows)
            self.version += self._tables.total_changes > before

    def set_trouble(self, subject: str, trouble: str) -> None:
        """Show on all pages what is wrong with something; an empty text says that all is well."""
        if self.troubles.get(subject, "") != trouble:
            self.troubles[subject] = trouble
            self.version += 1
