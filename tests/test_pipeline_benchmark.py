"""The benchmarks of the whole pipeline: their tables, and that what they compare does the same."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from conftest import Pipeline, until
from kafka import KafkaAdminClient

from benchmarks import growth, pipeline
from benchmarks.growth import Extent, Mix
from benchmarks.images import Kind
from benchmarks.pipeline import (
    OURS,
    PLAIN,
    Course,
    Load,
    Passage,
    directory,
    make_topics,
    wait_figures,
)
from benchmarks.rounds import Figure, as_json, table

TINY = Kind("64x64", 64, 64)


@pytest.fixture
def closing() -> Iterator[ExitStack]:
    """What a test leaves to be ended."""
    with ExitStack() as closing:
        yield closing


def rows(figures: list[Figure]) -> set[str]:
    """The rows of a table that has all figures, as the JSON has."""
    assert len(json.loads(as_json(figures))["figures"]) == len(figures)
    found = {line.split("  ")[0] for line in table(figures).splitlines()[2:]}
    assert found == {figure.row for figure in figures}
    return found


@pytest.mark.slow
def test_pipeline_against_the_others() -> None:
    """Each way is measured flat out and at the rate, and ratios are those of the rates beside."""
    counts = {"ours": 8, "plain pipeline": 4, "limit": 8}
    figures = list(pipeline.figures([Load(TINY, counts, at_rate=4, per_second=10)], rounds=1))
    by_name = {figure.name: figure for figure in figures}
    assert rows(figures) == {
        f"64x64 {how}, {name}" for how in ("flat out", "at 10/s") for name in counts
    }
    for name in ("plain pipeline", "limit"):
        ratio = by_name[f"pipeline: 64x64 flat out, ours: over the {name}"]
        ours, other = (
            by_name[f"pipeline: 64x64 flat out, {one}: images/s"].median for one in ("ours", name)
        )
        assert ratio.rounds == [ours / other]


@pytest.mark.slow
def test_growth() -> None:
    """Each kind of growth has its rows, and the memory of each process is among them."""
    extent = Extent((Mix(1, 1), Mix(2, 2)), 16, (8, 80), 800, 8)
    longest = "80 images of 64x64, parts 3 to 10 of 10 over the second"
    programs = ("image_analysis 1", "image_event_alert 2", "Kafka")  # receiving has ended by then
    found = rows(list(growth.figures(extent, rounds=1)))
    assert {row.partition(", on")[0] for row in found} >= {
        "1 source, 1 copy of analysis",
        "2 sources, 2 copies of analysis",
        "80 images of 64x64, over 8",
        longest,
        *(f"{longest}: memory of {name}" for name in programs),
        "800 messages behind",
        "800 messages behind: the stages' start",
    }


@pytest.mark.slow
def test_the_plain_pipeline_finds_the_same_events(pipeline: Pipeline, closing: ExitStack) -> None:
    """Of the same images, both make the same image files, events and alerts, each once."""
    remake_topics(pipeline.bootstrap_servers)
    made = []
    for way in (OURS, PLAIN):
        data = directory(TINY, closing)
        course = Course(way, pipeline.bootstrap_servers, data, closing)
        course.start()
        assert len(course.passage(12).waits) == 3
        assert len(course.passage(8).waits) == 2
        images = sorted((data / "image_database").glob("*.jpg"))
        made.append(
            [
                [(one.name, one.read_bytes()) for one in images],
                *(names(data / one) for one in ("image_event_database", "image_event_alerts")),
                [event["image_id"] for event in pipeline_events(pipeline, way.alerts)],
            ]
        )
    assert made[0] == made[1]
    assert made[0][3] == [f"{number:05d}" for number in range(3, 20, 4)]


def test_what_is_too_slow_for_the_rate() -> None:
    """What was not measured at the rate has a line that says why, and no number."""
    assert [str(figure) for figure in wait_figures("2 MP at 10/s", [])] == ["too slow for that"]


def test_a_wait_is_a_share_of_the_events() -> None:
    """The median of a hundred events is the 50th, p99 the 99th, all is the longest."""
    passage = Passage(400, 2, [number / 1000 for number in range(1, 101)])
    assert [passage.wait(share) for share in (0.5, 0.99, 1)] == [50, 99, 100]
    assert passage.rate == 200


def names(directory: Path) -> list[str]:
    """The files of a directory, but for hidden ones."""
    return sorted(one.name for one in directory.iterdir() if not one.name.startswith("."))


def pipeline_events(pipeline: Pipeline, topic: str) -> list[dict[str, object]]:
    """The messages of a topic, by image."""
    messages = [json.loads(record.value) for record in pipeline.records(topic)]
    return sorted(messages, key=lambda one: str(one["image_id"]))


def remake_topics(server: str) -> None:
    """The benchmark's topics without what an earlier test may have left in them."""
    admin = KafkaAdminClient(bootstrap_servers=server)
    left = [topic for topic in admin.list_topics() if topic.startswith(("plain-", "limit-"))]
    if left:
        admin.delete_topics(left)
        until(lambda: not set(left) & set(admin.list_topics()), "topics deleted")
    admin.close()
    make_topics(server)
