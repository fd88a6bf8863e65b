"""What all pages have in common: the index, the databases, the templates, and the live updates."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from sse_starlette import EventSourceResponse
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from pipeline.stop_signal import StopSignal
from pipeline.store.database import Database
from pipeline.viewer import formats
from pipeline.viewer.index import Index
from pipeline.viewer.search import position

HERE = Path(__file__).resolve().parent
TITLES = {404: "Not here", 405: "Pages are only read here", 503: "Not now"}


class Site:
    """The viewer's pages."""

    def __init__(self, index: Index, events: Database, images: Database, stop: StopSignal) -> None:
        self.index = index
        self.events = events
        self.images = images
        self._stop = stop
        self.templates = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        for function in (
            formats.clock,
            formats.percent,
            formats.form_time,
            formats.plain,
            position,
        ):
            self.templates.globals[function.__name__] = function

    def page(self, template: str, status: int = 200, **values: Any) -> Response:
        """A page. `version` is that of the index before it was read, so that nothing is missed."""
        index = self.index
        letters = index.select("SELECT count(*) FROM letters")[0][0]
        troubles = [trouble for trouble in list(index.troubles.values()) if trouble]
        values = {"version": index.version, "unread": index.unread, **values}
        values |= {"letters": letters, "troubles": troubles}
        return HTMLResponse(self.templates.get_template(template).render(values), status)

    def refusal(self, _request: Request, error: Exception) -> Response:
        """The page for an address that isn't there or makes no sense."""
        status, words = 500, ""
        if isinstance(error, HTTPException):
            status, words = error.status_code, error.detail
        title = TITLES.get(status, "That makes no sense")
        return self.page("message.html", status, title=title, words=words)

    def failure(self, _request: Request, error: Exception) -> Response:
        """The page for a fault of the viewer itself."""
        words = f"{type(error).__name__}; the terminal of the viewer says more."
        return self.page("message.html", 500, title="The viewer has failed at this", words=words)

    async def live(self, _request: Request) -> Response:
        """A stream that notifies open pages of changes, at most once a second."""

        async def versions() -> AsyncIterator[dict[str, str]]:
            sent = 0
            while not self._stop:
                if sent == self.index.version:
                    await asyncio.sleep(0.2)
                    continue
                sent = self.index.version
                yield {"data": str(sent)}
                await asyncio.sleep(1)

        return EventSourceResponse(versions())
