"""The list of image events, with the search."""

from dataclasses import replace

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from pipeline.viewer.formats import quoted
from pipeline.viewer.search import Search, read_position
from pipeline.viewer.site import Site

LENGTH = 50  # events on a page
PLACES = ("older", "newer")  # in addresses: than which event those to show are


def event_list(site: Site, request: Request) -> Response:
    """The events that match the search, newest first, a page of them."""
    index = site.index
    version = index.version
    asked = request.query_params
    search = Search.of(asked, PLACES)
    places = {name: read_position(asked[name]) for name in PLACES if asked.get(name)}
    faults = {
        name: f"{quoted(asked[name])} is no place in this list."
        for name, place in places.items()
        if not place
    }
    search = replace(search, faults={**search.faults, **faults})
    older, newer = places.get("older"), places.get("newer")
    rows = search.find(index, LENGTH + 1, newer, is_newer=True) if newer else []
    if newer and len(rows) <= LENGTH:
        return RedirectResponse(f"/{search.query()}", 303)  # the newest page, which is live
    if newer:
        rows, has_older = rows[LENGTH - 1 :: -1], True
    else:
        rows = search.find(index, LENGTH + 1, older)
        rows, has_older = rows[:LENGTH], len(rows) > LENGTH
    if search.faults:  # a part of what was asked for would be another question
        rows, has_older = [], False
    return site.page(
        "list.html",
        400 if search.faults else 200,
        version=version,
        rows=rows,
        total=search.count(index),
        search=search,
        sources=[row[0] for row in index.select("SELECT source FROM sources")],
        images=0 if rows else index.select("SELECT count(*) FROM images WHERE listed")[0][0],
        is_newest=not (newer or older),
        has_older=has_older,
    )
