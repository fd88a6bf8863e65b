"""The list of image events, with the search."""

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from pipeline.viewer.search import Search, read_position
from pipeline.viewer.site import Site

LENGTH = 50  # events on a page


def event_list(site: Site, request: Request) -> Response:
    """The events that match the search, newest first, a page of them."""
    index = site.index
    version = index.version
    asked = request.query_params
    search = Search.of(asked)
    older, newer = read_position(asked.get("older", "")), read_position(asked.get("newer", ""))
    rows = search.find(index, LENGTH + 1, newer, is_newer=True) if newer else []
    if newer and len(rows) <= LENGTH:
        return RedirectResponse(f"/{search.query()}", 303)  # the newest page, which is live
    if newer:
        rows, has_older = rows[LENGTH - 1 :: -1], True
    else:
        rows = search.find(index, LENGTH + 1, older)
        rows, has_older = rows[:LENGTH], len(rows) > LENGTH
    return site.page(
        "list.html",
        version=version,
        rows=rows,
        total=search.count(index),
        search=search,
        sources=[row[0] for row in index.select("SELECT source FROM sources")],
        images=index.select("SELECT count(*) FROM images WHERE listed")[0][0],
        is_newest=not (newer or older),
        has_older=has_older,
    )
