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

from pipeline.errors import FatalError
from pipeline.settings import Settings


class InstanceLock:
    """The lowest number that no other running instance of the program has.

    An instance's name consists of the program, the host and the number. A restarted instance gets
    the same name again, and so Kafka knows that it replaces the dead one.

    Two instances need different numbers if they share the data directory or a Kafka. So a number is
    held by locking a file for the data directory and a file for each of Kafka's addresses. The
    operating system unlocks them when the process ends, however it ends.
    """

    def __init__(self, program: str, settings: Settings, most: int | None = None) -> None:
        """Lock a number. Raises `FatalError` if `most` instances are running already."""
        host = re.sub(r"[^a-zA-Z0-9._-]", "-", socket.gethostname())
        shared = [str(settings.data), *_addresses(settings.bootstrap_servers)]
        keys = [sha256(name.encode()).hexdigest()[:16] for name in shared]
        for number in itertools.count():
            if number == most:
                raise FatalError(
                    f"{program} is running for {settings.data}, or on Kafka at "
                    f"{settings.bootstrap_servers}, already; wait until it has ended"
                )
            try:
                self._locks = _lock_all(f"{program}-{key}-{number}.lock" for key in keys)
                break
            except BlockingIOError:
                continue
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
