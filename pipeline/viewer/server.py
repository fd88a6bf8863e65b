"""View image events: a page that shows what changed, as it happens.

The mock databases are the truth, so that everything is seen without Kafka, too; Kafka adds what was
set aside, and why an image is no event.

    python -m pipeline view [--host 127.0.0.1] [--port 8000]
"""

import asyncio
import contextlib
import math
import re
import socket
from argparse import Namespace
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any, NoReturn
from urllib.parse import urlencode

import numpy as np
import uvicorn
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from pipeline.errors import FatalError, InvalidInput, TransientError
from pipeline.messages import IMAGE_ID, SOURCE, moment, parts_of
from pipeline.settings import HOST, PORT, Parser, Settings, matching
from pipeline.stop_signal import StopSignal
from pipeline.store.database import Database
from pipeline.store.names import digest
from pipeline.terminal import say
from pipeline.viewer.guard import Guard
from pipeline.viewer.index import Event, Index, Row, box_of, seconds_of
from pipeline.viewer.pictures import draw_shown, draw_small, kind_of
from pipeline.viewer.topics import Watched, follow

HERE = Path(__file__).resolve().parent
PAGE = 50  # events on a page
NEWEST = 24  # images of a source to show
STEPS = (1, 5, 15, 60, 300, 900, 3600, 10800, 21600, 86400, 604800, 2592000, 31536000)  # seconds
MOST_STEPS = 60  # in a timeline
NO_NAME = "-"  # stands for the default source, whose name is empty
PICTURES = {  # as addresses and descriptions call them
    "image": "Image",
    "previous": "Previous image",
    "difference": "Difference image",
}


def main(arguments: Sequence[str]) -> None:
    """Serve the pages until told to stop."""
    options, settings = view_options(arguments)
    stop = StopSignal()
    listener = listen(options.host, options.port)
    index = Index(settings)
    server = uvicorn.Server(
        uvicorn.Config(
            Viewer(index, stop).app(options.host),
            log_config=None,
            log_level="error",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=2,
        )
    )
    # Beside the main thread, where signals are for `stop`.
    serving = Thread(target=server.run, args=([listener],), daemon=True)
    for thread in (
        Thread(target=index.keep_up, args=(stop,), daemon=True),
        Thread(target=follow, args=(Watched(settings, stop, index), index), daemon=True),
        serving,
    ):
        thread.start()
    say(f"view: {index.images.where} and {index.events.where}")
    say(f"view: http://{address(options.host)}:{options.port}")
    while not stop and serving.is_alive():
        stop.wait(1)
    server.should_exit = True
    serving.join()
    if not stop:
        raise FatalError("view: the server has ended; the lines above say why")


@dataclass(frozen=True)
class Search:
    """Which events to show: what the form asks for, and the addresses of pages keep."""

    id: str = ""
    source: str = ""  # any; NO_NAME: the default one
    since: int | None = None  # seconds since 1970
    until: int | None = None  # before this
    least: float | None = None  # changed share in percent

    @classmethod
    def of(cls, asked: Mapping[str, str]) -> "Search":
        """What an address asks for; what makes no sense is a 400."""
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
        """What asks for this in an address, with `more`; nothing if nothing is asked for."""
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


