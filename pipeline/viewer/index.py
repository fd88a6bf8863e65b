"""The index: what the mock databases hold, to be searched and counted.

It is made anew at each start, in memory, and follows the files as they come and go.
"""

import math
import re
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pipeline.errors import InvalidInput, TransientError
from pipeline.messages import IMAGE_ID, parts_of
from pipeline.settings import Settings
from pipeline.stop_signal import StopSignal
from pipeline.store.database import Database
from pipeline.store.names import IMAGE_DATABASE, IMAGE_EVENT_DATABASE

TOGETHER = 500  # new files that become visible together
WORTH = 5  # seconds to take them in until the next listing, or twice as long as one takes
PAUSE = 0.5  # seconds between two listings, or ten times as long as one takes
LONGEST = 2**16  # bytes of a description that are looked at
RECENT = 600  # seconds in which the file of an image that Kafka tells of must be listed
LETTERS = 10_000  # dead letters to keep

EVENT = re.compile(rf"image_event_({IMAGE_ID})\.txt")
IMAGE = re.compile(rf"({IMAGE_ID})\.[A-Za-z0-9]{{1,9}}")
SHARE = re.compile(r"(?P<percent>[0-9.]+(e-?[0-9]+)?) %( \(([0-9]{1,18}) of ([0-9]{1,18})\))?")
BOX = re.compile(r"([0-9]{1,9}) x ([0-9]{1,9}) pixels at x ([0-9]{1,9}), y ([0-9]{1,9})")

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
CREATE TABLE letters (partition INT, offset INT, time INT, stage TEXT, place TEXT,
    key TEXT, reason TEXT, value TEXT, size INT, image_id TEXT, UNIQUE (partition, offset));
CREATE VIEW moments AS SELECT source, time, 0 AS is_event FROM images WHERE listed
    UNION ALL SELECT source, received, 1 FROM events;
CREATE VIEW sources AS WITH RECURSIVE some(source) AS ( -- as quick as there are few
    SELECT min(source) FROM events
    UNION ALL SELECT (SELECT min(source) FROM events WHERE source > some.source) FROM some
    WHERE some.source NOT NULL) SELECT source FROM some WHERE source NOT NULL;
