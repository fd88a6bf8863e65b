"""A message that comes twice causes once what it causes; and no other is taken for it."""

import shutil
import signal
from pathlib import Path

import msgspec
import pytest
from conftest import Pipeline, until
from kafka import KafkaProducer
from kafka.consumer.fetcher import ConsumerRecord
from PIL import Image

EVENTS = ["00003", "00007"]


def send_again(pipeline: Pipeline, records: list[ConsumerRecord]) -> None:
    """Send these records to their topic again, as they are."""
    producer = KafkaProducer(bootstrap_servers=pipeline.bootstrap_servers)
    for record in records:
        producer.send(record.topic, record.value, record.key, list(record.headers)).get(10)
    producer.close()


def test_images_that_come_twice(pipeline: Pipeline) -> None:
    """Each `images` message twice, at once and long after: each change is one event, one alert."""
    analysis = pipeline.start("image_analysis.py")
    alert = pipeline.start("image_event_alert.py")
    pipeline.receive()
    alert.says("00007  ALERT")
    records = pipeline.records("images")
    send_again(pipeline, records + records)
    analysis.says("00003  came twice")
    pipeline.receive("--count", "1")
    analysis.says("00011  CHANGED")
    alert.says("00011  ALERT")
    assert pipeline.ids("image-events") == [*EVENTS, "00011"]
    assert pipeline.ids("alerts") == [*EVENTS, "00011"]


def test_events_that_come_twice(pipeline: Pipeline) -> None:
    """Each `image-events` message again: no second alert, whichever copy takes it."""
    pipeline.start("image_analysis.py")
    alert = pipeline.start("image_event_alert.py")
    pipeline.receive()
    alert.says("00007  ALERT")
    alert.stop()
    send_again(pipeline, pipeline.records("image-events"))
    again = pipeline.start("image_event_alert.py")
    again.says("00007  came twice")
    pipeline.receive("--count", "1")
    again.says("00011  ALERT")
    assert pipeline.ids("alerts") == [*EVENTS, "00011"]


@pytest.mark.slow
def test_twice_in_one_batch(pipeline: Pipeline) -> None:
    """Messages that wait twice for a stage that starts later cause one event each."""
    pipeline.receive()
    send_again(pipeline, pipeline.records("images"))
    pipeline.start("image_analysis.py").says("00007  came twice")
    pipeline.start("image_event_alert.py").says("00007  ALERT")
    assert pipeline.ids("image-events") == EVENTS
    assert pipeline.ids("alerts") == EVENTS


def test_twice_around_a_kill(pipeline: Pipeline) -> None:
    """A copy that is killed and started again knows what the one before it has published."""
    analysis = pipeline.start("image_analysis.py")
    pipeline.receive()
    analysis.says("00007  CHANGED")
    analysis.process.kill()
    send_again(pipeline, pipeline.records("images"))
    pipeline.start("image_analysis.py").says("00007  came twice")
    assert pipeline.ids("image-events") == EVENTS


@pytest.mark.slow
@pytest.mark.parametrize("has_time", [True, False], ids=["ours", "of the fixed fields only"])
def test_the_same_images_after_a_reset(pipeline: Pipeline, has_time: bool) -> None:
    """After a reset the same images are events again, even in messages that are the same."""
    analysis = pipeline.start("image_analysis.py")
    for _ in range(2):
        if has_time:
            pipeline.receive("--count", "4")
        else:
            put_images_by_hand(pipeline)
        pipeline.waits_for("image-events", 1)
        until(lambda: "00003  CHANGED" in analysis.lines[-1], "the event's line")
        for name in ("image_database", "image_event_database"):
            shutil.rmtree(pipeline.data / name)
            (pipeline.data / name).mkdir()
        analysis.lines.clear()
    assert pipeline.ids("image-events") == ["00003", "00003"]


def put_images_by_hand(pipeline: Pipeline) -> None:
    """Images 0 to 3 of another program: 3 is another one than 2."""
    for number in range(4):
        name = f"{number:05d}"
        path = f"image_database/{name}.jpg"
        Image.new("L", (8, 8), 99 if number == 3 else 0).save(pipeline.data / path)
        message = {"image_id": name, "source": "", "number": number, "path": path}
        pipeline.put("images", msgspec.json.encode(message))


def test_messages_of_the_fixed_fields_only_that_come_twice(pipeline: Pipeline) -> None:
    """Another program's message that comes twice causes one event, too, and one alert."""
    analysis = pipeline.start("image_analysis.py")
    alert = pipeline.start("image_event_alert.py")
    put_images_by_hand(pipeline)
    alert.says("00003  ALERT")
    send_again(pipeline, pipeline.records("images"))
    analysis.says("00003  came twice")
    assert pipeline.ids("image-events") == ["00003"]
    send_again(pipeline, pipeline.records("image-events"))
    alert.says("00003  came twice")
    assert pipeline.ids("alerts") == ["00003"]


def test_messages_of_the_fixed_fields_only_twice_in_one_batch(pipeline: Pipeline) -> None:
    """Another program's messages that wait twice for a stage cause one event, and one alert."""
    pipeline.start("image_analysis.py").says("Kafka at")
    pipeline.wait_for_topics()
    pipeline.started[-1].stop()
    put_images_by_hand(pipeline)
    send_again(pipeline, pipeline.records("images"))
    pipeline.start("image_analysis.py").says("00003  came twice")
    send_again(pipeline, pipeline.records("image-events"))
    pipeline.start("image_event_alert.py").says("00003  came twice")
    assert pipeline.ids("image-events") == ["00003", "00003"]  # the second one was ours
    assert pipeline.ids("alerts") == ["00003"]


def swap(path: Path) -> None:
    """Put another picture in the place of this one."""
    Image.new("RGB", (40, 30), "red").save(path)


@pytest.mark.slow
@pytest.mark.parametrize("is_restarted", [True, False])
def test_a_picture_that_is_exchanged(pipeline: Pipeline, is_restarted: bool) -> None:
    """A stored image that isn't what its message says is not compared with: what is before it is.

    Image 7 is turned, and 8 to 10 are like it: so 10 is a change only where 7 is exchanged, too.
    """
    analysis = pipeline.start("image_analysis.py")
    pipeline.receive("--count", "8")
    analysis.says("00007  CHANGED")
    if is_restarted:
        analysis.stop()
    else:
        analysis.process.send_signal(signal.SIGSTOP)
    pipeline.receive("--count", "3")
    for number in (7, 8, 9) if is_restarted else (8, 9):
        swap(pipeline.data / "image_database" / f"{number:05d}.jpg")
    if is_restarted:
        analysis = pipeline.start("image_analysis.py")
    else:
        analysis.process.send_signal(signal.SIGCONT)
    analysis.says("00010  CHANGED" if is_restarted else "00010  unchanged")
    assert len(pipeline.records("dead-letters")) == 2
    events = [msgspec.json.decode(one.value) for one in pipeline.records("image-events")]
    before = {one["image_id"]: one["previous_image_id"] for one in events}
    assert before == {"00003": "00002", "00007": "00006"} | (
        {"00010": "00006"} if is_restarted else {}
    )
