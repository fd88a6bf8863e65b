"""The plumbing that the three stages share: how bytes move."""

import os
import sys
from contextlib import suppress
from datetime import UTC, datetime


class Unusable(Exception):
    """A message or an image that no retry can mend; the text is the reason, for people."""


def say(line: str) -> None:
    """Print one line for the person at the terminal, at once."""
    if sys.stdout is None:  # closed by whoever started us
        return
    encoding = sys.stdout.encoding
    line = line.encode(encoding, "backslashreplace").decode(encoding)
    try:
        print(f"{line}\n", end="", flush=True)  # at once, so that threads don't mix lines
    except BrokenPipeError:
        # Nobody reads any more (`| head`): end as other programs do, and let Python's own flush
        # at exit find somewhere to write.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def moment(seconds: float) -> datetime:
    """The time so many seconds after the start of 1970, or that start if no calendar has it."""
    with suppress(ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(seconds, UTC)
    return datetime.fromtimestamp(0, UTC)
