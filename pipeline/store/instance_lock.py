"""The running copies of a program, each under a name of its own."""

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
    """One running copy of a program, under a name that no other copy of the same pipeline has.

    The name is the same again after a restart, so that Kafka knows the restarted copy for the
    dead one: program, host, and the lowest number that is free. A number is held by locked files,
    which the operating system unlocks when the process ends, however it ends: one is named after
    the place of the data, and one after each address of Kafka. So two pipelines on one machine
    don't meet, and two copies that share either never have the same name.
    """

    def __init__(self, program: str, settings: Settings, most: int | None = None) -> None:
        """Take a number; with `most` copies running already, end with a line that says so."""
        host = re.sub(r"[^a-zA-Z0-9._-]", "-", socket.gethostname())
        shared = [str(settings.data), *addresses(settings.bootstrap_servers)]
        keys = [sha256(name.encode()).hexdigest()[:16] for name in shared]
        for number in itertools.count():
            if number == most:
                raise FatalError(
                    f"{program} is running for {settings.data}, or on Kafka at "
                    f"{settings.bootstrap_servers}, already; wait until it has ended"
                )
            try:
                self._locks = _locked(f"{program}-{key}-{number}.lock" for key in keys)
                break
            except BlockingIOError:
                continue
            except OSError as error:
                raise FatalError(
                    f"cannot keep a lock among temporary files: {error}; set TMPDIR"
                ) from error
        self.name = f"{program}-{host}-{number}"


def addresses(bootstrap_servers: str) -> list[str]:
    """The servers' IP addresses and ports; `localhost` for every address of loopback."""
    found = set()
    for server in bootstrap_servers.split(","):
        host, _, port = server.rpartition(":")
        try:
            known = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
        except (OSError, ValueError):  # a name that nobody knows yet, or no host can have
            found.add(server)
            continue
        for _, _, _, _, address in known:
            ip = str(address[0])
            is_loopback = ipaddress.ip_address(ip.partition("%")[0]).is_loopback
            found.add(f"{'localhost' if is_loopback else ip}:{port}")
    return sorted(found)


def _locked(names: Iterable[str]) -> ExitStack:
    """Hold the locks of these names, all or none. Raises `BlockingIOError` if one is taken."""
    directory = Path(tempfile.gettempdir(), f"image-pipeline-{os.getuid()}")
    directory.mkdir(mode=0o700, exist_ok=True)
    with ExitStack() as locks:
        for name in names:
            lock = locks.enter_context((directory / name).open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return locks.pop_all()
