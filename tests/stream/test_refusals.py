"""A Kafka that is there and closes each connection is not away: it refuses us."""

import socketserver
import threading
import time
from collections.abc import Iterator

import pytest

from pipeline.errors import FatalError
from pipeline.stream import refusals
from pipeline.stream.refusals import API_VERSIONS, REQUEST_ID, Refusals

CLOSED = ["KafkaConnectionError: socket disconnected"] * 3


class Broker(socketserver.BaseRequestHandler):
    """Answers the one question that needs no login."""

    def handle(self) -> None:
        """Answer it."""
        if self.request.recv(len(API_VERSIONS)) == API_VERSIONS:
            self.request.sendall(bytes(4) + REQUEST_ID + bytes(2))


@pytest.fixture
def broker() -> Iterator[tuple[str, int]]:
    """Where such a broker listens."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Broker) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield "127.0.0.1", server.server_address[1]
        server.shutdown()


def test_closed_without_a_word(broker: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Not at once, since a Kafka that is killed does it, too; but when it goes on."""
    refused = Refusals("SASL_PLAINTEXT")
    refused.end_if_refused(CLOSED, broker)
    monkeypatch.setattr(refusals, "CLOSED_SECONDS", 0.1)
    time.sleep(0.1)
    refused.note_success()
    refused.end_if_refused(CLOSED, broker)
    time.sleep(0.1)
    with pytest.raises(FatalError, match=r"refuses us: .*socket disconnected; mend"):
        refused.end_if_refused(CLOSED, broker)


@pytest.mark.parametrize("reasons", [[], ["Unable to bootstrap"], ["Connection refused", *CLOSED]])
def test_not_yet_there(
    broker: tuple[str, int], monkeypatch: pytest.MonkeyPatch, reasons: list[str]
) -> None:
    """A Kafka that has just come, or is slow, does not refuse us."""
    monkeypatch.setattr(refusals, "CLOSED_SECONDS", 0)
    refused = Refusals("PLAINTEXT")
    for _ in range(3):
        refused.end_if_refused(reasons, broker)


def test_the_wrong_protocol(broker: tuple[str, int]) -> None:
    """A Kafka that does not encrypt is told from one that is away, whatever the reason given."""
    with pytest.raises(FatalError, match="its port is not encrypted"):
        Refusals("SSL").end_if_refused(["anything"], broker)
