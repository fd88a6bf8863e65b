"""The list of dead letters."""

import re

from starlette.requests import Request
from starlette.responses import Response

from pipeline.viewer.search import refuse
from pipeline.viewer.site import Site

LENGTH = 50  # dead letters on a page


def set_aside(site: Site, request: Request) -> Response:
    """The dead letters, newest first, a page of them."""
    version = site.index.version
    asked = request.query_params.get("older", "")
    if asked and not re.fullmatch(r"[0-9]{1,18}(\.[0-9]{1,18}){2}", asked):
        refuse(f"older: {asked!r} is no place in this list")
    position = [int(number) for number in asked.split(".")] if asked else [2**62, 0, 0]
    rows = site.index.select(
        "SELECT * FROM letters WHERE (time, partition, offset) < (?, ?, ?) "
        "ORDER BY time DESC, partition DESC, offset DESC LIMIT ?",
        (*position, LENGTH + 1),
    )
    return site.page(
        "set_aside.html",
        version=version,
        rows=rows[:LENGTH],
        has_older=len(rows) > LENGTH,
        is_newest=not asked,
    )
