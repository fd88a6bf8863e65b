"""Whether Kafka is there: says when it goes away and comes back, and gives up in time."""

import os
import socket
import threading
import time

from pipeline.settings import Settings
from pipeline.terminal import say

SAY_SECONDS = 5  # between two lines that say that Kafka is away


class Availability:
    """What is known of Kafka being there, for all threads of a program."""

    def __init__(self, settings: Settings) -> None:
        self.where = settings.bootstrap_servers
        self.why_none = ""  # no server listens
        self._wait = settings.kafka_wait
        self._lock = threading.Lock()
        self._connections = 0  # that are open, whichever thread uses them
        self._away_since: float | None = None
        self._said = 0.0
        threading.Thread(target=self._watch, daemon=True).start()

    def listening_server(self) -> tuple[str, int] | None:
        """The host and port of the first server that something listens at, if there is any."""
        self.why_none = "nothing listens there"
        for server in self.where.split(","):
            host, _, port = server.rpartition(":")
            address = host.strip("[]"), int(port)
            try:
                with socket.create_connection(address, 2):
                    return address
            except (socket.gaierror, ValueError):  # a ValueError: no host can have this name
                self.why_none = f"this computer finds no host {host}"
            except OSError:
                pass
        return None

    def away(self, reason: str, patience: float = 0) -> None:
        """Kafka is away for this reason, which is said after so many seconds.

        Ends the program once Kafka has been away for longer than the settings allow.
        """
        with self._lock:
            now = time.monotonic()
            if self._away_since is None:
                self._away_since, self._said = now, now + patience - SAY_SECONDS
            waited = now - self._away_since
            if waited >= self._wait:
                say(
                    f"Kafka at {self.where} did not come in {self._wait:g} s: {reason}; "
                    "start it, or mend the KAFKA_ settings"
                )
                os._exit(1)  # from any thread: the others may wait for Kafka without limit
            if now - self._said >= SAY_SECONDS:
                self._said = now
                say(
                    f"Kafka at {self.where} is away ({reason}); "
                    f"waiting for it, {waited:.0f} of {self._wait:g} s"
                )

    def there(self) -> None:
        """Kafka is there, which is said if it was said to be away."""
        with self._lock:
            if self._away_since is not None and self._said >= self._away_since:
                say(f"Kafka at {self.where} is there")
            self._away_since = None

    def count_connections(self, change: int) -> None:
        """Add to the number of open connections: while there are any, Kafka is watched."""
        with self._lock:
            self._connections += change

    def _watch(self) -> None:
        """Look for Kafka each second, since a client that has lost it waits in silence."""
        is_away = False
        while True:
            time.sleep(1)
            if self._connections:
                was_away, is_away = is_away, not self.listening_server()
                if is_away:
                    self.away(self.why_none)
                elif was_away:
                    self.there()
