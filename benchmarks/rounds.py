"""Rounds: the measures take turns, so that a machine that is busy for a while slows all of them.

A module of measurements uses them so:

    turns = interleaved({"ours": seconds(ours), "plain": seconds(plain)})
    yield Figure("compare", "2 MP RGB, one star", "plain way", over(turns["plain"], turns["ours"]),
                 is_better="higher", bar=5)

A measure is a function that returns a number: `seconds(action)` makes the measure of the seconds
that an action takes. A module has a function `figures()`, which yields each `Figure` as soon as it
was measured. `__main__` prints the figures by `table()`, writes them by `as_json()`, and compares
them with recorded figures by `regressions()`.
"""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

ROUNDS = 7
WORSE = 0.1  # of a ratio: more is a regression
SHORTEST = 0.02  # seconds: an action that takes less is done several times a round

Measure = Callable[[], float]


def seconds(action: Callable[[], object]) -> Measure:
    """A measure: the seconds that an action takes. A short action is repeated in each round."""
    started = time.perf_counter()
    action()  # the first time fills the caches, and says how often to repeat
    times = max(1, round(SHORTEST / (time.perf_counter() - started)))

    def measure() -> float:
        started = time.perf_counter()
        for _ in range(times):
            action()
        return (time.perf_counter() - started) / times

    return measure


def interleaved(measures: Mapping[str, Measure], rounds: int = ROUNDS) -> dict[str, list[float]]:
    """The results of each measure, by round. Each round has the reverse order of the last one."""
    turns: dict[str, list[float]] = {name: [] for name in measures}
    for number in range(rounds):
        for name in list(measures)[:: -1 if number % 2 else 1]:
            turns[name].append(measures[name]())
    return turns


def over(numerators: Iterable[float], denominators: Iterable[float]) -> list[float]:
    """The ratios of what two measures gave in the same rounds."""
    return [above / below for above, below in zip(numerators, denominators, strict=True)]


@dataclass(frozen=True)
class Figure:
    """A figure of a table: what the rounds gave, and what it should be."""

    group: str  # the table's name
    row: str  # what was measured
    column: str  # against what
    rounds: list[float]  # a number each; none if it couldn't be measured: `note` says why
    is_better: Literal["higher", "lower"] = "higher"
    bar: float | None = None  # at least or at most, by `is_better`
    unit: str = "x"  # "x" is a ratio
    is_checked: bool = True  # whether it is compared with a recorded figure of another machine
    note: str = ""  # such as "not installed"

    @property
    def name(self) -> str:
        """The figure's name, which is the same in every run."""
        return f"{self.group}: {self.row}: {self.column}"

    @property
    def median(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.rounds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The first and the third quartile of the rounds: half of the rounds lie between them."""
        if len(self.rounds) == 1:
            return self.rounds[0], self.rounds[0]
        low, _, high = statistics.quantiles(self.rounds, n=4, method="inclusive")
        return low, high

    @property
    def is_met(self) -> bool:
        """Whether the median reaches the bar."""
        return self.bar is None or not self.rounds or not _is_worse(self.median, self.bar, self)

    def __str__(self) -> str:
        if not self.rounds:
            return self.note
        low, high = (f"{quartile:.3g}" for quartile in self.quartiles)
        words = [f"{self.median:.3g}{self.unit} ({low} to {high})", self.note]
        return " ".join([*filter(None, words), *([] if self.is_met else ["MISSED"])])


def table(figures: list[Figure]) -> str:
    """The figures of one group for people: medians, and in brackets the quartiles."""
    rows = list(dict.fromkeys(figure.row for figure in figures))
    columns = list(dict.fromkeys(figure.column for figure in figures))
    cells = {(figure.row, figure.column): str(figure) for figure in figures}
    lines = [
        ["", *columns],
        *([row, *(cells.get((row, column), "") for column in columns)] for row in rows),
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def as_json(figures: list[Figure]) -> str:
    """The figures as JSON, with the machine on which they were measured."""
    return json.dumps(
        {
            "machine": machine(),
            "figures": {
                figure.name: {
                    "median": figure.median,
                    "quartiles": figure.quartiles,
                    "rounds": figure.rounds,
                    "unit": figure.unit,
                    "is_better": figure.is_better,
                    "bar": figure.bar,
                    "is_met": figure.is_met,
                    "note": figure.note,
                }
                if figure.rounds
                else {"note": figure.note}
                for figure in figures
            },
        },
        indent=1,
    )


def regressions(figures: Iterable[Figure], recorded: Path) -> tuple[list[str], list[str]]:
    """The figures that are more than 10 % worse than recorded: for certain, and perhaps.

    A figure is worse for certain if not even the better quartile of this run reaches the worse
    quartile of the recorded run. Where they overlap, the rounds differ too much to tell.
    """
    earlier: dict[str, Any] = json.loads(recorded.read_text())["figures"]
    certain: list[str] = []
    perhaps: list[str] = []
    for figure in figures:
        was = earlier.get(figure.name, {})
        if not (figure.is_checked and figure.rounds and "median" in was):
            continue
        low, high = was["quartiles"]
        if figure.is_better == "higher":
            allowed, best, worst = was["median"] * (1 - WORSE), figure.quartiles[1], low
        else:
            allowed, best, worst = was["median"] * (1 + WORSE), figure.quartiles[0], high
        if _is_worse(figure.median, allowed, figure):
            line = f"{figure.name}: {figure}; was {was['median']:.3g} ({low:.3g} to {high:.3g})"
            (certain if _is_worse(best, worst, figure) else perhaps).append(line)
    return certain, perhaps


def machine() -> dict[str, object]:
    """The machine on which the figures are measured."""
    cpu = [
        line.partition(":")[2].strip()
        for line in _read("/proc/cpuinfo").splitlines()
        if line.startswith("model name")
    ]
    return {
        "cores": os.cpu_count(),
        "cpu": cpu[0] if cpu else platform.processor(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
        "libraries": dict(
            sorted(
                (library.metadata["Name"], library.version) for library in metadata.distributions()
            )
        ),
    }


def _is_worse(value: float, bar: float, figure: Figure) -> bool:
    return value < bar if figure.is_better == "higher" else value > bar


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
