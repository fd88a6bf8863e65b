"""What `run` and `chaos` start: our programs as child processes, and an embedded Kafka."""

import subprocess
import sys
import threading
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path

import embedded_kafka
from pipeline.errors import FatalError
from pipeline.settings import REPOSITORY
from pipeline.terminal import say

# The colours of the terminal for the label of each program.
COLOURS = {"image_receiving": 36, "image_analysis": 33, "image_event_alert": 35, "view": 32}
OTHER_COLOUR = 34
END_SECONDS = 6  # that a program has to end after SIGTERM


class ChildProgram:
    """One of our programs as a child process."""

    def __init__(
        self,
        name: str,
        arguments: Sequence[str] = (),
        *,
        instance: int | None = None,
        log: Path | None = None,
    ) -> None:
        """Start it. What it prints goes to the `log`, or to our terminal behind its name.

        `instance` is its number if several of this name run.
        """
        self.name = name
        self.label = name if instance is None else f"{name} {instance}"
        program = ["-m", "pipeline", name] if name == "view" else [f"{REPOSITORY}/{name}.py"]
        with log.open("ab") if log else nullcontext(subprocess.PIPE) as output:
            self.process = subprocess.Popen(
                [sys.executable, "-u", *program, *arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                text=True,
                errors="replace",
                # Ctrl-C at the terminal reaches only us, and we end the programs in order.
                start_new_session=True,
            )
        self._printer = threading.Thread(target=self._print_lines, daemon=True)
        self._printer.start()

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self.process.poll() is None

    def _print_lines(self) -> None:
        label = f"{self.label:18} |"
        if sys.stdout.isatty():
            label = f"\033[{COLOURS.get(self.name, OTHER_COLOUR)}m{label}\033[0m"
        for line in self.process.stdout or ():
            say(f"{label} {line.rstrip()}")

    def wait_for_end(self) -> bool:
        """Wait until it has ended and its lines are printed; False if it had to be killed."""
        try:
            self.process.wait(END_SECONDS)
            is_ended = True
        except subprocess.TimeoutExpired:
            self.process.kill()
            is_ended = False
        self._printer.join(1)
        return is_ended


def end_all(programs: Iterable[ChildProgram]) -> list[ChildProgram]:
    """End the programs as Ctrl-C would; returns those that had to be killed."""
    for program in programs:
        program.process.terminate()
    return [program for program in programs if not program.wait_for_end()]


def start_kafka(directory: Path, port: int | None = None) -> embedded_kafka.Broker:
    """Start an embedded Kafka. Raises `FatalError`."""
    try:
        return embedded_kafka.start(directory, port)
    except embedded_kafka.KafkaStartError as error:
        raise FatalError(f"run_pipeline: {error}") from error
