"""The guard: which requests are answered, and what a browser may do with any answer."""

import ipaddress
import re
from contextlib import suppress

from starlette.datastructures import MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_QUERY = 2000  # characters
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
    """Answers only requests for this machine's own names; its pages load only the viewer's files.

    Another name may belong to a stranger who lets it point here, so that a page of theirs in
    somebody's browser could read the viewer's pages (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, host: str) -> None:
        self._app = app
        self._names = {"localhost", "127.0.0.1", "::1", host.lower()}
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
        if len(hosts) != 1 or not self._is_own_name(hosts[0].decode("latin-1")):
            what = (
                "This viewer answers under the name it was started with: localhost, or its --host."
            )
            app = PlainTextResponse(f"{what}\n", 400)
        elif len(scope["query_string"]) > MAX_QUERY:
            app = PlainTextResponse(
                f"The address is too long: {MAX_QUERY} characters at most.\n", 400
            )
        await app(scope, receive, send_guarded)

    def _is_own_name(self, host: str) -> bool:
        found = re.fullmatch(r"\[([0-9a-f:.]+)\](:[0-9]*)?|([^:\[\]]+)(:[0-9]*)?", host.lower())
        name = found[1] or found[3] if found else ""
        return name in self._names or (self._accepts_addresses and _is_address(name))


def _is_address(host: str) -> bool:
    with suppress(ValueError):
        return bool(ipaddress.ip_address(host))
    return False
