"""Topics that somebody else has made or deleted: put right, or said."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Pipeline, slow, until
from kafka import KafkaAdminClient, KafkaConsumer
from kafka.admin import ConfigResource

import embedded_kafka
from pipeline.stream.create_topics import PARTITIONS, TOPICS


@pytest.fixture
def careless(data: Path, tmp_path: Path) -> Iterator[Pipeline]:
    """The pipeline on a Kafka that makes topics by itself: four partitions, stored in zstd."""
    port = embedded_kafka.free_port()
    properties = ["auto.create.topics.enable=true", "num.partitions=4", "compression.type=zstd"]
    broker = embedded_kafka.start(tmp_path / "kafka", port, properties)
    pipeline = Pipeline(data, broker.bootstrap_servers)
    yield pipeline
    pipeline.close()
    broker.stop()


def partitions(pipeline: Pipeline) -> dict[str, int]:
    """How many partitions each topic has."""
    admin = KafkaAdminClient(bootstrap_servers=pipeline.bootstrap_servers)
    found = {one["name"]: len(one["partitions"]) for one in admin.describe_topics(list(TOPICS))}
    admin.close()
    return found


def alter(pipeline: Pipeline, topic: str, settings: dict[str, str]) -> None:
    """Change a topic's settings."""
    admin = KafkaAdminClient(bootstrap_servers=pipeline.bootstrap_servers)
    admin.alter_configs([ConfigResource("TOPIC", topic, settings)])
    admin.close()


def test_a_reader_that_comes_first(careless: Pipeline) -> None:
    """Topics that its question made get our partitions and settings; a large record is set aside.

    The reader is a plain client, as in the README, and asks before any of our programs has run.
    """
    ask = (
        "import kafka, sys;"
        "kafka.KafkaConsumer(*sys.argv[2:], bootstrap_servers=sys.argv[1]).poll(3000)"
    )
    python = careless.start(sys.executable, "-c", ask, careless.bootstrap_servers, *TOPICS)
    assert python.ends() == 0, python
    until(lambda: partitions(careless) == dict.fromkeys(TOPICS, 4), "topics that Kafka made")
    analysis = careless.start("image_analysis.py")
    analysis.says("the topic dead-letters had 4 partitions; now 16")
    analysis.says("the topic alerts had compression.type=zstd; now compression.type=producer")
    analysis.says(
        r"the topic dead-letters had max.message.bytes=\d+; now max.message.bytes=2097152"
    )
    assert partitions(careless) == dict.fromkeys(TOPICS, PARTITIONS)
    careless.put("images", b"x" * 1_040_000)
    careless.waits_for("dead-letters", 1)
    careless.start("image_event_alert.py")
    careless.receive()
    careless.waits_for("alerts", 2)


@pytest.mark.slow
def test_topics_with_messages_keep_their_partitions(careless: Pipeline) -> None:
    """Another number would move a source to another partition: it is said, and all goes on."""
    admin = KafkaAdminClient(bootstrap_servers=careless.bootstrap_servers)
    admin.create_topics({topic: {"num_partitions": 4} for topic in TOPICS})
    admin.close()
    careless.put("images", b"rubbish")
    analysis = careless.start("image_analysis.py")
    analysis.says("the topic images has 4 partitions instead of 16, and messages, so they stay")
    analysis.says("the topic alerts had 4 partitions; now 16")
    careless.receive()
    analysis.says("00007  CHANGED")
    assert partitions(careless)["images"] == 4


@pytest.mark.slow
def test_a_topic_that_keeps_the_newest_only(pipeline: Pipeline) -> None:
    """A clean-up that deletes all but the newest message of a source is switched off."""
    pipeline.receive()
    alter(pipeline, "images", {"cleanup.policy": "compact"})
    analysis = pipeline.start("image_analysis.py")
    analysis.says("the topic images had cleanup.policy=compact; now cleanup.policy=delete")
    analysis.says("00007  CHANGED")


@pytest.mark.parametrize("topic", [slow("images"), "image-events", slow("dead-letters")])
def test_a_topic_is_deleted_under_running_stages(careless: Pipeline, topic: str) -> None:
    """It is made again as it was, which is said, and what comes from then on goes all the way."""
    stages = [careless.start(f"{name}.py") for name in ("image_analysis", "image_event_alert")]
    careless.receive()
    careless.waits_for("alerts", 2)
    admin = KafkaAdminClient(bootstrap_servers=careless.bootstrap_servers)
    admin.delete_topics([topic])
    admin.close()
    until(
        lambda: any("made again" in line for stage in stages for line in stage.lines),
        "the topic made again",
        60,
    )
    assert partitions(careless)[topic] == PARTITIONS
    careless.put("images", b"rubbish")
    careless.receive()
    stages[1].says("00019  ALERT")
    until(lambda: len(careless.records("dead-letters")) == 1, "the dead letter")
    reader = KafkaConsumer(bootstrap_servers=careless.bootstrap_servers)
    assert reader.partitions_for_topic(topic) == set(range(PARTITIONS))
    reader.close()


@pytest.mark.slow
def test_a_topic_comes_back_with_other_settings(pipeline: Pipeline) -> None:
    """Under a running stage: what can be mended is, and all is said."""
    analysis = pipeline.start("image_analysis.py")
    pipeline.receive("--count", "4")
    analysis.says("00003  CHANGED")
    admin = KafkaAdminClient(bootstrap_servers=pipeline.bootstrap_servers)
    admin.delete_topics(["images"])
    until(lambda: "images" not in admin.list_topics(), "the topic deleted")
    settings = {
        "cleanup.policy": "compact",
        "message.timestamp.type": "CreateTime",
        "retention.ms": "60000",
    }
    admin.create_topics({"images": {"num_partitions": 4, "configs": settings}})
    admin.close()
    analysis.says("the topic images was deleted, with all that was in it, and is made again")
    analysis.says("the topic images had 4 partitions; now 16")
    analysis.says("the topic images keeps messages for 0:01:00 only: .* its retention.ms=60000")
    analysis.says("the topic images had message.timestamp.type=CreateTime; now message.time")
    pipeline.receive("--count", "4")
    analysis.says("00007  CHANGED")
    assert "Traceback" not in analysis.output
