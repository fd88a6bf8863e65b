"""Numbers the running instances of a program, so that each has a name of its own."""

import fcntl
import ipaddress
import itertools
import os
import re
import socket
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path

from pipeline.errors import FatalError, Stopped
from pipeline.settings import Settings
from pipeline.stop_signal import StopSignal
from pipeline.terminal import say

RETRY_SECONDS = 0.2  # until a program that waits tries again


class InstanceLock:
    """The lowest number that no other running instance of the program has.

    An instance's name consists of the program, the host and the number. A restarted instance gets
    the same name again, and so Kafka knows that it replaces the dead one.

    Two instances need different numbers if they share the data directory or a Kafka. So a number is
    held by locking a file for the data directory and a file for each of Kafka's addresses. The
    operating system unlocks them when the process ends, however it ends.
    """

    def __init__(
        self, program: str, settings: Settings, only_one: StopSignal | None = None
    ) -> None:
        """Lock a number. Raises `FatalError` if files can't be locked.

        With `only_one` there is one number, and the program waits until no other instance has it.
        Raises `Stopped` if the signal comes meanwhile.
        """
        host = re.sub(r"[^a-zA-Z0-9._-]", "-", socket.gethostname())
        shared = [str(settings.data), *_addresses(settings.bootstrap_servers)]
        keys = [sha256(name.encode()).hexdigest()[:16] for name in shared]
        waits = False
        for number in itertools.repeat(0) if only_one is not None else itertools.count():
            try:
                self._locks = _lock_all(f"{program}-{key}-{number}.lock" for key in keys)
                break
            except BlockingIOError:
                if only_one is None:
                    continue
                if not waits:
                    say(
                        f"{program} is running for {settings.data}, or on Kafka at "
                        f"{settings.bootstrap_servers}, already; waiting until it has ended"
                    )
                waits = True
                only_one.wait(RETRY_SECONDS)
                if only_one:
                    raise Stopped(only_one.status) from None
            except OSError as error:
                raise FatalError(
                    f"cannot keep a lock among temporary files: {error}; set TMPDIR"
                ) from error
        self.name = f"{program}-{host}-{number}"


def _addresses(bootstrap_servers: str) -> list[str]:
    """The servers' IP addresses and ports; any loopback address is `localhost`."""
    found = set()
    for server in bootstrap_servers.split(","):
        host, _, port = server.rpartition(":")
        try:
            known = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
        except (OSError, ValueError):  # the name is unknown so far, or no valid host name
            found.add(server)
            continue
        for _, _, _, _, address in known:
            ip = str(address[0])
            is_loopback = ipaddress.ip_address(ip.partition("%")[0]).is_loopback
            found.add(f"{'localhost' if is_loopback else ip}:{port}")
    return sorted(found)


def _lock_all(names: Iterable[str]) -> ExitStack:
    """Lock all these files or none. Raises `BlockingIOError` if another process has one locked."""
    directory = Path(tempfile.gettempdir(), f"image-pipeline-{os.getuid()}")
    directory.mkdir(mode=0o700, exist_ok=True)
    with ExitStack() as locks:
        for name in names:
            lock = locks.enter_context((directory / name).open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return locks.pop_all()
