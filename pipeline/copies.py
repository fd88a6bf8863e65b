"""The running copies of a program, each under a name of its own."""

import fcntl
import itertools
import os
import re
import socket
import sys
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import IO


class Copy:
    """One running copy of a program, under a name that no other living copy has.

    The name is the same again after a restart, so that Kafka knows the restarted copy for the
    dead one: program, host, and the lowest number that is free. A number is held by a locked
    file, which the operating system unlocks when the process ends, however it ends. `scope`
    keeps apart those who don't meet.
    """

    def __init__(self, program: str, scope: str = "", most: int | None = None) -> None:
        """Take a number; with `most` copies running already, end with a line that says so."""
        host = re.sub(r"[^a-zA-Z0-9._-]", "-", socket.gethostname())
        key = sha256(scope.encode()).hexdigest()[:16]
        for number in itertools.count():
            if number == most:
                sys.exit(f"{program} is running for {scope} already; wait until it has ended")
            try:
                locks = Path(tempfile.gettempdir(), f"image-pipeline-{os.getuid()}")
                locks.mkdir(mode=0o700, exist_ok=True)
                self._lock: IO[str] = (locks / f"{program}-{key}-{number}.lock").open("w")
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                self._lock.close()
            except OSError as error:
                sys.exit(f"cannot keep a lock among temporary files: {error}; set TMPDIR")
        self.name = f"{program}-{host}-{number}"
