"""Ctrl-C, SIGTERM and the closing of the terminal ask a program to end."""

import atexit
import os
import signal
import time
from types import FrameType

from pipeline.terminal import say


class StopSignal:
    """True once Ctrl-C, SIGTERM or the closing of the terminal has asked the program to end."""

    def __init__(self, status: int = 0, seconds: int = 4) -> None:
        """A program that is stopped ends with `status`, at the latest after `seconds`."""
        self.status = status
        self._seconds = seconds
        self._asked = False
        signal.signal(signal.SIGALRM, self._end)
        # Python forgets this handler while it ends, and then the alarm would kill the program.
        atexit.register(signal.alarm, 0)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._ask)

    def __bool__(self) -> bool:
        return self._asked

    def wait(self, seconds: float) -> None:
        """Wait so long, or until the program is asked to end."""
        end = time.monotonic() + seconds
        while not self and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.05))

    def ask(self) -> None:
        """Ask the program to end, as a signal does, but without a limit in time."""
        self._asked = True

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        self._asked = True
        # A client of Kafka waits without limit for a Kafka that is away.
        signal.alarm(self._seconds)

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        say("stopped in the middle: what was in hand will be done at the next start")
        os._exit(self.status)
