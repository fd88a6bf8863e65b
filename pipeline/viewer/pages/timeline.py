"""The timeline of a source."""

import math
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response

from pipeline.viewer.search import NO_NAME, Search
from pipeline.viewer.site import Site

NEWEST = 24  # images of a source to show
STEPS = (1, 5, 15, 60, 300, 900, 3600, 10800, 21600, 86400, 604800, 2592000, 31536000)  # seconds
MAX_STEPS = 60  # in a timeline


def timeline(site: Site, request: Request) -> Response:
    """Images and events of a source over time, and its newest images."""
    index = site.index
    version = index.version
    search = Search.of(request.query_params)
    sources = index.select(
        "SELECT source, sum(images) AS images, sum(events) AS events, max(latest) AS latest "
        "FROM (SELECT source, count(*) AS images, 0 AS events, max(time) AS latest "
        "FROM images WHERE listed GROUP BY source "
        "UNION ALL SELECT source, 0, count(*), max(received) FROM events GROUP BY source"
        ") GROUP BY source ORDER BY source"
    )
    source = search.source.replace(NO_NAME, "")
    if not search.source and sources:  # the source that has sent something last
        source = max(sources, key=lambda row: row["latest"] or 0)["source"]
    search = replace(search, id="", least=None, source=source or NO_NAME)
    is_known = any(row["source"] == source for row in sources)
    values = {
        "source": source,
        "since": -math.inf if search.since is None else search.since,
        "until": math.inf if search.until is None else search.until,
    }
    within = "source = :source AND time >= :since AND time < :until"
    # In both directions the indexes give the order, so that one row of each table is read.
    first, last = (
        index.select(
            f"SELECT time FROM moments WHERE {within} ORDER BY time {order} LIMIT 1",  # noqa: S608
            values,
        )
        for order in ("ASC", "DESC")
    )
    span = last[0][0] - first[0][0] if first else 0
    step = next((step for step in STEPS if span < step * MAX_STEPS), span // MAX_STEPS + 1)
    counts = index.select(
        "SELECT time / :step * :step AS start, sum(NOT is_event) AS images, "  # noqa: S608
        f"sum(is_event) AS events FROM moments WHERE {within} GROUP BY 1 ORDER BY 1 DESC",
        {**values, "step": step},
    )
    newest = index.select(
        "SELECT *, (SELECT share FROM events WHERE events.id = images.id) AS share, "
        "(SELECT kind FROM events WHERE events.id = images.id) AS kind, "
        "(SELECT letters.reason FROM letters WHERE image_id = images.id) AS set_aside "
        "FROM images WHERE listed AND source = ? ORDER BY number DESC LIMIT ?",
        (source, NEWEST),
    )
    return site.page(
        "timeline.html",
        400 if search.faults else 200,
        version=version,
        source=source,
        is_known=is_known,
        sources=sources,
        search=search,
        step=step,
        counts=[] if search.faults else counts,
        has_older=len(newest) == NEWEST,
        newest=[] if search.faults else newest,
    )
