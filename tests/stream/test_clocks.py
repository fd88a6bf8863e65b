"""Clocks that are wrong: nothing is lost or told twice by them, and each is said once."""

import time
from contextlib import ExitStack
from datetime import timedelta

import msgspec
import pytest
from conftest import Ended, Pipeline
from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import ConfigResource
from kafka.consumer.fetcher import ConsumerRecord
from kafka.record.default_records import DefaultRecordBatchBuilder

from pipeline.messages import (
    IMAGE_EVENTS,
    IMAGES,
    ImageEvent,
    Notification,
    ReceivedImage,
    dump,
    moment,
)
from pipeline.notify.inbox import Inbox
from pipeline.settings import Parser
from pipeline.stop_signal import StopSignal
from pipeline.stream import create_topics, transactions
from pipeline.stream.clock import CLOCK, Clock
from pipeline.stream.connection import Kafka
from pipeline.stream.create_topics import SETTINGS, TOPICS
from pipeline.stream.deduplication import CAUSE, Deduplicator, cause
from pipeline.stream.topic_reader import TopicReader

HOURS = 3600
DAYS = 24 * HOURS
TYPE = "message.timestamp.type"


@pytest.fixture
def wrong_clock(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> float:
    """How many seconds this process's clock is ahead, also for Kafka's client."""
    right, ahead = time.time, float(request.param)

    def wrong() -> float:
        return right() + ahead

    monkeypatch.setattr(time, "time", wrong)
    # The client has kept the function as a parameter's default.
    append = DefaultRecordBatchBuilder.append
    defaults = tuple(wrong if value is right else value for value in append.__defaults__)
    monkeypatch.setattr(append, "__defaults__", defaults)
    monkeypatch.setattr(transactions, "CLOCK", Clock())  # as a new program has it
    return ahead


def receive(pipeline: Pipeline, source: str) -> Ended:
    """Receive images in this process, which keeps the lock of each source to its end."""
    return pipeline.run_here("image_receiving.py", "--count", "4", "--source", source)


@pytest.mark.parametrize("wrong_clock", [2 * HOURS, -30 * DAYS], indirect=True)
def test_images_are_received(pipeline: Pipeline, wrong_clock: float) -> None:
    """Whatever the clock says, images arrive at the right time, and the clock is named once.

    Kafka deletes by the time of arrival, so that nothing is too old when it comes.
    """
    received = receive(pipeline, "ahead" if wrong_clock > 0 else "behind")
    assert received.status == 0, received
    how = "2:00:00 ahead of" if wrong_clock > 0 else "30 days, 0:00:00 behind"
    (line,) = [line for line in received.lines if "clock" in line]
    assert line.startswith(f"this computer's clock is {how} Kafka's: ")
    now = time.time() - wrong_clock
    assert all(abs(one.timestamp / 1000 - now) < 60 for one in pipeline.records(IMAGES))


def test_a_topic_that_trusts_clocks(pipeline: Pipeline) -> None:
    """A topic that counts the times of those who publish is mended, and that is said."""
    assert pipeline.run_here("lag").status == 0
    admin = KafkaAdminClient(bootstrap_servers=pipeline.bootstrap_servers)
    admin.alter_configs([ConfigResource("TOPIC", IMAGES, {TYPE: "CreateTime"})])
    received = receive(pipeline, "mended_topic")
    assert f"the topic images had {TYPE}=CreateTime; now {TYPE}=LogAppendTime" in received.lines
    found = admin.describe_configs([ConfigResource("TOPIC", IMAGES, [TYPE])], config_filter="all")
    assert found["topic"][IMAGES][TYPE]["value"] == "LogAppendTime"
    admin.close()


@pytest.mark.parametrize("wrong_clock", [2 * HOURS], indirect=True)
def test_kafka_refuses_the_time(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, wrong_clock: float
) -> None:
    """Where a topic must trust clocks, a clock that Kafka refuses ends the program, named."""
    assert wrong_clock
    settings = {name: value for name, value in SETTINGS.items() if name != TYPE}
    monkeypatch.setattr(create_topics, "TOPICS", dict.fromkeys(TOPICS, settings))
    received = receive(pipeline, "refused")
    assert received.status == 1, received
    assert "Kafka refuses this computer's time, " in received.lines[-1], received.output
    assert "set the clock right" in received.lines[-1]


def test_a_repeated_message_of_a_clock_that_was_ahead(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message whose event is older than the message's own time is known to come again."""
    assert pipeline.run_here("lag").status == 0
    received = moment(time.time() + 50 * 60)
    path = "image_database/00003.jpg"
    message = ReceivedImage(image_id="00003", source="", number=3, path=path, received=received)
    producer = KafkaProducer(bootstrap_servers=pipeline.bootstrap_servers)
    producer.send(IMAGES, dump(message), b"").get(10)
    (record,) = pipeline.records(IMAGES)
    later = record._replace(timestamp=record.timestamp + 3600_000)
    with ExitStack() as closing:
        parser = Parser("")
        options = parser.parse_args(["--bootstrap-servers", pipeline.bootstrap_servers])
        monkeypatch.setattr(StopSignal, "__init__", lambda _: None)  # signals are left alone
        kafka = Kafka(parser.settings(options), StopSignal())
        deduplicator = Deduplicator(TopicReader(kafka, closing), IMAGE_EVENTS)
        assert not deduplicator.is_processed(later, message, 1)
        header = [(CAUSE, cause(record))]
        producer.send(IMAGE_EVENTS, msgspec.json.encode({}), b"", headers=header).get(10)
        assert deduplicator.is_processed(later, message, 1)
    producer.close()


def test_a_notification_waits_by_this_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A digest's time counts from now, though this computer's clock is ahead of Kafka's."""
    monkeypatch.setattr(CLOCK, "seconds_ahead", 2 * HOURS)
    path = "image_event_database/image_event_00003.txt"
    event = ImageEvent(event_id="00003", image_id="00003", previous_image_id="00002", path=path)
    notification = Notification(recipient="a", event=event, alert_path="image_event_alerts/a.txt")
    now = moment(time.time())
    empty = dict.fromkeys(ConsumerRecord._fields)
    there = int((now.timestamp() - 2 * HOURS) * 1000)
    known = {"offset": 0, "timestamp": there, "value": dump(notification)}
    inbox = Inbox()
    inbox.add(ConsumerRecord(**{**empty, **known}), notification, now)
    (waiting,) = inbox.pending.values()
    assert abs(waiting.since - now) < timedelta(seconds=1)


def test_a_clock_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    """It is said again only after it was right; a slow acknowledgement is no wrong clock."""
    clock = Clock()
    clock.compare(there=100, sent=70, acknowledged=130)
    assert clock.seconds_ahead == 0
    for _ in range(2):
        clock.compare(there=100, sent=50, acknowledged=60)
    assert clock.seconds_ahead == -40
    assert capsys.readouterr().out.count(f"is {timedelta(seconds=40)} behind Kafka's") == 1
    clock.compare(there=100, sent=104, acknowledged=105)
    assert clock.seconds_ahead == 4
    clock.compare(there=100, sent=110, acknowledged=111)
    assert "0:00:10 ahead of Kafka's" in capsys.readouterr().out
