"""Lines for the person at the terminal."""

import os
import signal
import sys
import threading

from pipeline.errors import Stopped


def say(line: str) -> None:
    """Print one line for the person at the terminal, at once."""
    if sys.stdout is None:  # closed by whoever started us
        return
    encoding = sys.stdout.encoding
    line = line.encode(encoding, "backslashreplace").decode(encoding)
    try:
        # The line and its end in one piece, so that the lines of threads don't mix.
        print(f"{line}\n", end="", flush=True)
    except BrokenPipeError:
        # Nobody reads any more, as behind `| head`: end as other programs do. Python flushes the
        # output again when it ends, and then must find somewhere to write.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if threading.current_thread() is threading.main_thread():
            raise Stopped(status=1) from None
        # An error would end this thread alone: the main thread is asked to stop.
        os.kill(os.getpid(), signal.SIGTERM)


def printable(text: str) -> str:
    """The text in one line, without characters that control a terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def one_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return " ".join(str(error).split())
