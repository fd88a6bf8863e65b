"""The way to Kafka: there or not, told to stop or not."""

import logging
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, TypeVar

from kafka import KafkaAdminClient
from kafka.errors import KafkaError, RetriableError, UnknownBrokerIdError

import pipeline.stream.kafka_python  # noqa: F401 (its work-arounds hold for every client)
from pipeline.errors import FatalError, Stopped
from pipeline.settings import Settings
from pipeline.stop_signal import StopSignal
from pipeline.stream import kafka_version
from pipeline.stream.create_topics import TopicIds, check_topics, create_topics
from pipeline.terminal import one_line, say

T = TypeVar("T")

# What Kafka may answer for a while, as when a partition has no leader (kafka-python then says that
# the broker -1 is unknown).
TRANSIENT = (RetriableError, UnknownBrokerIdError)

# Of what kafka-python says when a connection fails: what doesn't pass by waiting.
REFUSED = (
    r"certificate verify failed|WRONG_VERSION_NUMBER|alert|Authentication failed|SaslMechanism"
    r"|SaslState|Invalid frame length"
)


class _Log(logging.Handler):
    """Keeps why a connection failed, which kafka-python tells nobody but its log."""

    failure = ""
    is_refusal = False

    def emit(self, record: logging.LogRecord) -> None:
        found = re.search(r"^Bootstrap connection .*? failed: (.*) \(backoff", record.getMessage())
        if found and not self.is_refusal:
            self.failure = re.sub(r" \(_ssl.*?\)$", "", found[1])
            self.is_refusal = bool(re.search(REFUSED, self.failure))


