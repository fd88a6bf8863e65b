"""run_pipeline.sh --chaos: it kills, it counts, and it can tell when something is wrong."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import HERE, Pipeline

from pipeline.operate.chaos import Discrepancies


@pytest.fixture
def alone(data: Path) -> Iterator[Pipeline]:
    """A data directory for runs that start a Kafka of their own."""
    alone = Pipeline(data, "")
    yield alone
    alone.close()


@pytest.mark.slow
@pytest.mark.parametrize("seed", ["3", "4"])
def test_nothing_lost_and_nothing_twice(alone: Pipeline, seed: str, tmp_path: Path) -> None:
    """Under kills of everything, each image is accounted for; what was made for it goes away."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    run = alone.start(
        str(HERE / "run_pipeline.sh"),
        *("--chaos", "--seed", seed, "--count", "300"),
        TMPDIR=str(temporary),
    )
    assert run.ends(300) == 0, run
    rows = [line.strip().split("  ", 1) for line in run.lines if line.startswith("  ")]
    table = {row[0]: row[-1].strip() for row in rows}
    changes = str(2 * len(range(3, 150, 4)))
    for name, value in {
        "images": "300",
        "true changes": changes,
        "events": changes,
        "alerts": changes,
        "lost": "0",
        "twice": "0",
    }.items():
        assert table[name] == value
    times = [float(line.split()[0]) for line in run.lines if re.match(r" *[0-9.]+ s  ", line)]
    assert max(after - before for before, after in itertools.pairwise([0, *times])) < 8
    assert not list(temporary.glob("image-pipeline-chaos-*"))
    for directory in ("image_database", "image_event_database", "image_event_alerts"):
        assert alone.files(directory) == []


def test_what_is_missing_and_what_is_too_much() -> None:
    """The ledger names both, as often as each is."""
    ledger = Discrepancies()
    ledger.expect("images", ["00000", "00002", "00002", "00009"], ["00000", "00001", "00002"])
    assert ledger.lost == ["images: 00001"]
    assert ledger.twice == ["images: 00002", "images: 00009"]


@pytest.mark.parametrize("arguments", [["--count", "10"], ["--seed", "x"], ["--kill", "all"]])
def test_options_that_make_no_sense(alone: Pipeline, arguments: list[str]) -> None:
    """One line and exit 2, before anything is started."""
    assert arguments[0] in alone.usage_error("chaos", *arguments)
