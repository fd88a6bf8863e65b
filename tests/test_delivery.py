"""Nothing lost and nothing twice when a program is killed, or Kafka is."""

import hashlib
import json
import random
import signal
import socket
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from conftest import Pipeline, slow, until
from kafka import KafkaConsumer
from kafka.coordinator.assignors.abstract import ConsumerProtocolAssignment
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.coordinator.base import MemberState

import embedded_kafka
from pipeline.messages import ReceivedImage


def events_of(count: int) -> list[str]:
    """The ids of the changes among the first `count` images."""
    return [f"{number:05d}" for number in range(3, count, 4)]


def has_files(pipeline: Pipeline, count: int) -> bool:
    """Whether the analysis has stored as many files."""
    return len(pipeline.files("image_event_database")) >= count


def test_analysis_is_killed_in_the_middle(pipeline: Pipeline) -> None:
    """After SIGKILL of analysis among 400 images, each change is there once, and no half file."""
    pipeline.start("image_event_alert.py")
    analysis = pipeline.start("image_analysis.py")
    receiving = pipeline.start("image_receiving.py", "--count", "400")
    for stored in (10, 60, 130):
        until(partial(has_files, pipeline, stored), f"{stored} files")
        analysis.process.kill()
        analysis = pipeline.start("image_analysis.py")
    assert receiving.ends() == 0
    pipeline.waits_for("alerts", 100)
    analysis.says("00399  CHANGED")
    assert pipeline.ids("image-events") == events_of(400)
    assert pipeline.ids("alerts") == events_of(400)
    assert pipeline.files("image_event_database") == sorted(
        f"image_event_{name}.{kind}" for name in events_of(400) for kind in ("jpg", "txt")
    )
    assert pipeline.records("dead-letters") == []


class Nothing(RangePartitionAssignor):  # type: ignore[misc]
    """Shares out no partition to anybody."""

    @classmethod
    def assign(cls, cluster: object, members: list[Any]) -> dict[str, Any]:
        """The same assignment for all: none."""
        del cluster
        empty = ConsumerProtocolAssignment(cls.version, [], b"")
        return {member.member_id: empty for member in members}


def test_a_group_in_which_nobody_takes_anything(pipeline: Pipeline) -> None:
    """A stage that joins such a group under its old name, as after a kill of Kafka, mends it."""
    pipeline.receive("--count", "4")
    dead = KafkaConsumer(
        "images",
        bootstrap_servers=pipeline.bootstrap_servers,
        group_id="image_analysis",
        group_instance_id=f"image_analysis-{socket.gethostname()}-0",
        session_timeout_ms=60_000,
        partition_assignment_strategy=[Nothing],
        enable_auto_commit=False,
    )
    until(
        lambda: dead.poll(500) == {} and dead.group_metadata().state == MemberState.STABLE,
        "the dead copy's membership",
    )
    dead.close(autocommit=False)
    pipeline.start("image_analysis.py").says("00003  CHANGED", 40)


def test_alert_is_killed_in_the_middle(pipeline: Pipeline) -> None:
    """After SIGKILL of alert, each event is alerted once."""
    pipeline.start("image_analysis.py")
    alert = pipeline.start("image_event_alert.py")
    pipeline.receive("--count", "200")
    until(lambda: pipeline.files("image_event_alerts"), "the first alert")
    alert.process.kill()
    alert = pipeline.start("image_event_alert.py")
    alert.says("00199  ALERT")
    assert pipeline.ids("alerts") == events_of(200)
    assert pipeline.files("image_event_alerts") == [
        f"image_event_alert_{name}.txt" for name in events_of(200)
    ]


@pytest.mark.parametrize("seed", [0, slow(1), slow(2)])
def test_receiving_is_killed_at_random(pipeline: Pipeline, seed: int) -> None:
    """Wherever SIGKILL hits receiving, each stored image comes to `images` once."""
    chance = random.Random(seed)
    for _ in range(4):
        receiving = pipeline.start("image_receiving.py", "--count", "500")
        receiving.says("00  received|50  received|interrupted")
        try:
            receiving.process.wait(chance.uniform(0, 0.4))
        except Exception:
            receiving.process.send_signal(signal.SIGKILL)
        receiving.ends()
    pipeline.receive("--count", "1")
    assert pipeline.files("image_database") == [f"{name}.jpg" for name in pipeline.ids("images")]


