"""Copies of a program and their names: who shares Kafka or the files never has the same one."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Pipeline

import embedded_kafka
from pipeline.settings import Location, Settings
from pipeline.store.instance_lock import InstanceLock


@pytest.fixture(autouse=True)
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory of locks of its own, so that no other copy on this machine counts."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def copy_of(data: Path, bootstrap_servers: str) -> InstanceLock:
    """A running copy of a stage."""
    return InstanceLock(
        "test_instance_lock", Settings(bootstrap_servers, {}, 0, Location(str(data)))
    )


def number(copy: InstanceLock) -> int:
    """The number of a copy among its like."""
    return int(copy.name.rpartition("-")[2])


def test_pipelines_on_one_machine_do_not_meet(tmp_path: Path) -> None:
    """With files and a Kafka of its own each, both have a copy 0, as if they were alone."""
    first = copy_of(tmp_path / "first", "localhost:19092")
    second = copy_of(tmp_path / "second", "localhost:19093")
    assert (number(first), number(second)) == (0, 0)


@pytest.mark.parametrize(
    ("data", "kafka"),
    [
        ("first", "localhost:19092"),
        ("first", "127.0.0.1:19092"),
        ("second", "localhost:19093,127.0.0.1:19092"),
        ("first", "localhost:19093"),
    ],
)
def test_copies_that_share_something(tmp_path: Path, data: str, kafka: str) -> None:
    """Beside the same files, or on the same Kafka by whatever name, a copy has another number."""
    first = copy_of(tmp_path / "first", "localhost:19092")
    second = copy_of(tmp_path / data, kafka)
    assert (number(first), number(second)) == (0, 1)


def test_the_number_of_a_copy_that_has_ended_is_free(tmp_path: Path) -> None:
    """A copy that starts again has the name of the one that ended, by which Kafka knows it."""
    first = copy_of(tmp_path, "localhost:19092")
    name = first.name
    del first
    assert copy_of(tmp_path, "localhost:19092").name == name


@pytest.fixture
def beside(tmp_path: Path) -> Iterator[Pipeline]:
    """Another pipeline on this machine, on files and a Kafka of its own."""
    broker = embedded_kafka.start(tmp_path / "kafka beside", embedded_kafka.free_port())
    for name in ("image_database", "image_event_database", "image_event_alerts"):
        (tmp_path / "beside" / name).mkdir(parents=True)
    pipeline = Pipeline(tmp_path / "beside", broker.bootstrap_servers)
    yield pipeline
    pipeline.close()
    broker.stop()


@pytest.mark.slow
def test_a_restart_beside_another_pipeline(pipeline: Pipeline, beside: Pipeline) -> None:
    """A killed stage that starts again goes on at once, whatever else runs on the machine.

    With a number that the other pipeline's stage left to it, it would wait until Kafka gives up
    the dead one.
    """
    beside.start("image_analysis.py")
    analysis = pipeline.start("image_analysis.py")
    pipeline.receive()
    analysis.says("00007  CHANGED")
    analysis.process.kill()
    analysis.ends()
    again = pipeline.start("image_analysis.py")
    pipeline.receive("--count", "4")
    again.says("00011  CHANGED", 8)
