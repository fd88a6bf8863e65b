"""The page of one image event, and its pictures."""

import math
import re
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from pipeline.comparison.shown import draw_shown, draw_small, look_at
from pipeline.descriptions import DIFFERENCE_IMAGE, IMAGE, PREVIOUS_IMAGE, Description
from pipeline.errors import InvalidInput, TransientError
from pipeline.messages import IMAGE_ID
from pipeline.store.database import Database
from pipeline.store.names import digest
from pipeline.viewer.events import Event, read_event
from pipeline.viewer.formats import quoted
from pipeline.viewer.search import Search
from pipeline.viewer.site import Site

# The names of the pictures in addresses, and of their lines in descriptions.
PICTURES = {"image": IMAGE, "previous": PREVIOUS_IMAGE, "difference": DIFFERENCE_IMAGE}
NO_PICTURE = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"/>'
# Seconds for which a picture that was whole isn't read again to find out: an open page asks often.
WHOLE_FOR = 60
OTHER = {"image": "previous", "previous": "image"}  # with which a picture is compared


def event_page(site: Site, request: Request) -> Response:
    """One event: its pictures, to be compared, and all that its description says."""
    version = site.index.version
    search = Search.of(request.query_params)
    event = _event(site, request)
    position = (event.received, event.number, event.source)
    older = search.find(site.index, 1, position)
    newer = search.find(site.index, 1, position, is_newer=True)
    paths = {name: _path(event.description, name) for name in PICTURES}
    pictures = {name: (path, _fault(site, name, path)) for name, path in paths.items()}
    return site.page(
        "event.html",
        version=version,
        event=event,
        pictures=pictures,
        state=digest(repr((event.description, pictures)).encode()),
        search=search,
        older=older[0] if older else None,
        newer=newer[0] if newer else None,
    )


def picture(site: Site, request: Request) -> Response:
    """One of an event's pictures."""
    name = request.path_params["picture"]
    if name not in PICTURES:
        raise HTTPException(404, f"There is no picture {quoted(name)} of an event.")
    description = _event(site, request).description
    try:
        path, content = _read(site, name, description)
        look, other = look_at(content, path), None
        if look.fault:
            raise InvalidInput(look.fault)
        if not look.media_type and name in OTHER:
            # Both pictures of a pair get the same stretch, if both are there.
            with suppress(InvalidInput):
                _, other = _read(site, OTHER[name], description)
        state = digest(content + digest(other or b"").encode())

        def draw() -> tuple[bytes, str]:
            if look.media_type:
                return content, look.media_type
            return draw_shown(content, other, path)

        return _answer(request, f"{name}-{state}", draw)
    except (InvalidInput, TransientError) as reason:
        status = 404 if isinstance(reason, InvalidInput) else 503
        return PlainTextResponse(f"No picture. {reason}.\n", status)


def small_picture(site: Site, request: Request) -> Response:
    """The difference image small, for lists; an empty picture if there is none.

    A list is no place to say why: the event's page says it.
    """
    try:
        path, content = _read(site, "difference", _event(site, request).description)
        return _answer(request, f"small-{digest(content)}", partial(draw_small, content, path))
    except (HTTPException, InvalidInput, TransientError):
        return Response(NO_PICTURE, media_type="image/svg+xml")


def _answer(request: Request, name: str, draw: Callable[[], tuple[bytes, str]]) -> Response:
    """The picture that has this name and no other; nothing if the browser has it already."""
    headers = {"ETag": f'"{name}"'}
    if headers["ETag"] in request.headers.get("If-None-Match", ""):
        return Response(status_code=304, headers=headers)
    content, media_type = draw()
    return Response(content, media_type=media_type, headers=headers)


def _event(site: Site, request: Request) -> Event:
    """The event that an address names; a 404 if there is none."""
    id_ = request.path_params["id"]
    try:
        event = read_event(site.events, id_) if re.fullmatch(IMAGE_ID, id_, re.ASCII) else None
    except TransientError as fault:
        raise HTTPException(503, f"Event {id_} can't be read now: {fault}.") from fault
    trouble = site.index.troubles.get("files")
    if not event and trouble and site.index.select("SELECT 1 FROM events WHERE id = ?", [id_]):
        raise HTTPException(503, f"Event {id_} can't be read now: {trouble}")
    if not event:
        raise HTTPException(404, f"There is no event {quoted(id_)}, or not any more.")
    return event


def _path(description: Description, name: str) -> str:
    if name == "image":
        return description.image_path
    return description.previous_image_path if name == "previous" else description.difference_path


def _database(site: Site, name: str) -> Database:
    return site.events if name == "difference" else site.images


def _read(site: Site, name: str, description: Description) -> tuple[str, bytes]:
    """A picture's path and bytes. Raises `InvalidInput` or `TransientError`."""
    path = _path(description, name)
    if not path:
        raise InvalidInput(f"the description has no line “{PICTURES[name]}”")
    return path, _database(site, name).files.read(path)


def _fault(site: Site, name: str, path: str) -> str:
    """Why a picture can't be shown; empty if it can."""
    database = _database(site, name)
    directory, _, file = path.rpartition("/")
    if not path:
        return f"The description has no line “{PICTURES[name]}”."
    if directory != database.name or file in (".", ".."):
        return f"{path} is not in {database.name}."
    try:
        fault = _fault_of_file(site, database, path)
        return f"{fault}." if fault else ""
    except TransientError as reason:
        return f"{path} can't be read now: {reason}."
    except InvalidInput as reason:
        with suppress(InvalidInput, TransientError, OSError):
            if not database.files.has(path):
                return f"{path} is missing."
        return f"{reason}."


def _fault_of_file(site: Site, database: Database, path: str) -> str:
    is_known = time.monotonic() - site.whole.get(path, -math.inf) < WHOLE_FOR
    if is_known and database.files.has(path):
        return ""
    fault = look_at(database.files.read(path), path).fault
    if not fault:
        site.whole[path] = time.monotonic()
    return fault
