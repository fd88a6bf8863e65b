"""The three programs together, on a real Kafka."""

import re
import signal
from datetime import datetime

import msgspec
import numpy as np
import pytest
from conftest import TOPICS, Pipeline, until
from kafka import KafkaConsumer
from PIL import Image

EVENTS = ["00003", "00007"]


def description(text: str) -> dict[str, str]:
    """The `Name: value` lines of a file for people."""
    return dict(line.split(": ", 1) for line in text.splitlines())


def test_eleven_images_make_two_alerts(pipeline: Pipeline) -> None:
    """With no arguments and empty directories, 11 images come, and 00003 and 00007 are events."""
    alert = pipeline.start("image_event_alert.py")
    analysis = pipeline.start("image_analysis.py")
    receiving = pipeline.receive()
    pipeline.waits_for("alerts", 2)

    ids = [f"{number:05d}" for number in range(11)]
    assert pipeline.files("image_database") == [f"{name}.jpg" for name in ids]
    assert pipeline.files("image_event_database") == [
        f"image_event_{name}.{kind}" for name in EVENTS for kind in ("jpg", "txt")
    ]
    assert pipeline.files("image_event_alerts") == [
        f"image_event_alert_{name}.txt" for name in EVENTS
    ]
    assert pipeline.ids("images") == ids
    assert pipeline.ids("image-events") == EVENTS
    assert pipeline.ids("alerts") == EVENTS
    assert pipeline.records("dead-letters") == []

    for program in (receiving, analysis, alert):
        assert pipeline.bootstrap_servers in program.output
        assert str(pipeline.data) in program.output
    assert [line for line in receiving.lines if "  received" in line][3].startswith("00003")
    analysis.says("00003  CHANGED")
    analysis.says("00010  unchanged")
    alert.says("00007  ALERT")


def test_the_mock_images_are_what_the_contract_says(pipeline: Pipeline) -> None:
    """Image n is image n - 1 byte for byte, but turned by 90 degrees when n % 4 is 3."""
    pipeline.receive()
    directory = pipeline.data / "image_database"
    contents = [(directory / f"{number:05d}.jpg").read_bytes() for number in range(11)]
    original = pipeline.data / "image_original" / "original_image.jpg"
    assert contents[0] == original.read_bytes()
    for number in range(1, 11):
        if number % 4 != 3:
            assert contents[number] == contents[number - 1]
            continue
        before, after = (
            np.asarray(Image.open(directory / f"{n:05d}.jpg"), float) for n in (number - 1, number)
        )
        assert np.abs(after - np.rot90(before)).mean() < 3  # JPEG's own losses


def test_messages_have_the_fields_of_the_contract(pipeline: Pipeline) -> None:
    """Keys are the source; the fixed fields are there, and paths are relative and lead to files."""
    pipeline.start("image_event_alert.py")
    pipeline.start("image_analysis.py")
    pipeline.receive("--count", "4", "--source", "cam1")
    pipeline.waits_for("alerts", 1)
    fields = {
        "images": {"image_id", "source", "number", "path"},
        "image-events": {"event_id", "image_id", "previous_image_id", "path"},
        "alerts": {"event_id", "image_id", "path"},
    }
    for topic, names in fields.items():
        for record in pipeline.records(topic):
            message = msgspec.json.decode(record.value)
            assert names <= message.keys()
            assert record.key == b"cam1"
            assert (pipeline.data / message["path"]).is_file()
            assert not message["path"].startswith("/")
    event = msgspec.json.decode(pipeline.records("image-events")[0].value)
    assert event["event_id"] == event["image_id"] == "cam1-00003"
    assert event["previous_image_id"] == "cam1-00002"
    assert (pipeline.data / event["difference_path"]).is_file()


