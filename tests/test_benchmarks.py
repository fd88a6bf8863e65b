"""The benchmark measures what it says, on tiny images and in few rounds; no test looks at speed."""

import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from benchmarks import compare
from benchmarks.__main__ import main
from benchmarks.images import Kind
from benchmarks.rounds import Figure, as_json, interleaved, table

TINY = Kind("tiny", 64, 48)
KINDS = (TINY, Kind("tiny grey", 48, 48, is_grey=True))


@pytest.mark.parametrize("kind", KINDS)
def test_ours_and_the_plain_way_find_the_same(kind: Kind) -> None:
    """What is measured against each other answers the same question in the same way."""
    for pair in kind.pairs():
        ours, plain = compare.ours(pair)(), compare.plain(pair)()
        assert ours.is_changed is plain.is_changed is pair.is_changed
        assert bool(ours.picture) is bool(plain.picture) is pair.is_changed
        if pair.is_changed and (kind.is_grey or "turned" not in pair.name):
            assert ours.l2_norm == pytest.approx(plain.l2_norm, rel=1e-12)


def test_the_figures_of_compare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each pair has its row; what can't be measured says why, at its place."""
    monkeypatch.setitem(sys.modules, "cv2", None)
    figures = list(compare.figures((TINY,), rounds=1))
    names = {figure.name: figure for figure in figures}
    for pair in TINY.pairs():
        assert names[f"compare: tiny, {pair.name}: plain way"].median > 0
    assert names["compare: tiny, identical bytes: plain way"].bar == 100
    assert names["compare: tiny, dense noise: plain way"].bar == 5
    for column in (
        "compare: tiny, dense noise: limit",
        "compare with others: tiny, dense noise: OpenCV",
    ):
        assert str(names[column]) == "not installed"
    assert names["memory: tiny, turned by 90 degrees: ours"].median > 0

    lines = table([figure for figure in figures if figure.group == "compare"]).splitlines()
    assert len(lines) == 2 + len(TINY.pairs())
    assert lines[0].split()[:3] == ["plain", "way", "limit"]
    assert "not installed" in lines[-1]

    written = json.loads(as_json(figures))
    assert written["figures"].keys() == names.keys()
    assert written["machine"]["cores"] > 0
    assert {"numpy", "pillow"} <= {name.lower() for name in written["machine"]["libraries"]}
    figure = written["figures"]["compare: tiny, dense noise: plain way"]
    assert figure["quartiles"][0] <= figure["median"] <= figure["quartiles"][1]
    assert written["figures"]["compare: tiny, dense noise: limit"] == {"note": "not installed"}


def test_a_round_has_each_once() -> None:
    """What is compared takes turns, and none is always the first."""
    done: list[str] = []

    def measure(name: str) -> float:
        done.append(name)
        return len(done)

    turns = interleaved({name: partial(measure, name) for name in "abc"}, rounds=3)
    assert "".join(done) == "abccbaabc"
    assert turns == {"a": [1, 6, 7], "b": [2, 5, 8], "c": [3, 4, 9]}


def figure(*rounds: float, **options: object) -> Figure:
    """A figure of these rounds."""
    return Figure("speed", "ours", "plain way", list(rounds), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("now", "says", "status"),
    [
        (figure(9.5, 9.6, 9.7), "0 figures", 0),  # less than 10 %
        (figure(8.5, 8.6, 8.7), "WORSE: speed: ours: plain way: 8.6x (8.55 to 8.65); was 10", 1),
        (figure(8.5, 8.6, 12.0), "perhaps worse", 0),  # one of its rounds is better than all then
        (figure(1.0, is_checked=False), "0 figures", 0),
        (figure(note="not installed"), "0 figures", 0),
        (figure(11.5, 11.6, 11.7, is_better="lower"), "WORSE", 1),
        (figure(8.5, 8.6, 8.7, is_better="lower"), "0 figures", 0),
    ],
)
def test_check_names_what_is_worse(
    now: Figure, says: str, status: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A ratio that is over 10 % worse than recorded, beyond what its rounds differ, ends with 1."""
    recorded = tmp_path / "baseline.json"
    recorded.write_text(as_json([figure(9.9, 10, 10.1)]))

    def measured() -> Iterator[Figure]:
        yield now

    assert main(["speed", "--check"], {"speed": measured}, recorded) == status
    assert says in capsys.readouterr().out
    assert main([], {"speed": measured}, recorded) == 0


def test_a_missed_bar_is_marked() -> None:
    """In the table, whichever way it points."""
    assert str(figure(4, bar=5)) == "4x (4 to 4) MISSED"
    assert str(figure(2, bar=1.6, is_better="lower")) == "2x (2 to 2) MISSED"
    assert "MISSED" not in str(figure(5, bar=5)) + str(figure(1.6, bar=1.6, is_better="lower"))


def test_json_is_what_check_reads(tmp_path: Path) -> None:
    """A run can be recorded, and is no worse than itself."""
    recorded = tmp_path / "baseline.json"
    groups = {"speed": lambda: iter([figure(1, 2, 3)])}
    assert main(["--json", str(recorded)], groups, recorded) == 0
    assert main(["--check"], groups, recorded) == 0


def test_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A group that isn't there ends with 2, a baseline that can't be read with 1: one line each."""
    groups = {"speed": lambda: iter([figure(1)])}
    with pytest.raises(SystemExit) as ended:
        main(["sped"], groups)
    assert ended.value.code == 2
    assert "there is no group 'sped'; name some of speed" in capsys.readouterr().err
    with pytest.raises(SystemExit, match=r"cannot compare with .*nothing\.json"):
        main(["--check"], groups, tmp_path / "nothing.json")
