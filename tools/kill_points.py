"""Kill, cut, delay, deceive and suspend at chosen points of Kafka's protocol, and count.

    .venv/bin/python tools/kill_points.py [--minutes N] [--seed N] [--at PATTERN]... [--jars FILE]

The three programs and an embedded Kafka run behind a proxy that knows Kafka's frames. A try is
POINT ACT VICTIM, as in `EndTxn:answer:before kill image_analysis`; they follow each other in an
order that the seed gives, and begin anew when all were made. --at takes those whose name has this
shell pattern ("WriteTxnMarkers:* kill Kafka"), --jars another list of Kafka's jars. Prints a line
for each try and a ledger at the end. Ends with 1 if anything is lost, there twice or stuck, if a
program ended by itself, or if there was no alert for more than 15 s once all was there again.
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(HERE), str(HERE / "tests")]

from kill_trial import Outcome, Trial, TriedPipeline, trials  # noqa: E402 (found beside this one)

HEADINGS = ("tries", "missed", "lost", "twice", "stuck", "ended", "silence")


@dataclass
class Row:
    """What came of all tries of a name."""

    tries: int = 0
    missed: int = 0  # the point was not reached
    lost: int = 0
    twice: int = 0
    stuck: int = 0
    ended: int = 0
    silence: float = 0  # the longest

    def add(self, outcome: Outcome) -> None:
        """One more."""
        self.tries += 1
        self.missed += not outcome.is_reached
        self.lost += len(outcome.lost)
        self.twice += len(outcome.twice)
        self.stuck += len(outcome.stuck)
        self.ended += len(outcome.ended)
        self.silence = max(self.silence, outcome.silence)


class Ledger:
    """The tries, by their names, and whether all was well."""

    def __init__(self) -> None:
        self.has_faults = False
        self._rows: dict[str, Row] = {}

    def add(self, name: str, outcome: Outcome, about: str = "") -> None:
        """Note what came of a try, and say it."""
        self._rows.setdefault(name, Row()).add(outcome)
        self.has_faults |= bool(outcome.faults)
        state = f"{outcome.silence:5.1f} s" if outcome.is_reached else " missed"
        print(f"{state}  {name}{about}", flush=True)
        for line in outcome.faults:
            print("\n".join(f"         {part}" for part in line.splitlines()), flush=True)

    def table(self) -> str:
        """A line for each name."""
        width = max((len(name) for name in self._rows), default=0)
        lines = [" " * width + "".join(f"{one:>8}" for one in HEADINGS)]
        for name, row in sorted(self._rows.items()):
            numbers = (row.tries, row.missed, row.lost, row.twice, row.stuck, row.ended)
            cells = "".join(f"{one:8}" for one in numbers)
            lines.append(f"{name:{width}}{cells}{row.silence:7.1f}s")
        return "\n".join(lines)


def chosen(seed: int, patterns: list[str]) -> Iterator[Trial]:
    """The tries, for ever."""
    chance = random.Random(seed)  # noqa: S311 (that it comes again is the point)
    while True:
        found = [
            one
            for one in trials(chance)
            if not patterns or any(fnmatchcase(str(one), pattern) for pattern in patterns)
        ]
        if not found:
            sys.exit(f"--at {' '.join(patterns)}: no try has such a name; '*' lists them all")
        yield from found


def run(tries: Iterator[Trial], until: float, jars: Path | None, ledger: Ledger) -> None:
    """Make tries at one pipeline, until it is of no use any more or the time is over."""
    directory = Path(tempfile.mkdtemp(prefix="image-pipeline-kill-points-"))
    had_faults = ledger.has_faults
    ledger.has_faults = False
    pipeline = TriedPipeline(directory, jars)
    try:
        while time.monotonic() < until:
            trial = next(tries)
            outcome = pipeline.attempt(trial)
            about = f"  (from {trial.sender}, {trial.skip} before"
            about += f", {trial.kind} {trial.number}" * bool(trial.number)
            about += (
                f", after {trial.point.milliseconds} ms)" if trial.point.when == "after" else ")"
            )
            ledger.add(str(trial), outcome, about)
            if outcome.is_hopeless:
                break
        else:
            ledger.add("the end", pipeline.finish())
    finally:
        pipeline.close()
    if ledger.has_faults:
        print(f"what the programs and Kafka said is in {directory}", flush=True)
    else:
        shutil.rmtree(directory)
    ledger.has_faults |= had_faults


def main() -> None:
    """Run for as long as is asked, and print the ledger."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="default: any")  # noqa: S311
    parser.add_argument("--at", action="append", default=[], metavar="PATTERN", help="only these")
    parser.add_argument("--jars", type=Path, metavar="FILE", help="a list as kafka-jars.txt is one")
    options = parser.parse_args()
    print(f"--seed {options.seed}", flush=True)
    until = time.monotonic() + 60 * options.minutes
    ledger = Ledger()
    tries = chosen(options.seed, options.at)
    try:
        while time.monotonic() < until:
            run(tries, until, options.jars, ledger)
    except KeyboardInterrupt:
        print("stopped")
    print(f"\n{ledger.table()}")
    sys.exit(ledger.has_faults)


if __name__ == "__main__":
    main()