class Kafka:
    """The way to Kafka: waits for it, makes the topics, says when it is away, gives up in time."""

    def __init__(self, settings: Settings, stop: StopSignal) -> None:
        self.stop = stop
        self.settings = settings
        self.options: dict[str, Any] = {
            "bootstrap_servers": settings.bootstrap_servers.split(","),
            "bootstrap_timeout_ms": 3000,
            # By default each client's pauses between two tries to connect grow to 30 s, and a stage
            # has several clients: it would be silent for so long after Kafka is back.
            "reconnect_backoff_max_ms": 1000,
            **settings.security,
        }
        self._where = settings.bootstrap_servers
        self._wait = settings.kafka_wait
        self._away_since: float | None = None
        self._said = 0.0
        self.topic_ids: TopicIds = {}  # as they were seen last
        self._said_of_kafka: set[str] = set()  # which is so each time that we connect
        self._connections = 0  # that are open, whichever thread uses them
        self._lock = threading.Lock()
        self._log = _Log()
        logging.getLogger("kafka").addHandler(self._log)
        threading.Thread(target=self._watch, daemon=True).start()

    @contextmanager
    def connect(self, make: Callable[["Kafka", ExitStack], T]) -> Iterator[T]:
        """What `make` makes of a Kafka that is there and has our topics.

        `make` adds to the stack what closes its clients, which happens at the end of the block.

        Ends the program when it is told to stop, when Kafka has been away for longer than the
        settings allow, and when Kafka refuses us.
        """
        made, closing = self._connect(make)
        with closing:
            yield made

    def _connect(self, make: Callable[["Kafka", ExitStack], T]) -> tuple[T, ExitStack]:
        while not self.stop:
            if self._reachable():
                with ExitStack() as closing:
                    self._log.failure, self._log.is_refusal = "", False
                    try:
                        self._make_topics()
                        made = make(self, closing)
                    except TRANSIENT as error:
                        if self._log.is_refusal:
                            raise FatalError(
                                f"Kafka at {self._where} refuses us: {self._log.failure}; mend "
                                "the KAFKA_SECURITY_PROTOCOL, _SASL_ and _SSL_ settings"
                            ) from error
                        # A Kafka that has just started answers before it can do all.
                        self._is_away(self._log.failure or one_line(error), patience=3)
                    except (KafkaError, OSError, ValueError) as error:
                        self.end_if_forbidden(error)
                        raise FatalError(
                            f"Kafka at {self._where} can't be used: {one_line(error)}"
                        ) from error
                    else:
                        self._is_there()
                        self._count(1)
                        closing.callback(self._count, -1)
                        return made, closing.pop_all()
            else:
                self._is_away("nothing listens there")
            self.stop.wait(0.5)
        raise Stopped(self.stop.status)

    def end_if_forbidden(self, error: Exception) -> None:
        """End the program if Kafka's access rules are in the way, which no waiting changes."""
        if "AuthorizationFailed" in str(error):  # kafka-python wraps some in others
            raise FatalError(
                f"Kafka at {self._where} forbids it: {one_line(error)}; give this program's "
                "user the rights that the README lists"
            )

    def _reachable(self) -> bool:
        for server in self.options["bootstrap_servers"]:
            host, _, port = server.rpartition(":")
            # A ValueError: a name that no host can have.
            with (
                suppress(OSError, ValueError),
                socket.create_connection((host.strip("[]"), int(port)), 2),
            ):
                return True
        return False

    @contextmanager
    def admin(self) -> Iterator[KafkaAdminClient]:
        """A client for questions about topics, groups and transactions, closed afterwards."""
        admin = KafkaAdminClient(**self.options)
        try:
            yield admin
        finally:
            admin.close()

    def are_topics_new(self, since: TopicIds) -> bool:
        """Make what is missing; whether a topic was made again since it had these ids.

        Raises `KafkaError`. Whoever reads or writes such a topic must connect again.
        """
        self._make_topics()
        return self.topic_ids != since

    def check(self) -> None:
        """Put topics right that somebody else has made; say what can't be, and what Kafka this is.

        Raises `KafkaError`.
        """
        with self.admin() as admin:
            lines = [kafka_version.warning(admin)]
            findings = check_topics(admin)
        for line in findings.changed:
            say(line)
        for line in filter(None, [*lines, *findings.kept]):
            if line not in self._said_of_kafka:
                self._said_of_kafka.add(line)
                say(line)

    def _make_topics(self) -> None:
        with self.admin() as admin:
            found = create_topics(admin)
        # Only now: the lock is for saying that Kafka is away, too, which must not wait for Kafka.
        with self._lock:
            before, self.topic_ids = self.topic_ids, found
        for topic, topic_id in before.items():
            if found.get(topic) != topic_id:
                say(f"the topic {topic} was deleted, with all that was in it, and is made again")

    def _watch(self) -> None:
        """Once connected, kafka-python waits in silence for a Kafka that goes away: speak up."""
        is_away = False
        while True:
            time.sleep(1)
            if self._connections:
                was_away, is_away = is_away, not self._reachable()
                if is_away:
                    self._is_away("nothing listens there")
                elif was_away:
                    self._is_there()

    def _count(self, change: int) -> None:
        with self._lock:
            self._connections += change

    def _is_away(self, reason: str, patience: float = 0) -> None:
        with self._lock:
            self._say_away(reason, patience)

    def _say_away(self, reason: str, patience: float) -> None:
        now = time.monotonic()
        if self._away_since is None:
            self._away_since, self._said = now, now + patience - 5
        waited = now - self._away_since
        if waited >= self._wait:
            say(
                f"Kafka at {self._where} did not come in {self._wait:g} s: {reason}; "
                "start it, or mend the KAFKA_ settings"
            )
            os._exit(1)  # from whichever thread, and whatever kafka-python waits for
        if now - self._said >= 5:
            self._said = now
            say(
                f"Kafka at {self._where} is away ({reason}); "
                f"waiting for it, {waited:.0f} of {self._wait:g} s"
            )

    def _is_there(self) -> None:
        with self._lock:
            if self._away_since is not None and self._said >= self._away_since:
                say(f"Kafka at {self._where} is there")
            self._away_since = None
