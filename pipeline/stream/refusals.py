"""Why a Kafka that is there does not let a program in, which no waiting changes."""

import re
import socket
import struct
import time
from collections.abc import Sequence
from contextlib import suppress

from pipeline.errors import FatalError

# Parts of a failed connection's reason that say that the broker refuses us.
REFUSED = re.compile(
    r"certificate verify failed|WRONG_VERSION_NUMBER|alert|Authentication failed|SaslMechanism"
    r"|SaslState|Invalid frame length"
)
# Parts of a reason that say only that the broker has closed the connection. A Kafka that is killed
# does that, too, so it counts only after a while in which Kafka was there.
CLOSED = re.compile(r"socket disconnected|Handshake failed|reset by peer|Broken pipe")
CLOSED_SECONDS = 3
# Kafka's ApiVersions request, version 0, which needs no login, and the id in its answer.
REQUEST_ID = struct.pack(">i", 1)
API_VERSIONS = struct.pack(">ihh", 10, 18, 0) + REQUEST_ID + struct.pack(">h", -1)
TLS_ALERT = b"\x15\x03"  # how TLS answers a client that does not encrypt
ANSWER_SECONDS = 2


class Refusals:
    """Distinguishes a server that refuses us from one that is away or has just started."""

    def __init__(self, security_protocol: str) -> None:
        self._protocol = security_protocol
        self._closed_since: float | None = None

    def note_success(self) -> None:
        """The server has let us in."""
        self._closed_since = None

    def end_if_refused(self, reasons: Sequence[str], server: tuple[str, int]) -> None:
        """Raise `FatalError` if the server refuses us, as far as can be said now.

        `reasons` says why the connections of the last try failed. What they leave open is found by
        asking the server without encryption what it is.
        """
        closed_since, self._closed_since = self._closed_since, None
        if not reasons:
            return
        where = "{}:{}".format(*server)
        answer = _answer(server, API_VERSIONS) or _answer(server, b"\r\n\r\n")
        is_encrypted = answer.startswith(TLS_ALERT)
        if answer and not is_encrypted and answer[4:8] != REQUEST_ID:
            line = answer.splitlines()[0].decode(errors="backslashreplace")
            raise FatalError(
                f"Kafka at {where} is not there: what listens answers {line!r}; "
                "mend KAFKA_BOOTSTRAP_SERVERS"
            )
        refused = [reason for reason in reasons if REFUSED.search(reason)]
        why = refused[-1] if refused else ""
        if answer and is_encrypted != self._protocol.endswith("SSL"):
            port = "is encrypted" if is_encrypted else "is not encrypted"
            why = f"{reasons[-1]}: its port {port}, and KAFKA_SECURITY_PROTOCOL is {self._protocol}"
        elif answer and all(CLOSED.search(reason) for reason in reasons):
            self._closed_since = closed_since or time.monotonic()
            if time.monotonic() - self._closed_since >= CLOSED_SECONDS:
                why = reasons[-1]
        if why:
            raise FatalError(
                f"Kafka at {where} refuses us: {why}; mend the KAFKA_SECURITY_PROTOCOL, _SASL_ and "
                "_SSL_ settings"
            )


def _answer(server: tuple[str, int], request: bytes) -> bytes:
    """What the server answers first to these bytes, sent without encryption."""
    with suppress(OSError), socket.create_connection(server, ANSWER_SECONDS) as connection:
        connection.sendall(request)
        return connection.recv(256)
    return b""
