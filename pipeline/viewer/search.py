"""The search for image events: what a form asks for, and the rows of the index that match."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args
from urllib.parse import urlencode

from pipeline.descriptions import seconds_of
from pipeline.messages import IMAGE_ID, SOURCE, EventKind, parts_of
from pipeline.viewer.formats import form_time, plain, quoted
from pipeline.viewer.index import Index, Row

NO_NAME = "-"  # stands for the default source, whose name is empty
FIELDS = {  # in addresses, and as the form calls them
    "id": "Id",
    "source": "Source",
    "from": "From",
    "to": "Before",
    "least": "Changed at least",
    "kind": "Kind",
}
KINDS = get_args(EventKind)
MAX_TIME = 253_402_300_800  # the year 10000, which neither forms nor pages can write

Position = tuple[int, int, str]  # in the list of events: when received, number, source


@dataclass(frozen=True)
class Search:
    """Which events to show: a form asks for it, and the addresses of pages keep it."""

    id: str = ""  # a part of the id
    source: str = ""  # empty: any source
    since: int | None = None  # seconds since 1970
    until: int | None = None  # seconds since 1970, not included
    least: float | None = None  # changed share in percent
    kind: str = ""  # empty: any kind
    typed: Mapping[str, str] = field(default_factory=dict)  # each field as it was asked for
    faults: Mapping[str, str] = field(default_factory=dict)  # what makes no sense, by field

    @classmethod
    def of(cls, asked: Mapping[str, str], places: Collection[str] = ()) -> "Search":
        """The search that an address asks for; its faults say what makes no sense.

        `places` are the names with which an address may say where in a list it is.
        """
        typed = {name: value.strip() for name, value in asked.items()}
        faults = {}
        for name in typed.keys() - FIELDS.keys() - {*places}:
            known = ", ".join(FIELDS)
            faults[name] = f"The address asks for {quoted(name)}; a search has {known}."
        if not re.fullmatch(r"[a-z0-9_-]{0,75}", id_ := typed.get("id", "")):
            faults["id"] = f"{quoted(id_)} is in no event's id; they are like 00003 or cam1-00003."
        source = typed.get("source", "")
        if not re.fullmatch(rf"({SOURCE}|{NO_NAME})?", source):
            allowed = "they are 1 to 64 of a-z, 0-9 and _"
            faults["source"] = f"{quoted(source)} is no source; {allowed}."
        times = {name: seconds_of(typed.get(name, "")) for name in ("from", "to")}
        for name, time in times.items():
            if typed.get(name) and not 0 <= (-1 if time is None else time) < MAX_TIME:
                allowed = "write it like 2026-11-25 18:30, from 1970 to 9999"
                faults[name] = f"{quoted(typed[name])} is no time; {allowed}."
        since, until = times["from"], times["to"]
        if not faults and since is not None and until is not None and since >= until:
            faults["to"] = "No time is before this one and not before the one in “From”."
        least = typed.get("least", "")
        number = r"([0-9]{1,3})?(\.[0-9]{1,20})?"
        if not re.fullmatch(number, least) or least == "." or float(least or 0) > 100:
            faults["least"] = f"{quoted(least)} is no share; write a number from 0 to 100."
        kind = typed.get("kind", "")
        if kind not in ("", *KINDS):
            faults["kind"] = f"{quoted(kind)} is no kind; they are {' and '.join(KINDS)}."
        return cls(
            id="" if "id" in faults else id_,
            source="" if "source" in faults else source,
            since=None if "from" in faults else since,
            until=None if "to" in faults else until,
            least=float(least) if least and "least" not in faults else None,
            kind="" if "kind" in faults else kind,
            typed=typed,
            faults=faults,
        )

    def where(self) -> tuple[str, list[Any]]:
        """The condition in SQL, and its values."""
        wanted = {
            "source = ?": self.source.replace(NO_NAME, "") if self.source else None,
            "instr(id, ?)": self.id or None,
            "received >= ?": self.since,
            "received < ?": self.until,
            "share >= ?": self.least,
            "kind = ?": self.kind or None,
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
            "kind": self.kind,
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
    """The position in the list of events that a part of an address names; None if it names none."""
    found = re.fullmatch(rf"(-?[0-9]{{1,12}})\.({IMAGE_ID})", text, re.ASCII)
    if not found:
        return None
    source, number = parts_of(found[2])
    return int(found[1]), number, source


def position(row: Row) -> str:
    """The position of an event in an address."""
    return f"{row['received']}.{row['id']}"
