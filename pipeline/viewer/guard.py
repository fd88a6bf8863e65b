"""What holds for every answer: who may ask, and what a browser may do with it."""

import ipaddress
import re
from contextlib import suppress

from starlette.datastructures import MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LONGEST = 2000  # characters of a query
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
    """Answers only requests that name this machine; and what it answers loads only our own files.

    Another name may be a stranger's, who has it point here to read along in somebody's browser.
    """

    def __init__(self, app: ASGIApp, host: str) -> None:
        self._app = app
        self._names = {"localhost", "127.0.0.1", "::1", host.lower()}
        # Reached by any of the machine's addresses; a stranger's page can't have one of these.
        self._takes_addresses = _is_unspecified(host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or let the pages do it."""
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
        if len(hosts) != 1 or not self._is_ours(hosts[0].decode("latin-1")):
            what = (
                "This viewer answers under the name it was started with: localhost, or its --host."
            )
            app = PlainTextResponse(f"{what}\n", 400)
        elif len(scope["query_string"]) > LONGEST:
            app = PlainTextResponse(
                f"The address is too long: {LONGEST} characters at most.\n", 400
            )
        await app(scope, receive, send_guarded)

    def _is_ours(self, host: str) -> bool:
        found = re.fullmatch(r"\[([0-9a-f:.]+)\](:[0-9]*)?|([^:\[\]]+)(:[0-9]*)?", host.lower())
        name = found[1] or found[3] if found else ""
        return name in self._names or (self._takes_addresses and _is_address(name))


def _is_unspecified(host: str) -> bool:
    return _is_address(host) and ipaddress.ip_address(host).is_unspecified


def _is_address(host: str) -> bool:
    with suppress(ValueError):
        return bool(ipaddress.ip_address(host))
    return False
