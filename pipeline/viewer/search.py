"""The search for image events: what a form asks for, and the rows of the index that match."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import urlencode

from starlette.exceptions import HTTPException

from pipeline.descriptions import seconds_of
from pipeline.messages import IMAGE_ID, SOURCE, parts_of
from pipeline.viewer.formats import form_time, plain
from pipeline.viewer.index import Index, Row

NO_NAME = "-"  # stands for the default source, whose name is empty

Position = tuple[int, int, str]  # in the list of events: when received, number, source


@dataclass(frozen=True)
class Search:
    """Which events to show: a form asks for it, and the addresses of pages keep it."""

    id: str = ""  # a part of the id
    source: str = ""  # empty: any source
    since: int | None = None  # seconds since 1970
    until: int | None = None  # seconds since 1970, not included
    least: float | None = None  # changed share in percent

    @classmethod
    def of(cls, asked: Mapping[str, str]) -> "Search":
        """The search that an address asks for; what makes no sense is answered by a 400."""
        given = {name: value.strip() for name, value in asked.items()}
        id_, source = given.get("id", ""), given.get("source", "")
        if not re.fullmatch(r"[a-z0-9_-]{0,75}", id_):
            refuse(f"id: {id_!r} is in no event's id; they are like 00003 or cam1-00003")
        if not re.fullmatch(rf"({SOURCE}|{NO_NAME})?", source):
            refuse(f"source: {source!r} is no source; they are 1 to 64 of a-z, 0-9 and _")
        times: list[int | None] = []
        for name in ("from", "to"):
            text = given.get(name, "")
            times.append(seconds_of(text) if text else None)
            if text and times[-1] is None:
                refuse(f"{name}: {text!r} is no time; write it like 2026-11-25 18:30")
        least = None
        if text := given.get("least", ""):
            number = r"([0-9]{1,3})?(\.[0-9]{1,20})?"
            if not re.fullmatch(number, text) or text == "." or float(text) > 100:
                refuse(f"changed: {text!r} is no share; write a number from 0 to 100")
            least = float(text)
        return cls(id_, source, times[0], times[1], least)

    def where(self) -> tuple[str, list[Any]]:
        """The condition in SQL, and its values."""
        wanted = {
            "source = ?": self.source.replace(NO_NAME, "") if self.source else None,
            "instr(id, ?)": self.id or None,
            "received >= ?": self.since,
            "received < ?": self.until,
            "share >= ?": self.least,
        }
        given = {condition: value for condition, value in wanted.items() if value is not None}
        return " AND ".join(["TRUE", *given]), list(given.values())

    def query(self, **more: str) -> str:
        """The query of an address that asks for this search, with `more`; empty if for nothing."""
        asked = {
            "id": self.id,
            "source": self.source,
            "from": form_time(self.since),
            "to": form_time(self.until),
            "least": plain(self.least),
            **more,
        }
        given = {name: value for name, value in asked.items() if value}
        return f"?{urlencode(given)}" if given else ""

    def count(self, index: Index) -> int:
        """How many events match."""
        condition, values = self.where()
        query = f"SELECT count(*) FROM events WHERE {condition}"  # noqa: S608
        return int(index.select(query, values)[0][0])

    def find(
        self, index: Index, limit: int, position: Position | None = None, *, is_newer: bool = False
    ) -> list[Row]:
        """The events before a position, newest first, or those after it, oldest first."""
        condition, values = self.where()
        if position:
            condition += f" AND (received, number, source) {'>' if is_newer else '<'} (?, ?, ?)"
        direction = "" if is_newer else " DESC"
        order = ", ".join(f"{name}{direction}" for name in ("received", "number", "source"))
        query = f"SELECT * FROM events WHERE {condition} ORDER BY {order} LIMIT ?"  # noqa: S608
        return index.select(query, [*values, *(position or ()), limit])


def read_position(text: str) -> Position | None:
    """The position in the list of events that an address names, if it does."""
    if not text:
        return None
    found = re.fullmatch(rf"(-?[0-9]{{1,12}})\.({IMAGE_ID})", text, re.ASCII)
    if not found:
        refuse(f"{text!r} is no place in this list")
    source, number = parts_of(found[2])
    return int(found[1]), number, source


def position(row: Row) -> str:
    """The position of an event in an address."""
    return f"{row['received']}.{row['id']}"


def refuse(reason: str) -> NoReturn:
    """Answer that a request makes no sense."""
    raise HTTPException(400, f"{reason}.")
