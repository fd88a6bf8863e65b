"""Rounds: what is measured takes turns, so that a busy machine is as busy for all of it.

What a module of measurements needs from here:

    turns = interleaved({"ours": seconds(ours), "plain": seconds(plain)})
    yield Figure("compare", "2 MP RGB, one star", "plain way", over(turns["plain"], turns["ours"]),
                 is_better="higher", bar=5)

A measure is a callable that returns one number: of `seconds(action)`, the seconds that an action
takes; of your own, whatever a round gives. A module has `figures()`, which yields a `Figure` as
soon as it's there; `__main__` prints them by `table()`, writes them by `as_json()`, and compares
them with those that were recorded by `regressions()`.
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
SHORTEST = 0.02  # seconds: what takes less is done several times a round

Measure = Callable[[], float]


def seconds(action: Callable[[], object]) -> Measure:
    """A measure: the seconds that this takes; often enough a round for the clock to tell."""
    started = time.perf_counter()
    action()  # the first time is for caches, and to see how long it takes
    times = max(1, round(SHORTEST / (time.perf_counter() - started)))

    def measure() -> float:
        started = time.perf_counter()
        for _ in range(times):
            action()
        return (time.perf_counter() - started) / times

    return measure


def interleaved(measures: Mapping[str, Measure], rounds: int = ROUNDS) -> dict[str, list[float]]:
    """What each measure gave in each round; they take turns, every other round backwards."""
    turns: dict[str, list[float]] = {name: [] for name in measures}
    for number in range(rounds):
        for name in list(measures)[:: -1 if number % 2 else 1]:
            turns[name].append(measures[name]())
    return turns


def over(ones: Iterable[float], others: Iterable[float]) -> list[float]:
    """Ratios, round by round: each by what was measured beside it."""
    return [one / other for one, other in zip(ones, others, strict=True)]


@dataclass(frozen=True)
class Figure:
    """One figure of the table: what the rounds gave, and what it should be."""

    group: str  # the table that it is in
    row: str  # what was measured
    column: str  # against what
    rounds: list[float]  # one each; none if it couldn't be measured, and then `note` says why
    is_better: Literal["higher", "lower"] = "higher"
    bar: float | None = None  # at least or at most, by `is_better`
    unit: str = "x"  # of a ratio; a figure in another unit says what the ratio is to
    is_checked: bool = True  # False for what another machine, as good, would give otherwise
    note: str = ""  # such as "not installed"

    @property
    def name(self) -> str:
        """The figure's name, by which it is found again in another run."""
        return f"{self.group}: {self.row}: {self.column}"

    @property
    def median(self) -> float:
        """The middle of the rounds."""
        return statistics.median(self.rounds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """Between which half of the rounds are: their spread."""
        if len(self.rounds) == 1:
            return self.rounds[0], self.rounds[0]
        low, _, high = statistics.quantiles(self.rounds, n=4, method="inclusive")
        return low, high

    @property
    def is_met(self) -> bool:
        """Whether the median keeps the bar."""
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
        *([row, *(cells.get((row, one), "") for one in columns)] for row in rows),
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def as_json(figures: list[Figure]) -> str:
    """The figures for machines, and the machine that they are from."""
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
    """What is more than 10 % worse than in the JSON of an earlier run: for certain, and perhaps.

    For certain: the median is, and not even the better quartile of this run comes up to the worse
    one of that run. Where these overlap, the rounds differ too much among themselves to tell.
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
    """What the figures were measured on."""
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
            sorted((one.metadata["Name"], one.version) for one in metadata.distributions())
        ),
    }


def _is_worse(one: float, other: float, figure: Figure) -> bool:
    return one < other if figure.is_better == "higher" else one > other


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
