"""The list of dead letters."""

import re

from starlette.requests import Request
from starlette.responses import Response

from pipeline.viewer.formats import quoted
from pipeline.viewer.site import Site

LENGTH = 50  # dead letters on a page


def set_aside(site: Site, request: Request) -> Response:
    """The dead letters, newest first, a page of them."""
    version = site.index.version
    asked = request.query_params.get("older", "")
    is_place = re.fullmatch(r"[0-9]{1,18}(\.[0-9]{1,18}){2}", asked, re.ASCII)
    position = [int(number) for number in asked.split(".")] if is_place else [2**62, 0, 0]
    faults = []
    if asked and not is_place:
        faults.append(f"{quoted(asked)} is no place in this list.")
    if unknown := request.query_params.keys() - {"older"}:
        faults.append(f"The address asks for {quoted(min(unknown))}, which is nothing here.")
    rows = site.index.select(
        "SELECT * FROM letters WHERE (time, partition, offset) < (?, ?, ?) "
        "ORDER BY time DESC, partition DESC, offset DESC LIMIT ?",
        (*position, LENGTH + 1),
    )
    return site.page(
        "set_aside.html",
        400 if faults else 200,
        faults=faults,
        version=version,
        rows=[] if faults else rows[:LENGTH],
        has_older=not faults and len(rows) > LENGTH,
        is_newest=not asked,
    )