CREATE INDEX newest_letters ON letters (time, partition, offset);
"""

Row = sqlite3.Row
Lines = list[tuple[str, str]]


@dataclass(frozen=True)
class Event:
    """An image event, as its description tells of it."""

    id: str
    received: int  # seconds since 1970; when the description was written, if it doesn't say
    share: float | None  # of the pixels, in percent
    rms: str
    box: str
    fault: str  # what is wrong with the description, if anything
    lines: Lines

    @property
    def source(self) -> str:
        """The source of the changed image."""
        return _source(self.id)

    @property
    def number(self) -> int:
        """The number of the changed image."""
        return _number(self.id)


class Index:
    """What there is, by id, time, source and size of change."""

    def __init__(self, settings: Settings) -> None:
        self.events = Database(settings.data, IMAGE_EVENT_DATABASE)
        self.images = Database(settings.data, IMAGE_DATABASE)
        self.unread = 0  # descriptions that are there, but not in the index yet
        self.version = time.time_ns() // 1000  # another one whenever a page may look different
        self.troubles: dict[str, str] = {}  # what is wrong now, for people, by what it is about
        self._faults: list[TransientError] = []  # since the last listing
        self._known_events: set[str] = set()
        self._known_images: set[str] = set()
        self._hints: set[str] = set()
        self._hinted = threading.Event()
        self._lock = threading.Lock()
        self._tables = sqlite3.connect(":memory:", check_same_thread=False)
        self._tables.row_factory = sqlite3.Row
        self._tables.executescript(TABLES)

    @property
    def image_count(self) -> int:
        """How many images there are, that are in the index."""
        return len(self._known_images)

    def select(self, query: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> list[Row]:
        """The rows that an SQL query finds."""
        with self._lock:
            return self._tables.execute(query, values).fetchall()

    def put(self, statement: str, rows: Iterable[Sequence[Any]] = ((),)) -> None:
        """Run an SQL statement for each of these rows; all become visible together."""
        with self._lock, self._tables:
            before = self._tables.total_changes
            self._tables.executemany(statement, rows)
            self.version += self._tables.total_changes > before

    def tell(self, about: str, trouble: str) -> None:
        """Keep what is wrong with something, for the pages; nothing when all is well again."""
        if self.troubles.get(about, "") != trouble:
            self.troubles[about] = trouble
            self.version += 1

    def hint(self, event_id: str) -> None:
        """Say that an event is new, or another one than before."""
        self._hints.add(event_id)
        self._hinted.set()

    def keep_up(self, stop: StopSignal) -> None:
        """Follow the files until told to stop."""
        with ThreadPoolExecutor(max(1, self.events.files.read_ahead)) as threads:
            while not stop:
                took = 0.0
                self._faults.clear()
                try:
                    took, is_all = self._list(threads)
                    self.tell("files", f"{self._faults[0]}." if self._faults else "")
                    if not is_all:
                        continue
                except TransientError as fault:
                    self.tell("files", f"{fault}. What is shown is what was there before.")
                pause_ends = time.monotonic() + max(PAUSE, 10 * took)
                while not stop and (left := pause_ends - time.monotonic()) > 0:
                    if self._hinted.wait(min(left, PAUSE)):
                        self._hinted.clear()
                        hints, self._hints = self._hints, set()
                        with suppress(TransientError):  # which the next listing says
                            self._known_events |= self._read(threads, sorted(hints))

    def _list(self, threads: ThreadPoolExecutor) -> tuple[float, bool]:
        """Take in what is new, and forget what has gone.

        How many seconds the listings took, and whether everything that is there was taken in.
        """
        began = time.monotonic()
        names = {match[1] for match in map(EVENT.fullmatch, self.events.files.names()) if match}
        images = {
            match[1]: match[0] for match in map(IMAGE.fullmatch, self.images.files.names()) if match
        }
        took = time.monotonic() - began
        end = time.monotonic() + max(WORTH, 2 * took)

        self.put("DELETE FROM events WHERE id = ?", ((id_,) for id_ in self._known_events - names))
        self._known_events &= names
        new = sorted(names - self._known_events, key=_number)
        for some in _newest(new, end):
            self.unread = len(new)
            self._known_events |= self._read(threads, some)

        gone = self._known_images - images.keys()
        self.put("DELETE FROM images WHERE id = ?", ((id_,) for id_ in gone))
        self._known_images &= images.keys()
        new_images = sorted(images.keys() - self._known_images, key=_number)
        for some in _newest(new_images, end):
            self._date({id_: images[id_] for id_ in some})
            self._known_images |= {*some}
        if new or new_images:
            return took, False
        # By now, what Kafka told of a while ago and isn't there has gone.
        before = int(time.time()) - RECENT
        self.put("DELETE FROM images WHERE NOT listed AND time < ?", [(before,)])
        return took, True

    def _read(self, threads: ThreadPoolExecutor, ids: Sequence[str]) -> set[str]:
        """Take in these events by their descriptions; those that could be."""
        rows = [row for row in threads.map(self._row, ids) if row]
        self.put("INSERT OR REPLACE INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
        self.put(
            "INSERT INTO images (id, source, number, time) VALUES (?, ?, ?, ?) "
            "ON CONFLICT DO UPDATE SET time = excluded.time",
            (row[:4] for row in rows),
        )
        return {row[0] for row in rows}

    def _row(self, event_id: str) -> tuple[Any, ...] | None:
        """An event's row; None if it isn't there, or can't be read now."""
        try:
            event = self.look(event_id)
        except TransientError as fault:
            self._faults.append(fault)
            return None
        if not event:
            return None
        return (
            *(event.id, event.source, event.number, event.received),
            *(event.share, event.rms, event.box, event.fault),
        )

    def look(self, event_id: str) -> "Event | None":
        """An event as its description tells of it; None if there is none. Raises `Passing`."""
        path = f"{IMAGE_EVENT_DATABASE}/image_event_{event_id}.txt"
        try:
            lines, fault = describe(self.events.files.read(path), event_id)
        except InvalidInput as reason:
            with suppress(OSError):  # of a link to where we may not look
                if not self.events.files.has(path):
                    return None
            lines, fault = [], str(reason)
        about = dict(reversed(lines))  # of two lines of a name, the first one
        received = seconds_of(about.get("Received", ""))
        if received is None:
            received = round(time.time() - self.events.files.age(path))
        share = share_of(about.get("Pixels changed", ""))
        rms, box = (about.get(name, "")[:60] for name in ("RMS difference", "Changed box"))
        return Event(event_id, received, share, rms, box, fault, lines)

    def _date(self, images: dict[str, str]) -> None:
        """Take in these images, with the time of their files where that is quick to be had."""
        files, rows = self.images.files, []
        for image_id, name in images.items():
            path = f"{IMAGE_DATABASE}/{name}"
            written = round(time.time() - files.age(path)) if files.is_listing_fast else None
            rows.append((image_id, _source(image_id), _number(image_id), written))
        self.put(
            "INSERT INTO images (id, source, number, time, listed) VALUES (?, ?, ?, ?, 1) "
            "ON CONFLICT DO UPDATE SET listed = 1, time = coalesce(time, excluded.time)",
            rows,
        )


def describe(content: bytes, event_id: str) -> tuple[Lines, str]:
    """A description's lines as names and values, and what is wrong with it, if anything."""
    fault = ""
    try:
        content.decode()
    except UnicodeDecodeError as error:
        fault = f"it is no text in UTF-8: {error}"
    text = content[:LONGEST].decode(errors="replace")
    lines = [(name, value.strip()) for name, _, value in map(_parts, text.splitlines())]
    if not fault and ("Image event", event_id) not in lines:
        fault = f"it has no line “Image event: {event_id}”"
    return lines, fault


def seconds_of(text: str) -> int | None:
    """A time in UTC, like `2026-11-25 01:26:18 UTC`, in seconds since 1970; None if it is none."""
    with suppress(ValueError, OverflowError):
        at = datetime.fromisoformat(text.removesuffix("UTC").strip())
        return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp())
    return None


def share_of(text: str) -> float | None:
    """The changed share in percent, from `99.9 % (122388 of 122500)`; None if it says none."""
    with suppress(ValueError, ArithmeticError):
        if found := SHARE.match(text):
            changed, pixels = found[4], found[5]
            share = 100 * int(changed) / int(pixels) if pixels else float(found["percent"])
            return share if math.isfinite(share) else None
    return None


def box_of(text: str) -> tuple[int, int, int, int] | None:
    """The changed box as left, top, width and height in pixels; None if it says none."""
    if not (found := BOX.fullmatch(text)):
        return None
    width, height, left, top = map(int, found.groups())
    return left, top, width, height


def _parts(line: str) -> tuple[str, str, str]:
    name, colon, value = line.partition(":")
    return (name.strip(), colon, value) if colon else ("", "", line)


def _newest(ids: list[str], end: float) -> Iterator[list[str]]:
    """Some of the ids after others, until that time, from the end: the newest, most likely."""
    while ids and time.monotonic() < end:
        some = ids[-TOGETHER:]
        del ids[-TOGETHER:]
        yield some


def _source(id_: str) -> str:
    return parts_of(id_)[0]


def _number(id_: str) -> int:
    return parts_of(id_)[1]