def test_the_description_says_what_changed(pipeline: Pipeline) -> None:
    """An event's description has the measures, which are numpy's, and names all three images."""
    pipeline.start("image_event_alert.py")
    pipeline.start("image_analysis.py")
    pipeline.receive("--count", "4")
    pipeline.waits_for("alerts", 1)
    text = (pipeline.data / "image_event_database" / "image_event_00003.txt").read_text()
    said = description(text)
    before, after = (
        np.asarray(Image.open(pipeline.data / said[name]), float)
        for name in ("Previous image", "Image")
    )
    difference = after - before
    assert float(said["L2 norm"]) == pytest.approx(np.linalg.norm(difference), rel=1e-9)
    assert float(said["RMS difference"].split()[0]) == pytest.approx(
        np.sqrt(np.mean(difference**2)), rel=1e-5
    )
    changed = int(difference.any(axis=2).sum())
    assert f"({changed} of {difference[..., 0].size})" in said["Pixels changed"]
    assert said["Changed box"] == "1024 x 1024 pixels at x 0, y 0"
    assert datetime.strptime(said["Received"], "%Y-%m-%d %H:%M:%S UTC")
    Image.open(pipeline.data / said["Difference image"]).load()

    alert = (pipeline.data / "image_event_alerts" / "image_event_alert_00003.txt").read_text()
    assert description(alert)["Alert"] == "image 00003 differs from image 00002"
    assert text in alert


def test_any_order_of_starting(pipeline: Pipeline) -> None:
    """What came before a program was started is waiting for it."""
    pipeline.receive()
    pipeline.start("image_analysis.py").says("00010  unchanged")
    pipeline.start("image_event_alert.py")
    pipeline.waits_for("alerts", 2)
    assert pipeline.ids("alerts") == EVENTS


def test_a_later_run_goes_on_counting(pipeline: Pipeline) -> None:
    """A second run continues where the database ends, for each source by itself."""
    pipeline.start("image_event_alert.py")
    pipeline.start("image_analysis.py")
    pipeline.receive("--count", "3")
    pipeline.receive("--count", "2", "--source", "cam1")
    pipeline.receive("--count", "3")
    assert pipeline.ids("images") == [
        *(f"{number:05d}" for number in range(6)),
        "cam1-00000",
        "cam1-00001",
    ]
    pipeline.waits_for("alerts", 1)
    assert pipeline.ids("image-events") == ["00003"]


def test_a_restarted_analysis_compares_with_the_database(pipeline: Pipeline) -> None:
    """The image before the first one after a restart is read from the image database."""
    first = pipeline.start("image_analysis.py")
    pipeline.receive("--count", "3")
    first.says("00002  unchanged")
    assert first.stop() == 0
    pipeline.receive("--count", "1")
    pipeline.start("image_analysis.py").says("00003  CHANGED")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("program", ["image_analysis.py", "image_event_alert.py"])
def test_a_stage_ends_when_told(pipeline: Pipeline, program: str, number: int) -> None:
    """Ctrl-C and SIGTERM end a stage with 0, within 5 seconds, without a traceback."""
    stage = pipeline.start(program)
    pipeline.wait_for_topics()
    assert stage.stop(number) == 0
    assert "Traceback" not in stage.output


@pytest.mark.slow
def test_a_stopped_stage_is_quick_while_it_works(pipeline: Pipeline) -> None:
    """SIGTERM in the middle of work ends with 0, and the next start does the rest."""
    pipeline.receive("--count", "100")
    first = pipeline.start("image_analysis.py")
    until(lambda: pipeline.files("image_event_database"), "the first event")
    assert first.stop() == 0
    pipeline.start("image_analysis.py").says("00099  CHANGED")
    assert pipeline.ids("image-events") == [f"{number:05d}" for number in range(3, 100, 4)]


def test_topics_have_several_partitions(pipeline: Pipeline) -> None:
    """Whichever program is first makes all four topics, with several partitions."""
    pipeline.start("image_event_alert.py")
    pipeline.wait_for_topics()
    consumer = KafkaConsumer(bootstrap_servers=pipeline.bootstrap_servers)
    assert all(len(consumer.partitions_for_topic(topic)) > 1 for topic in TOPICS)
    consumer.close()


def test_two_copies_share_the_work(pipeline: Pipeline) -> None:
    """Copies of a stage take different partitions, and nothing is done twice."""
    copies = [pipeline.start("image_analysis.py") for _ in range(2)]
    for source in "abcdef":
        pipeline.receive("--count", "4", "--source", source)
    pipeline.waits_for("image-events", 6)
    assert pipeline.ids("image-events") == [f"{source}-00003" for source in "abcdef"]
    done = [line for copy in copies for line in copy.lines if re.match(r"[a-f]-0000\d  ", line)]
    assert len(done) == 24
