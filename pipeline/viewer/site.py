"""What all pages have in common: the index, the databases, the templates, and the version."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response

from pipeline.store.database import Database
from pipeline.viewer import formats
from pipeline.viewer.index import Index
from pipeline.viewer.search import position

HERE = Path(__file__).resolve().parent
TITLES = {404: "Not here", 405: "Pages are only read here", 503: "Not now"}


class Site:
    """The viewer's pages."""

    def __init__(self, index: Index, events: Database, images: Database) -> None:
        self.index = index
        self.events = events
        self.images = images
        self.whole: dict[str, float] = {}  # when a picture of this path was last found to be whole
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
            formats.order,
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

    async def version(self, _request: Request) -> Response:
        """The version of the index: open pages ask for it, and are fetched again if it changed.

        That is asked every second, and not told in a stream, since a browser has six connections to
        a place: the seventh open page would get none. No thread is needed for the answer, so that
        it comes also while all of them make pages.
        """
        return PlainTextResponse(str(self.index.version))
