"""The guard: which requests are answered, and what a browser may do with any answer."""

import ipaddress
import re
from collections.abc import Sequence
from contextlib import suppress

from starlette.datastructures import MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.settings import HOST

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Guard:
    """Answers only requests for names of its own; its pages load only the viewer's files.

    Another name may belong to a stranger who lets it point here, so that a page of theirs in
    somebody's browser could read the viewer's pages (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, host: str, allowed_hosts: Sequence[str] = ()) -> None:
        self._app = app
        names = ("localhost", "127.0.0.1", "::1", host, *allowed_hosts)
        self._names = {name.lower() for name in names}
        # Then any address of the machine leads here. No stranger's name looks like an address.
        self._accepts_addresses = _is_address(host) and ipaddress.ip_address(host).is_unspecified

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, or pass it on to the pages."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers.setdefault("Cache-Control", "no-cache")
            await send(message)

        app = self._app
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        name = _name_in(hosts[0].decode("latin-1")) if len(hosts) == 1 else ""
        if name not in self._names and not (self._accepts_addresses and _is_address(name)):
            app = PlainTextResponse(f"{_refusal(name)}\n", 400)
        await app(scope, receive, send_guarded)


def _name_in(host: str) -> str:
    """The name or address in a Host header, without the port; empty if there is none."""
    found = re.fullmatch(r"\[([0-9a-f:.]+)\](:[0-9]*)?|([^:\[\]]+)(:[0-9]*)?", host.lower())
    return (found[1] or found[3]) if found else ""


def _refusal(name: str) -> str:
    """What somebody reads who has asked for a name that isn't the viewer's."""
    if not re.fullmatch(HOST, name):
        return "The request names no host. Open the viewer as localhost, or under its --host."
    return (
        f"The viewer doesn't answer to the name {name}. If that is its machine's name, start the "
        f"viewer with --allowed-host {name}; on its own machine, open it as localhost."
    )


def _is_address(host: str) -> bool:
    with suppress(ValueError):
        return bool(ipaddress.ip_address(host))
    return False
