"""View image events: web pages that show what changed, as it happens.

The pages show what is in the databases, so that they need no Kafka. Kafka adds what was set aside,
and why an image is no event.

    python -m pipeline view [--host 127.0.0.1] [--port 8000] [--allowed-host NAME]...
"""

import socket
from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from threading import Thread

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from pipeline.errors import FatalError
from pipeline.own_kafka import find_kafka
from pipeline.settings import HOST, PORT, Parser, Settings, matching
from pipeline.stop_signal import StopSignal
from pipeline.store.database import Database
from pipeline.store.names import IMAGE_DATABASE, IMAGE_EVENT_DATABASE
from pipeline.terminal import say
from pipeline.viewer.files import FileFollower
from pipeline.viewer.guard import Guard
from pipeline.viewer.index import Index
from pipeline.viewer.pages.event import event_page, picture, small_picture
from pipeline.viewer.pages.event_list import event_list
from pipeline.viewer.pages.set_aside import set_aside
from pipeline.viewer.pages.timeline import timeline
from pipeline.viewer.site import HERE, Site
from pipeline.viewer.topics import TopicFollower


def main(arguments: Sequence[str]) -> None:
    """Serve the pages until the program is asked to stop."""
    options, settings = view_options(arguments)
    settings = find_kafka(settings, "view")
    stop = StopSignal()
    listener = listen(options.host, options.port)
    events = Database(settings.data, IMAGE_EVENT_DATABASE)
    images = Database(settings.data, IMAGE_DATABASE)
    index = Index()
    files = FileFollower(events, images, index)
    topics = TopicFollower(settings, stop, index, files)
    server = uvicorn.Server(
        uvicorn.Config(
            site_app(Site(index, events, images), options.host, options.allowed_host),
            log_config=None,
            log_level="error",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=2,
        )
    )
    # Not in the main thread, where uvicorn would replace the signal handlers of `stop`.
    serving = Thread(target=server.run, args=([listener],), daemon=True)
    for thread in (
        Thread(target=files.follow, args=(stop,), daemon=True),
        Thread(target=topics.follow, daemon=True),
        serving,
    ):
        thread.start()
    say(f"view: {images.where} and {events.where}")
    say(f"view: http://{address(options.host)}:{options.port}")
    while not stop and serving.is_alive():
        stop.wait(1)
    server.should_exit = True
    serving.join()
    if not stop:
        raise FatalError("view: the server has ended; the lines above say why")


def site_app(site: Site, host: str, allowed_hosts: Sequence[str]) -> ASGIApp:
    """The application that answers requests."""
    routes = [
        Route("/", partial(event_list, site)),
        Route("/events/{id}", partial(event_page, site)),
        Route("/events/{id}/small", partial(small_picture, site)),
        Route("/events/{id}/{picture}", partial(picture, site)),
        Route("/timeline", partial(timeline, site)),
        Route("/set-aside", partial(set_aside, site)),
        Route("/version", site.version),
        Mount("/static", StaticFiles(directory=HERE / "static")),
    ]
    handlers = {HTTPException: site.refusal, Exception: site.failure}
    app = Starlette(routes=routes, exception_handlers=handlers)
    app.router.redirect_slashes = False
    return Guard(app, host, allowed_hosts)


def listen(host: str, port: int) -> socket.socket:
    """A socket that accepts connections of browsers. Raises `FatalError`."""
    try:
        family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(where[:2], family=family, backlog=100)
    except OSError as error:
        why = str(error.strerror).partition(" (")[0]
        what = "choose another --port or --host"
        raise FatalError(f"view: cannot serve at {host} port {port}: {why}; {what}") from error


def address(host: str) -> str:
    """The host's name in the address that a browser on this machine opens."""
    if host in ("127.0.0.1", "::1", "0.0.0.0", "::"):  # noqa: S104
        return "localhost"
    return f"[{host}]" if ":" in host else host


def view_options(arguments: Sequence[str]) -> tuple[Namespace, Settings]:
    """The options and settings; ends the program with exit status 2 if any makes no sense."""
    parser = Parser(
        "View image events: a page that shows what changed, as it happens.",
        "python -m pipeline view",
    )
    host = matching(rf"{HOST}|[0-9a-fA-F:]+", "a name or an address of this machine")
    about = "who may look; default: 127.0.0.1, only this machine; 0.0.0.0 is whoever reaches it"
    parser.add_argument("--host", type=host, default="127.0.0.1", help=about)
    about = "where the pages are: http://localhost:PORT; default: 8000"
    parser.add_argument("--port", type=matching(PORT, "a port"), default="8000", help=about)
    name = matching(HOST, "a name without a port, as in cam-server.lan")
    about = "a name by which browsers may ask for this machine, too; can be given several times"
    parser.add_argument(
        "--allowed-host", metavar="NAME", action="append", type=name, default=[], help=about
    )
    options = parser.parse_args(arguments)
    options.host, options.port = options.host.strip("[]"), int(options.port)
    return options, parser.settings(options)