def store_as_a_killed_run_would(data: Path, count: int, stored: int) -> None:
    """An outbox of so many messages, of which so many images are in place."""
    content = (data / "image_original" / "original_image.jpg").read_bytes()
    messages = []
    for number in range(count):
        messages.append(
            ReceivedImage(
                image_id=f"{number:05d}",
                source="",
                number=number,
                path=f"image_database/{number:05d}.jpg",
                size=len(content),
                sha256=hashlib.sha256(content).hexdigest(),
                received=datetime.now(UTC),
            )
        )
        if number < stored:
            (data / "image_database" / f"{number:05d}.jpg").write_bytes(content)
    (data / "image_database" / ".image_receiving.json").write_bytes(msgspec.json.encode(messages))


def test_killed_between_storing_and_publishing(pipeline: Pipeline) -> None:
    """What a killed run stored and didn't publish, the next one does, before anything new."""
    store_as_a_killed_run_would(pipeline.data, count=3, stored=2)
    receiving = pipeline.receive("--count", "2")
    assert pipeline.ids("images") == ["00000", "00001", "00002", "00003"]
    order = [msgspec.json.decode(one.value)["number"] for one in pipeline.records("images")]
    assert order == [0, 1, 2, 3]
    receiving.says("00001  received by the run before")
    assert ".image_receiving.json" not in pipeline.files("image_database")


def test_killed_between_publishing_and_saying_so(pipeline: Pipeline) -> None:
    """Kafka remembers the last batch: an outbox that was published isn't published again."""
    pipeline.receive("--count", "3")
    published = [record.value for record in pipeline.records("images")]
    # As it was before the run took its outbox away.
    outbox = pipeline.data / "image_database" / ".image_receiving.json"
    outbox.write_bytes(b"[" + b",".join(published) + b"]")
    pipeline.receive("--count", "1")
    assert pipeline.ids("images") == ["00000", "00001", "00002", "00003"]


def test_killed_while_storing_side_by_side(pipeline: Pipeline) -> None:
    """Of images that are stored beyond one that isn't, nobody was told: the numbers have no gap."""
    store_as_a_killed_run_would(pipeline.data, count=5, stored=5)
    (pipeline.data / "image_database" / "00002.jpg").unlink()
    pipeline.receive("--count", "3")
    assert pipeline.ids("images") == [f"{number:05d}" for number in range(5)]
    assert pipeline.files("image_database") == [f"{number:05d}.jpg" for number in range(5)]


def test_reset_after_a_kill_loses_nothing(pipeline: Pipeline) -> None:
    """Counting from 0 again after a reset isn't taken for what was published before it."""
    pipeline.receive("--count", "3")
    for path in (pipeline.data / "image_database").iterdir():
        path.unlink()
    store_as_a_killed_run_would(pipeline.data, count=2, stored=2)
    pipeline.receive("--count", "1")
    assert pipeline.ids("images") == ["00000", "00000", "00001", "00001", "00002", "00002"]


@pytest.mark.slow
def test_a_second_receiver_of_a_source_waits_its_turn(pipeline: Pipeline) -> None:
    """Two at once would count the same numbers: the second one says so and goes on after it."""
    first = pipeline.start("image_receiving.py", "--count", "2000")
    first.says("  received")
    second = pipeline.start("image_receiving.py", "--count", "3")
    second.says("image_receiving is running for .* already; waiting until it has ended")
    third = pipeline.start("image_receiving.py")
    third.says("waiting until it has ended")
    assert third.stop(signal.SIGINT) == 1
    assert len(third.lines) == 1
    assert first.stop(signal.SIGINT) == 1
    assert "images missing" in first.lines[-1]
    assert second.ends() == 0
    assert second.lines[-1] == "image_receiving: received 3 images"
    numbers = [json.loads(record.value)["number"] for record in pipeline.records("images")]
    assert numbers == list(range(len(numbers)))


def test_kafka_is_killed_and_comes_back(data: Path, tmp_path: Path) -> None:
    """Killed in mid-run and started again on its topics, Kafka loses and doubles nothing."""
    port = embedded_kafka.free_port()
    broker = embedded_kafka.start(tmp_path / "kafka", port)
    pipeline = Pipeline(data, broker.bootstrap_servers)
    try:
        alert = pipeline.start("image_event_alert.py")
        analysis = pipeline.start("image_analysis.py")
        receiving = pipeline.start("image_receiving.py", "--count", "1500")
        analysis.says("CHANGED")
        broker.process.kill()
        broker.process.wait()
        for program in (alert, analysis, receiving):
            program.says("is away")
        broker = embedded_kafka.start(tmp_path / "kafka", port)
        assert receiving.ends() == 0
        alert.says("01499  ALERT")
        assert pipeline.ids("image-events") == events_of(1500), analysis
        assert pipeline.ids("alerts") == events_of(1500), alert
    finally:
        pipeline.close()
        broker.stop()
