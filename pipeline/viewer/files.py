"""Keeps the index up to date with the files of the image database and the event database."""

import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from pipeline.errors import TransientError
from pipeline.messages import IMAGE_ID, parts_of
from pipeline.stop_signal import StopSignal
from pipeline.store.database import Database
from pipeline.store.names import IMAGE, IMAGE_DATABASE
from pipeline.viewer.events import read_event
from pipeline.viewer.index import Index

TOGETHER = 500  # new files that become visible together
MIN_READING = 5  # seconds to read new files before the next listing; after a slow one, more
PAUSE = 0.5  # seconds between two listings; after a slow one, more
RECENT = 600  # seconds within which an image that Kafka has announced must be listed

EVENT = re.compile(rf"image_event_({IMAGE_ID})\.txt")


class FileFollower:
    """Lists the files again and again, and brings what is new or gone into the index."""

    def __init__(self, events: Database, images: Database, index: Index) -> None:
        self._events = events
        self._images = images
        self._index = index
        self._faults: list[TransientError] = []  # since the last listing
        self._known_events: set[str] = set()
        self._known_images: set[str] = set()
        self._announced: set[str] = set()  # events
        self._is_announced = threading.Event()

    def announce(self, event_id: str) -> None:
        """Read this event soon: it is new, or was published again."""
        self._announced.add(event_id)
        self._is_announced.set()

    def follow(self, stop: StopSignal) -> None:
        """Follow the files until the program is asked to stop."""
        with ThreadPoolExecutor(max(1, self._events.files.read_ahead)) as threads:
            while not stop:
                seconds = 0.0
                self._faults.clear()
                try:
                    seconds, is_complete = self._list(threads)
                    fault = f"{self._faults[0]}." if self._faults else ""
                    self._index.set_trouble("files", fault)
                    if not is_complete:
                        continue
                except TransientError as error:
                    shown = "What is shown is what was there before."
                    self._index.set_trouble("files", f"{error}. {shown}")
                self._read_announced(threads, max(PAUSE, 10 * seconds), stop)

    def _read_announced(
        self, threads: ThreadPoolExecutor, seconds: float, stop: StopSignal
    ) -> None:
        """For so many seconds, read the events that are announced."""
        end = time.monotonic() + seconds
        while not stop and (left := end - time.monotonic()) > 0:
            if self._is_announced.wait(min(left, PAUSE)):
                self._is_announced.clear()
                announced, self._announced = self._announced, set()
                with suppress(TransientError):  # the next listing meets it, too, and shows it
                    self._known_events |= self._read(threads, sorted(announced))

    def _list(self, threads: ThreadPoolExecutor) -> tuple[float, bool]:
        """List the files, and bring the index up to date.

        Returns the seconds that the listing took, and whether no new file was found.
        """
        began = time.monotonic()
        event_names, image_names = self._names(self._events), self._names(self._images)
        seconds = time.monotonic() - began
        end = time.monotonic() + max(MIN_READING, 2 * seconds)

        events = self._known_events
        if event_names is not None:
            events = {match[1] for match in map(EVENT.fullmatch, event_names) if match}
        gone = self._known_events - events
        self._index.write("DELETE FROM events WHERE id = ?", ((gone_id,) for gone_id in gone))
        self._known_events &= events
        new_events = sorted(events - self._known_events, key=_number)
        for ids in _newest(new_events, end):
            self._index.unread = len(new_events)
            self._known_events |= self._read(threads, ids)

        images = dict.fromkeys(self._known_images, "")
        if image_names is not None:
            images = {match[1]: match[0] for match in map(IMAGE.fullmatch, image_names) if match}
        gone = self._known_images - images.keys()
        self._index.write("DELETE FROM images WHERE id = ?", ((gone_id,) for gone_id in gone))
        self._known_images &= images.keys()
        new_images = sorted(images.keys() - self._known_images, key=_number)
        for ids in _newest(new_images, end):
            self._add_images({image_id: images[image_id] for image_id in ids})
            self._known_images |= {*ids}
        if new_events or new_images:
            return seconds, False
        # Everything is listed: an image that Kafka announced a while ago and isn't there has gone.
        before = int(time.time()) - RECENT
        self._index.write("DELETE FROM images WHERE NOT listed AND time < ?", [(before,)])
        return seconds, True

    def _names(self, database: Database) -> list[str] | None:
        """The names of a database's files; None if its directory isn't there, as without its disk.

        A cleaned database has an empty directory: what it had is gone, and isn't shown any more.
        """
        names = database.files.names()
        where = database.where
        if names or not database.files.is_listing_fast or os.path.isdir(where):
            return names
        why = "the pipeline makes it; or is its disk not mounted?"
        self._faults.append(TransientError(f"{where} isn't there: {why}"))
        return None

    def _read(self, threads: ThreadPoolExecutor, ids: Sequence[str]) -> set[str]:
        """Put the events of these ids into the index; the ids of those that can be read."""
        rows = [row for row in threads.map(self._row, ids) if row]
        self._index.write("INSERT OR REPLACE INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        self._index.write(
            "INSERT INTO images (id, source, number, time) VALUES (?, ?, ?, ?) "
            "ON CONFLICT DO UPDATE SET time = excluded.time",
            (row[:4] for row in rows),
        )
        return {row[0] for row in rows}

    def _row(self, event_id: str) -> tuple[Any, ...] | None:
        """The row of an event; None if the event isn't there, or can't be read now."""
        try:
            event = read_event(self._events, event_id)
        except TransientError as fault:
            self._faults.append(fault)
            return None
        if not event:
            return None
        text = event.description
        return (
            *(event.id, event.source, event.number, event.received),
            *(text.changed_percent, text.rms, text.changed_box, text.fault, text.kind),
        )

    def _add_images(self, images: dict[str, str]) -> None:
        """Put images into the index, by their ids and names, with the time of each file.

        In an object store it takes too long to ask for the times.
        """
        files, rows = self._images.files, []
        for image_id, name in images.items():
            written = None
            if files.is_listing_fast:
                written = round(time.time() - files.age(f"{IMAGE_DATABASE}/{name}"))
            rows.append((image_id, *parts_of(image_id), written))
        self._index.write(
            "INSERT INTO images (id, source, number, time, listed) VALUES (?, ?, ?, ?, 1) "
            "ON CONFLICT DO UPDATE SET listed = 1, time = coalesce(time, excluded.time)",
            rows,
        )


def _newest(ids: list[str], end: float) -> Iterator[list[str]]:
    """Remove ids from the end of the list, some at a time, until the monotonic time `end`."""
    while ids and time.monotonic() < end:
        some = ids[-TOGETHER:]
        del ids[-TOGETHER:]
        yield some


def _number(image_id: str) -> int:
    return parts_of(image_id)[1]