class Viewer:
    """The pages."""

    def __init__(self, index: Index, stop: StopSignal) -> None:
        self.index = index
        self.stop = stop
        self.templates = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.templates.globals.update(
            clock=clock, percent=percent, form_time=form_time, plain=plain, key=key_of
        )

    def app(self, host: str) -> ASGIApp:
        """What answers requests."""
        routes = [
            Route("/", self.events),
            Route("/events/{id}", self.event),
            Route("/events/{id}/{picture}", self.picture),
            Route("/timeline", self.timeline),
            Route("/set-aside", self.set_aside),
            Route("/live", self.live),
            Mount("/static", StaticFiles(directory=HERE / "static")),
        ]
        handlers = {HTTPException: self.refusal, Exception: self.failure}
        app = Starlette(routes=routes, exception_handlers=handlers)
        app.router.redirect_slashes = False
        return Guard(app, host)

    def events(self, request: Request) -> Response:
        """The events, newest first, a page of them."""
        version = self.index.version
        asked = request.query_params
        search = Search.of(asked)
        older, newer = cursor(asked.get("older", "")), cursor(asked.get("newer", ""))
        rows = self.find(search, newer, is_newer=True, most=PAGE + 1) if newer else []
        if newer and len(rows) <= PAGE:
            return RedirectResponse(f"/{search.query()}", 303)  # the newest page, which is live
        is_newest = not (newer or older)
        if len(rows) > PAGE:
            rows, has_older = rows[PAGE - 1 :: -1], True
        else:
            rows = self.find(search, older, most=PAGE + 1)
            rows, has_older = rows[:PAGE], len(rows) > PAGE
        condition, values = search.where()
        total = self.index.select(f"SELECT count(*) FROM events WHERE {condition}", values)[0][0]  # noqa: S608
        return self.page(
            "list.html",
            version=version,
            rows=rows,
            total=total,
            search=search,
            sources=[row[0] for row in self.index.select("SELECT source FROM sources")],
            images=self.index.image_count,
            is_newest=is_newest,
            has_older=has_older,
        )

    def event(self, request: Request) -> Response:
        """One event: its pictures, to be compared, and all that its description says."""
        version = self.index.version
        search = Search.of(request.query_params)
        event = self.read(request)
        place = (event.received, event.number, event.source)
        older = self.find(search, place, most=1)
        newer = self.find(search, place, is_newer=True, most=1)
        about = dict(reversed(event.lines))
        pictures = {
            name: (about.get(line, ""), self.missing(name, about.get(line, "")))
            for name, line in PICTURES.items()
        }
        return self.page(
            "event.html",
            version=version,
            event=event,
            box=box_of(event.box),
            pictures=pictures,
            search=search,
            older=older[0] if older else None,
            newer=newer[0] if newer else None,
        )

    def picture(self, request: Request) -> Response:
        """One of an event's pictures, or the difference small."""
        name = request.path_params["picture"]
        if name not in (*PICTURES, "small"):
            raise HTTPException(404, f"There is no picture “{name}” of an event.")
        about = dict(reversed(self.read(request).lines))
        try:
            path, content = self.bytes_of("difference" if name == "small" else name, about)
            media_type, other, draw = kind_of(content), None, partial(draw_small, content, path)
            if name != "small":
                if not media_type and name != "difference":
                    # It is stretched like the one that it is compared with, if that is there.
                    with contextlib.suppress(InvalidInput):
                        other = self.bytes_of({"image": "previous"}.get(name, "image"), about)[1]
                draw = partial(draw_shown, content, other, path)
            etag = f'"{name}-{digest(content + digest(other or b"").encode())}"'
            headers = {"ETag": etag}
            if etag in request.headers.get("If-None-Match", ""):
                return Response(status_code=304, headers=headers)
            if not media_type or name == "small":
                content, media_type = draw()
            return Response(content, media_type=media_type, headers=headers)
        except (InvalidInput, TransientError) as reason:
            # A picture that says why there is none: most browsers show it in the place.
            status = 404 if isinstance(reason, InvalidInput) else 503
            words = self.templates.get_template("missing.svg").render(reason=str(reason))
            return Response(words, status, media_type="image/svg+xml")

    def timeline(self, request: Request) -> Response:
        """Images and events of a source over time, and its newest images."""
        version = self.index.version
        search, index = Search.of(request.query_params), self.index
        sources = index.select(
            "SELECT source, sum(images) AS images, sum(events) AS events, max(latest) AS latest "
            "FROM (SELECT source, count(*) AS images, 0 AS events, max(time) AS latest "
            "FROM images WHERE listed GROUP BY source "
            "UNION ALL SELECT source, 0, count(*), max(received) FROM events GROUP BY source"
            ") GROUP BY source ORDER BY source"
        )
        source = search.source.replace(NO_NAME, "")
        if not search.source and sources:  # the one that has sent something last
            source = max(sources, key=lambda row: row["latest"] or 0)["source"]
        search = replace(search, id="", least=None, source=source or NO_NAME)
        values = {
            "source": source,
            "since": -math.inf if search.since is None else search.since,
            "until": math.inf if search.until is None else search.until,
        }
        within = "source = :source AND time >= :since AND time < :until"
        first, last = index.select(
            f"SELECT min(time), max(time) FROM moments WHERE {within}",  # noqa: S608
            values,
        )[0]
        span = last - first if first is not None else 0
        step = next((one for one in STEPS if span < one * MOST_STEPS), span // MOST_STEPS + 1)
        counts = index.select(
            "SELECT time / :step * :step AS start, sum(NOT is_event) AS images, "  # noqa: S608
            f"sum(is_event) AS events FROM moments WHERE {within} GROUP BY 1 ORDER BY 1 DESC",
            {**values, "step": step},
        )
        newest = index.select(
            "SELECT *, (SELECT share FROM events WHERE events.id = images.id) AS share, "
            "EXISTS (SELECT 1 FROM events WHERE events.id = images.id) AS is_event, "
            "(SELECT letters.reason FROM letters WHERE image_id = images.id) AS set_aside "
            "FROM images WHERE listed AND source = ? ORDER BY number DESC LIMIT ?",
            (source, NEWEST),
        )
        return self.page(
            "timeline.html",
            version=version,
            source=source,
            sources=sources,
            search=search,
            step=step,
            counts=counts,
            newest=newest,
        )

    def set_aside(self, request: Request) -> Response:
        """The dead letters, newest first, a page of them."""
        version = self.index.version
        asked = request.query_params.get("older", "")
        if asked and not re.fullmatch(r"[0-9]{1,18}(\.[0-9]{1,18}){2}", asked):
            refuse(f"older: {asked!r} is no place in this list")
        place = [int(one) for one in asked.split(".")] if asked else [2**62, 0, 0]
        rows = self.index.select(
            "SELECT * FROM letters WHERE (time, partition, offset) < (?, ?, ?) "
            "ORDER BY time DESC, partition DESC, offset DESC LIMIT ?",
            (*place, PAGE + 1),
        )
        return self.page(
            "set_aside.html",
            version=version,
            rows=rows[:PAGE],
            has_older=len(rows) > PAGE,
            is_newest=not asked,
        )

    async def live(self, _request: Request) -> Response:
        """Tells open pages that there is something new, at most once a second."""

        async def news() -> AsyncIterator[dict[str, str]]:
            told = 0
            while not self.stop:
                if told == self.index.version:
                    await asyncio.sleep(0.2)
                    continue
                told = self.index.version
                yield {"data": str(told)}
                await asyncio.sleep(1)

        return EventSourceResponse(news())

    def find(
        self,
        search: Search,
        place: tuple[int, int, str] | None = None,
        *,
        is_newer: bool = False,
        most: int,
    ) -> list[Row]:
        """The events before a place in the list, newest first, or after it, oldest first."""
        condition, values = search.where()
        if place:
            condition += f" AND (received, number, source) {'>' if is_newer else '<'} (?, ?, ?)"
        order = ", ".join(
            f"{name}{'' if is_newer else ' DESC'}" for name in ("received", "number", "source")
        )
        query = f"SELECT * FROM events WHERE {condition} ORDER BY {order} LIMIT ?"  # noqa: S608
        return self.index.select(query, [*values, *(place or ()), most])

    def read(self, request: Request) -> Event:
        """The event that an address names, by its description; 404 if there is none."""
        id_ = request.path_params["id"]
        try:
            event = self.index.look(id_) if re.fullmatch(IMAGE_ID, id_, re.ASCII) else None
        except TransientError as fault:
            raise HTTPException(503, f"Event {id_} can't be read now: {fault}.") from fault
        if not event:
            raise HTTPException(404, f"There is no event {id_!r}, or not any more.")
        return event

    def bytes_of(self, name: str, about: Mapping[str, str]) -> tuple[str, bytes]:
        """A picture's path and bytes. Raises `Unusable` or `Passing`."""
        path = about.get(PICTURES[name], "")
        if not path:
            raise InvalidInput(f"the description has no line “{PICTURES[name]}”")
        return path, self.database(name).files.read(path)

    def missing(self, name: str, path: str) -> str:
        """Why a picture can't be shown; nothing if it can, as far as its name tells."""
        database = self.database(name)
        directory, _, file = path.rpartition("/")
        if not path:
            return f"The description has no line “{PICTURES[name]}”."
        if directory != database.name or file in (".", ".."):
            return f"{path} is not in {database.name}."
        try:
            return "" if database.files.has(path) else f"{path} is missing."
        except TransientError:
            return ""  # asked for the picture, the browser hears the same
        except (InvalidInput, OSError) as reason:
            return f"{path} can't be read: {reason}."

    def database(self, name: str) -> Database:
        """Where a picture is."""
        return self.index.events if name == "difference" else self.index.images

    def page(self, template: str, status: int = 200, **values: Any) -> Response:
        """A page, with what all of them say."""
        index = self.index
        letters = index.select("SELECT count(*) FROM letters")[0][0]
        troubles = [trouble for trouble in list(index.troubles.values()) if trouble]
        # A page says what it was when it began to be made, so that nothing new is missed.
        values = {"version": index.version, "unread": index.unread, **values}
        values |= {"letters": letters, "troubles": troubles}
        return HTMLResponse(self.templates.get_template(template).render(values), status)

    def refusal(self, _request: Request, error: Exception) -> Response:
        """What an address asks for isn't there, or makes no sense."""
        status, words = 500, ""
        if isinstance(error, HTTPException):
            status, words = error.status_code, error.detail
        title = {404: "Not here", 405: "Pages are only read here", 503: "Not now"}.get(
            status, "That makes no sense"
        )
        return self.page("message.html", status, title=title, words=words)

    def failure(self, _request: Request, error: Exception) -> Response:
        """A fault of ours."""
        words = f"{type(error).__name__}; the terminal of the viewer says more."
        return self.page("message.html", 500, title="The viewer has failed at this", words=words)


def refuse(words: str) -> NoReturn:
    """Answer that a request makes no sense."""
    raise HTTPException(400, f"{words}.")


def cursor(text: str) -> tuple[int, int, str] | None:
    """The place in the list of events that an address names."""
    if not text:
        return None
    found = re.fullmatch(rf"(-?[0-9]{{1,12}})\.({IMAGE_ID})", text, re.ASCII)
    if not found:
        refuse(f"{text!r} is no place in this list")
    source, number = parts_of(found[2])
    return int(found[1]), number, source


def key_of(row: Row) -> str:
    """An event's place in the list, for an address."""
    return f"{row['received']}.{row['id']}"


def clock(seconds: int | None) -> str:
    """A time for people, in UTC."""
    return "unknown" if seconds is None else f"{moment(seconds):%Y-%m-%d %H:%M:%S}"


def form_time(seconds: int | None) -> str:
    """A time as forms and addresses have it."""
    return "" if seconds is None else moment(seconds).isoformat()[:19]


def percent(share: float | None) -> str:
    """A share for people."""
    return "unknown" if share is None else f"{share:.3g} %"


def plain(number: float | None) -> str:
    """A number as forms and addresses have it."""
    return "" if number is None else np.format_float_positional(number, trim="-")


def listen(host: str, port: int) -> socket.socket:
    """A socket on which browsers reach us; ends the program if there is none to be had."""
    try:
        family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(where[:2], family=family, backlog=100)
    except OSError as error:
        why = str(error.strerror).partition(" (")[0]
        what = "choose another --port or --host"
        raise FatalError(f"view: cannot serve at {host} port {port}: {why}; {what}") from error


def address(host: str) -> str:
    """How to reach this host by a browser."""
    if host in ("127.0.0.1", "::1", "0.0.0.0", "::"):  # noqa: S104
        return "localhost"
    return f"[{host}]" if ":" in host else host


def view_options(arguments: Sequence[str]) -> tuple[Namespace, Settings]:
    """The options and settings; ends the program with 2 if one makes no sense."""
    parser = Parser(
        "View image events: a page that shows what changed, as it happens.",
        "python -m pipeline view",
    )
    host = matching(rf"{HOST}|[0-9a-fA-F:]+", "a name or an address of this machine")
    about = "who may look; default: 127.0.0.1, only this machine; 0.0.0.0 is whoever reaches it"
    parser.add_argument("--host", type=host, default="127.0.0.1", help=about)
    parser.add_argument(
        "--port", type=matching(PORT, "a port"), default="8000", help="default: 8000"
    )
    options = parser.parse_args(arguments)
    options.host, options.port = options.host.strip("[]"), int(options.port)
    return options, parser.settings(options)
