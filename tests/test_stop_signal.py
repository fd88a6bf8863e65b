"""How a program ends that is asked to stop."""

import subprocess
import sys

from conftest import HERE

SLOW_END = """
import builtins, os, signal, time
from pipeline.stop_signal import StopSignal

class Slow:
    def __del__(self, time=time):
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            pass

StopSignal(status=0, seconds=1)
os.kill(os.getpid(), signal.SIGTERM)
builtins.slow = Slow()  # deleted when Python has forgotten all handlers of signals
"""


def test_python_takes_long_to_end() -> None:
    """The limit of time for stopping doesn't kill a program that is just ending by itself."""
    ended = subprocess.run([sys.executable, "-c", SLOW_END], cwd=HERE, check=False)
    assert ended.returncode == 0
