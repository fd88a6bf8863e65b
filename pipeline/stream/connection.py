"""Connects to Kafka, as often as necessary, until the program is asked to stop."""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, TypeVar

from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from pipeline.errors import FatalError, Stopped
from pipeline.settings import Settings
from pipeline.stop_signal import StopSignal
from pipeline.stream import kafka_version
from pipeline.stream.availability import Availability
from pipeline.stream.create_topics import Topics
from pipeline.stream.kafka_python import (
    TRANSIENT,
    Admin,
    ConnectionFailures,
    is_forbidden,
    is_time_refused,
)
from pipeline.stream.refusals import Refusals
from pipeline.terminal import one_line, say

T = TypeVar("T")


class Kafka:
    """Makes the connections to Kafka for all threads of a program."""

    def __init__(
        self, settings: Settings, stop: StopSignal, availability: Availability | None = None
    ) -> None:
        self.stop = stop
        self.settings = settings
        self.options: dict[str, Any] = {
            "bootstrap_servers": settings.bootstrap_servers.split(","),
            "bootstrap_timeout_ms": 3000,
            # By default each client's pauses between two tries to connect grow to 30 s, and a stage
            # has several clients: it would be silent for so long after Kafka is back.
            "reconnect_backoff_max_ms": 1000,
            # Partitions that somebody adds are seen after so long, by default five minutes.
            "metadata_max_age_ms": 5000,
            **settings.security,
        }
        self.topics = Topics()
        self._availability = availability or Availability(settings)
        self._where = settings.bootstrap_servers
        self._failures = ConnectionFailures()
        self._refusals = Refusals(settings.security.get("security_protocol", "PLAINTEXT"))
        self._has_warned = False

    @contextmanager
    def connect(self, make: Callable[["Kafka", ExitStack], T]) -> Iterator[T]:
        """Wait for Kafka, create our topics, and yield the clients that `make` creates.

        `make` adds to the stack how its clients are closed, which happens at the end of the block.
        Ends the program when it is asked to stop, when Kafka has been away for longer than the
        settings allow, and when Kafka refuses us.
        """
        made, closing = self._connect(make)
        with closing:
            self._availability.count_connections(1)
            closing.callback(self._availability.count_connections, -1)
            yield made

    def _connect(self, make: Callable[["Kafka", ExitStack], T]) -> tuple[T, ExitStack]:
        while not self.stop:
            server = self._availability.listening_server()
            if server:
                with ExitStack() as closing:
                    self._failures.reasons.clear()
                    try:
                        self.make_topics()
                        made = make(self, closing)
                    except TRANSIENT as error:
                        self._refusals.end_if_refused(self._failures.reasons, server)
                        # A Kafka that has just started answers before it can do all.
                        reason = [one_line(error), *self._failures.reasons][-1]
                        self._availability.away(self._with_advice(reason), patience=3)
                    except KafkaError as error:
                        self._refusals.end_if_refused(self._failures.reasons, server)
                        self.end_if_forbidden(error)
                        raise FatalError(
                            f"Kafka at {self._where} can't be used: {one_line(error)}"
                        ) from error
                    else:
                        self._refusals.note_success()
                        self._availability.there()
                        return made, closing.pop_all()
            else:
                self._availability.away(self._availability.why_none)
            self.stop.wait(0.5)
        raise Stopped(self.stop.status)

    def _with_advice(self, reason: str) -> str:
        """The reason of a failed connection, with what to do if it was to an unexpected address."""
        address = re.search(r"KafkaConnectionError: (\S+:\d+): ", reason)
        if not address or address[1] in self._where.split(","):
            return reason
        return (
            f"{reason}; Kafka itself names this address (advertised.listeners in its settings), so "
            "have it name one that this computer reaches"
        )

    def end_if_forbidden(self, error: Exception) -> None:
        """Raise `FatalError` if Kafka refuses what no waiting changes.

        That is what its access rules forbid, and a time that it holds for impossible.
        """
        if is_time_refused(error):
            raise FatalError(
                f"Kafka refuses this computer's time, {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC: "
                "set the clock right, or message.timestamp.type=LogAppendTime for our topics"
            )
        if is_forbidden(error):
            raise FatalError(
                f"Kafka at {self._where} forbids it: {one_line(error)}; give this program's "
                "user the rights that docs/security.md lists"
            )

    @contextmanager
    def admin(self) -> Iterator[KafkaAdminClient]:
        """A client for questions about topics, groups and transactions, closed afterwards."""
        admin = Admin(**self.options)
        try:
            yield admin
        finally:
            with suppress(KafkaError):
                admin.close()

    def make_topics(self) -> None:
        """Create the topics that are missing. Raises `KafkaError`."""
        with self.admin() as admin:
            self.topics.create(admin)

    def check(self) -> None:
        """Correct the settings of topics that another program created, where Kafka allows it.

        Also warns of a Kafka that is known to lose messages. Raises `KafkaError`.
        """
        with self.admin() as admin:
            warning = "" if self._has_warned else kafka_version.warning(admin)
            self.topics.check(admin)
        if warning:
            self._has_warned = True
            say(warning)
