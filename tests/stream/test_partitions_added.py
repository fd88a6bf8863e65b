"""Somebody adds partitions while all runs: no order is lost, and the new ones are read at once."""

from contextlib import ExitStack

import msgspec
import pytest
from conftest import Pipeline, until
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.partitioner.default import murmur2

from pipeline.messages import IMAGES, ReceivedImage, dump, image_id
from pipeline.settings import Parser
from pipeline.stop_signal import StopSignal
from pipeline.stream.connection import Kafka
from pipeline.stream.create_topics import PARTITIONS
from pipeline.stream.source_order import SourceOrder
from pipeline.stream.topic_reader import TopicReader

# A source that is in another partition of 32 than of 16.
SOURCE = next(
    name
    for name in map("cam{}".format, range(99))
    if (murmur2(name.encode()) & 0x7FFFFFFF) % (2 * PARTITIONS) >= PARTITIONS
)


def add_partitions(pipeline: Pipeline, *topics: str) -> None:
    """Double the partitions of these topics."""
    admin = KafkaAdminClient(bootstrap_servers=pipeline.bootstrap_servers)
    admin.create_partitions(dict.fromkeys(topics, 2 * PARTITIONS))
    admin.close()


@pytest.mark.slow
def test_partitions_are_added_while_all_runs(pipeline: Pipeline) -> None:
    """Each image is compared once with the one before it, and the audit is content.

    Receiving goes on all the time, so that its messages are in both partitions.
    """
    analysis = pipeline.start("image_analysis.py")
    alert = pipeline.start("image_event_alert.py")
    arguments = ("--source", SOURCE, "--count", "150", "--interval", "0.1")
    receiving = pipeline.start("image_receiving.py", *arguments)
    alert.says(f"{SOURCE}-00003  ALERT")
    add_partitions(pipeline, IMAGES, "image-events")
    assert receiving.ends() == 0, receiving
    alert.says(f"{SOURCE}-00147  ALERT", 20)
    analysis.says(f"{SOURCE}-00149  unchanged", 20)
    assert len({record.partition for record in pipeline.records(IMAGES)}) == 2
    assert len({record.partition for record in pipeline.records("image-events")}) == 2
    events = [msgspec.json.decode(record.value) for record in pipeline.records("image-events")]
    found = sorted((event["previous_image_id"], event["image_id"]) for event in events)
    changes = range(3, 150, 4)
    assert found == [(image_id(SOURCE, n - 1), image_id(SOURCE, n)) for n in changes]
    audit = pipeline.run_here("audit")
    assert audit.status == 0, audit
    for line in ("images 150", "true changes 37", "events 37", "alerts 37"):
        assert line in map(" ".join, map(str.split, audit.lines))
    for program in (analysis, alert, receiving):
        assert "Traceback" not in program.output
    assert analysis.stop() == alert.stop() == 0


def connection_to(pipeline: Pipeline) -> Kafka:
    """A connection to the Kafka, in this process."""
    options = ["--bootstrap-servers", pipeline.bootstrap_servers]
    parser = Parser("")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StopSignal, "__init__", lambda _: None)  # signals are left alone
        return Kafka(parser.settings(parser.parse_args(options)), StopSignal())


def message(number: int) -> bytes:
    name = image_id("cam", number)
    path = f"image_database/{name}.jpg"
    return dump(ReceivedImage(image_id=name, source="cam", number=number, path=path))


@pytest.mark.parametrize("sent_again", [False, True])
def test_the_first_message_in_a_partition_waits(pipeline: Pipeline, sent_again: bool) -> None:
    """It waits until the group has processed the messages before it in another partition.

    Messages that were sent again are behind later ones in any case, and nothing waits for them.
    """
    assert pipeline.run_here("lag").status == 0  # makes the topics
    old, new = TopicPartition(IMAGES, 3), TopicPartition(IMAGES, 9)
    producer = KafkaProducer(bootstrap_servers=pipeline.bootstrap_servers)
    headers = [("repaired", b"")] if sent_again else []
    for number in (6, 7):
        producer.send(IMAGES, message(number), partition=old.partition, headers=headers).get(10)
    producer.send(IMAGES, message(8), partition=new.partition).get(10)
    producer.close()
    (record,) = (one for one in pipeline.records(IMAGES) if one.partition == new.partition)
    with ExitStack() as closing:
        kafka = connection_to(pipeline)
        topics = TopicReader(kafka, closing)
        group = f"order-{sent_again}"
        order = SourceOrder(kafka, topics, group, IMAGES)
        consumer = KafkaConsumer(**kafka.options, group_id=group)
        closing.callback(consumer.close)
        for processed in (1, 2):
            assert order.must_wait(record) == (not sent_again)
            consumer.commit({old: OffsetAndMetadata(processed, "", -1)})
        assert not order.must_wait(record)


def test_what_kafka_has_deleted_is_not_waited_for(pipeline: Pipeline) -> None:
    """A message whose predecessors Kafka deleted unread, while it waited for them, goes on."""
    assert pipeline.run_here("lag").status == 0  # makes the topics
    old, new = TopicPartition(IMAGES, 3), TopicPartition(IMAGES, 9)
    producer = KafkaProducer(bootstrap_servers=pipeline.bootstrap_servers)
    producer.send(IMAGES, message(7), partition=old.partition).get(10)
    producer.send(IMAGES, message(8), partition=new.partition).get(10)
    producer.close()
    (record,) = (one for one in pipeline.records(IMAGES) if one.partition == new.partition)
    with ExitStack() as closing:
        kafka = connection_to(pipeline)
        order = SourceOrder(kafka, TopicReader(kafka, closing), "order-deleted", IMAGES)
        assert order.must_wait(record)
        with kafka.admin() as admin:
            admin.delete_records({old: 1})
        assert not order.must_wait(record)


def test_new_partitions_are_seen_in_seconds(pipeline: Pipeline) -> None:
    """A message in a partition that was added is processed within ten seconds."""
    analysis = pipeline.start("image_analysis.py")
    pipeline.put(IMAGES, b"rubbish")
    analysis.says("set aside")
    add_partitions(pipeline, IMAGES)
    put_into_last(pipeline)
    analysis.says(LAST, 10)


@pytest.mark.slow
def test_a_stage_that_starts_after_partitions_were_added(pipeline: Pipeline) -> None:
    """It gets the new ones, too, though Kafka gives a copy that comes back what it had before."""
    analysis = pipeline.start("image_analysis.py")
    pipeline.put(IMAGES, b"rubbish")
    analysis.says("set aside")
    assert analysis.stop() == 0
    add_partitions(pipeline, IMAGES)
    put_into_last(pipeline)
    pipeline.start("image_analysis.py").says(LAST, 40)


LAST = rf"set aside  images\[{2 * PARTITIONS - 1}\]"


def put_into_last(pipeline: Pipeline) -> None:
    """Publish rubbish to the last partition of those that were added."""
    producer = KafkaProducer(bootstrap_servers=pipeline.bootstrap_servers)
    until(lambda: len(producer.partitions_for(IMAGES)) == 2 * PARTITIONS, "the partitions")
    producer.send(IMAGES, b"rubbish", partition=2 * PARTITIONS - 1).get(10)
    producer.close()
