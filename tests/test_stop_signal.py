"""How a program ends that is asked to stop."""

import subprocess
import sys

from conftest import HERE, PATIENCE

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


SAYS_IN_A_THREAD = """
import threading, time
from pipeline.stop_signal import StopSignal
from pipeline.terminal import say

def say_for_ever():
    while True:
        say("Kafka is away")
        time.sleep(0.1)

stop = StopSignal(status=0)
threading.Thread(target=say_for_ever, daemon=True).start()
while not stop:
    stop.wait(1)
"""


def test_a_thread_finds_that_nobody_reads() -> None:
    """The program ends then, and not that thread alone, which may be all that looks for Kafka."""
    with subprocess.Popen(
        [sys.executable, "-c", SAYS_IN_A_THREAD], cwd=HERE, stdout=subprocess.PIPE
    ) as program:
        assert program.stdout
        program.stdout.readline()
        program.stdout.close()
        assert program.wait(PATIENCE) == 0
