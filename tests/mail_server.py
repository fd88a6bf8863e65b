"""A mail server and a web server that do what they are told: take, refuse, stall or drop."""

import asyncio
import threading
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

import embedded_kafka

USER, PASSWORD = "night@shift", "p@ss/w%rd:#?&"


class MailServer:
    """A real mail server on a free port; it asks for a password."""

    def __init__(self, limit: int = 2**25, *, is_limit_told: bool = True) -> None:
        """It takes mails of so many bytes, and says so in its greeting or not."""
        self.does = "take"
        self.mails: list[EmailMessage] = []
        self.tries = 0
        self.sizes: list[int] = []  # of all mails that came whole
        self.limit = limit
        self._released = threading.Event()
        self.port = embedded_kafka.free_port()
        self._controller = Controller(
            self,
            hostname="127.0.0.1",
            port=self.port,
            auth_required=True,
            auth_require_tls=False,
            authenticator=self._authenticate,
            data_size_limit=limit if is_limit_told else 2**30,
        )
        self._controller.start()

    def url(self, to: str, more: str = "") -> str:
        """Apprise's URL for it, with the names of variables in it."""
        where = f"mailto://${{MAIL_USER}}:${{MAIL_PASSWORD}}@localhost:{self.port}"
        return f"{where}?mode=insecure&smtp=127.0.0.1&from=pipeline@example.org&to={to}{more}"

    def close(self) -> None:
        """End it, and whatever it stalls."""
        self._released.set()
        self._controller.stop()

    async def handle_DATA(self, server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802 (aiosmtpd's)
        """Take a mail, or don't."""
        self.tries += 1
        self.sizes.append(len(envelope.original_content or b""))
        if self.sizes[-1] > self.limit and self.does == "take":
            return "552 5.3.4 Error: message file too big"
        if self.does == "refuse":
            return "451 4.3.0 come back later"
        if self.does == "drop":
            assert server.transport
            server.transport.close()
            return "451 gone"
        while self.does == "stall" and not self._released.is_set():
            await asyncio.sleep(0.02)
        mail = message_from_bytes(envelope.original_content or b"", policy=default)
        assert isinstance(mail, EmailMessage)
        self.mails.append(mail)
        return "250 OK"

    def _authenticate(self, *arguments: object) -> AuthResult:
        given = arguments[-1]
        assert isinstance(given, LoginPassword)
        is_right = (given.login, given.password) == (USER.encode(), PASSWORD.encode())
        return AuthResult(success=is_right, handled=False)


class WebServer:
    """A real web server on a free port, for `json://` and `ntfy://`."""

    def __init__(self, limit: int = 2**30) -> None:
        """It takes requests of so many bytes."""
        self.does = "take"
        self.got: list[dict[str, Any]] = []
        self.tries = 0
        self.sizes: list[int] = []  # of all requests
        self.queries: list[str] = []  # of those that were taken
        self._released = threading.Event()
        web = self

        class Answer(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                web.tries += 1
                if web.does == "stall":
                    web._released.wait()
                web.sizes.append(int(self.headers["Content-Length"]))
                if web.does == "hang up" and web.sizes[-1] > limit:
                    return  # without having read the request, as proxies do
                body = self.rfile.read(web.sizes[-1])
                if web.does == "drop":
                    self.close_connection = True
                    return
                is_too_large = len(body) > limit
                if web.does in ("take", "hang up", "forbid") and not is_too_large:
                    web.queries.append(self.path)
                    if body.startswith(b"{"):
                        web.got.append(msgspec.json.decode(body))
                status = {"refuse": 503, "forbid": 403 if is_too_large else 200}.get(web.does, 200)
                self.send_response(413 if is_too_large and status == 200 else status)
                self.end_headers()
                self.wfile.write(b"{}")

            do_PUT = do_POST  # noqa: N815 (the standard library's)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.port = self._server.server_port

    def url(self, path: str = "") -> str:
        """Apprise's URL for it."""
        return f"json://127.0.0.1:{self.port}/{path}"

    def take(self) -> None:
        """Take what comes, and what has stalled."""
        self.does = "take"
        self._released.set()

    def close(self) -> None:
        """End it, and whatever it stalls."""
        self._released.set()
        self._server.shutdown()
        self._server.server_close()
