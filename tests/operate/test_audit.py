"""python -m pipeline audit: it proves what agrees, names what doesn't, and mends what can be."""

import re
import shutil
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest
from conftest import HERE, Ended, Pipeline, Program, delete_topics, slow, until
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition

IMAGE = "image_database/00003.jpg"
EVENT = "image_event_database/image_event_00003"
ALERT = "image_event_alerts/image_event_alert_00003.txt"


def audit(pipeline: Pipeline, *arguments: str, status: int = 0) -> Ended:
    """Run the audit to its end."""
    ended = pipeline.run_here("audit", *arguments)
    assert ended.status == status, ended
    return ended


def table(program: Ended | Program) -> dict[str, int]:
    """The rows at the end, but for those of nothing."""
    rows = [line.split() for line in program.lines if line.startswith("  ")]
    return {" ".join(row[:-1]): int(row[-1]) for row in rows if row[-1] != "0"}


ALL_WELL = {"images": 11, "true changes": 2, "events": 2, "alerts": 2}


@pytest.fixture
def done(pipeline: Pipeline) -> Pipeline:
    """A pipeline through which 11 images went all the way, its stages still running."""
    alert = pipeline.start("image_event_alert.py")
    pipeline.start("image_analysis.py")
    pipeline.receive()
    alert.says("00007  ALERT")
    return pipeline


def delete(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def exchange(path: Path) -> None:
    path.write_bytes(b"something else")


@pytest.mark.parametrize("path", [IMAGE, slow(f"{EVENT}.txt"), f"{EVENT}.jpg", slow(ALERT)])
def test_a_file_that_is_not_what_it_was(done: Pipeline, path: str) -> None:
    """It is named, made again byte for byte, and then all agrees."""
    assert table(audit(done)) == ALL_WELL
    before = (done.data / path).read_bytes()
    for tamper in (delete, truncate, exchange):
        tamper(done.data / path)
        found = audit(done, status=1)
        assert table(found) == ALL_WELL | {"lost": 1}
        assert any(line.startswith("lost ") and path in line for line in found.lines)
        assert table(audit(done, "--repair")) == ALL_WELL | {"mended": 1}
        assert (done.data / path).read_bytes() == before
    assert table(audit(done)) == ALL_WELL
    assert len(done.records("image-events")) == 2


def test_an_image_that_nothing_brings_back(done: Pipeline) -> None:
    """The only image of its kind is lost for good: that is said, and the rest still agrees."""
    for number in range(7, 11):
        (done.data / f"image_database/{number:05d}.jpg").unlink()
    found = audit(done, "--repair", status=1)
    assert table(found)["lost"] == 4
    assert "image_database/00010.jpg" in found.output


@pytest.mark.slow
def test_whole_directories_are_lost(done: Pipeline) -> None:
    """Each file of an event and its alert is named, and made again byte for byte."""
    names = [f"{EVENT}.txt", f"{EVENT}.jpg", ALERT]
    names += [name.replace("00003", "00007") for name in names]
    before = {name: (done.data / name).read_bytes() for name in names}
    for name in ("image_event_database", "image_event_alerts"):
        shutil.rmtree(done.data / name)
        (done.data / name).mkdir()
    found = audit(done, status=1)
    assert table(found) == ALL_WELL | {"lost": len(names)}
    assert all(name in found.output for name in names)
    assert table(audit(done, "--repair")) == ALL_WELL | {"mended": len(names)}
    assert {name: (done.data / name).read_bytes() for name in names} == before


@pytest.mark.slow
def test_a_message_that_only_claims_a_cause(done: Pipeline) -> None:
    """Rubbish with a true event's header is no event, and no alert."""
    producer = KafkaProducer(bootstrap_servers=done.bootstrap_servers)
    for topic in ("image-events", "alerts"):
        headers = done.records(topic)[0].headers
        producer.send(topic, b"rubbish", b"", headers=headers).get(10)
    producer.close()
    done.waits_for("dead-letters", 1)
    assert table(audit(done)) == ALL_WELL


def test_files_that_nothing_explains(done: Pipeline) -> None:
    """They are named, and not deleted."""
    strays = [
        "image_event_database/image_event_00004.txt",
        "image_event_alerts/image_event_alert_00004.txt",
        "image_database/notes.txt",
    ]
    for path in strays:
        (done.data / path).write_text("who knows")
    found = audit(done, "--repair", status=1)
    assert table(found) == ALL_WELL | {"wrong": 3}
    for path in strays:
        assert path in found.output
        assert (done.data / path).exists()


def delete_topic(pipeline: Pipeline, topic: str) -> None:
    """Lose all messages of a topic."""
    admin = KafkaAdminClient(bootstrap_servers=pipeline.bootstrap_servers)
    admin.delete_topics([topic])
    until(lambda: topic not in admin.list_topics(), "the topic is gone")
    admin.create_topics({topic: {"num_partitions": 4}})
    admin.wait_for_topics([topic])
    admin.close()


@pytest.mark.slow
def test_lost_alerts_are_sent(done: Pipeline) -> None:
    """Messages that are gone from `alerts` come again, once."""
    before = [(one.key, one.value) for one in done.records("alerts")]
    delete_topic(done, "alerts")
    assert table(audit(done, status=1))["lost"] == 2
    assert table(audit(done, "--repair"))["mended"] == 2
    assert [(one.key, one.value) for one in done.records("alerts")] == before
    assert table(audit(done, "--repair")) == ALL_WELL


def test_lost_events_are_sent_and_alerted(done: Pipeline) -> None:
    """Messages that are gone from `image-events` come again, and no alert comes twice."""
    for stage in done.started[:2]:
        stage.stop()
    before = [one.value for one in done.records("image-events")]
    delete_topic(done, "image-events")
    found = audit(done, "--repair")
    assert table(found)["mended"] == 2, found
    assert [one.value for one in done.records("image-events")] == before
    alert = done.start("image_event_alert.py")
    alert.says("00007  came twice")
    assert done.ids("alerts") == ["00003", "00007"]
    assert table(audit(done)) == ALL_WELL


@pytest.mark.slow
def test_a_lost_image_message_is_sent(done: Pipeline) -> None:
    """An image that nobody has been told of comes to `images`, and the analysis takes it."""
    shutil.copy(done.data / IMAGE, done.data / "image_database" / "00011.jpg")
    found = audit(done, status=1)
    assert "images: no message of image_database/00011.jpg" in found.output
    assert table(audit(done, "--repair"))["mended"] == 1
    done.started[1].says("00011  CHANGED")
    done.started[0].says("00011  ALERT")
    well = {"images": 12, "true changes": 3, "events": 3, "alerts": 3}
    assert table(audit(done)) == well


def test_messages_that_are_there_twice(done: Pipeline) -> None:
    """A message twice in `images` is a repeat; an event or an alert twice can't be mended."""
    producer = KafkaProducer(bootstrap_servers=done.bootstrap_servers)
    for topic in ("images", "image-events", "alerts"):
        record = done.records(topic)[-1]
        producer.send(topic, record.value, record.key, record.headers).get(10)
    producer.close()
    done.started[0].says("came twice")
    found = audit(done, "--repair", status=1)
    assert table(found) == ALL_WELL | {"repeats": 1, "twice": 2}


def test_what_nobody_has_taken_yet_is_waiting(pipeline: Pipeline) -> None:
    """Images without a stage are no fault."""
    pipeline.receive()
    assert table(audit(pipeline)) == {"images": 11, "waiting": 11}


@pytest.mark.slow
def test_after_a_reset(done: Pipeline) -> None:
    """What is from before it is history; what came after it is looked at."""
    for name in ("image_database", "image_event_database", "image_event_alerts"):
        shutil.rmtree(done.data / name)
        (done.data / name).mkdir()
    assert "before a reset" in str(audit(done))
    done.receive("--count", "4")
    done.waits_for("alerts", 3)
    well = {"images": 4, "true changes": 1, "events": 1, "alerts": 1}
    assert table(audit(done)) == well
    (done.data / ALERT).unlink()
    assert table(audit(done, status=1)) == well | {"lost": 1}


def clean(pipeline: Pipeline) -> None:
    """Run clean_image_dirs.sh."""
    started = pipeline.start(str(HERE / "clean_image_dirs.sh"))
    assert started.ends() == 0, started
    assert started.lines == []
    for name in ("image_database", "image_event_database", "image_event_alerts"):
        assert pipeline.files(name) == []


def test_what_was_cleaned_away_is_not_missed(done: Pipeline) -> None:
    """It is not lost and not brought back, of no source; images of later are audited as always."""
    done.receive("--source", "cam1", "--count", "2")
    done.started[1].says("cam1-00001  unchanged")
    clean(done)
    done.receive("--source", "cam1", "--count", "4")
    done.started[0].says("cam1-00003  ALERT")
    well = {"images": 4, "true changes": 1, "events": 1, "alerts": 1}
    for options in ([], ["--repair"]):
        found = audit(done, *options)
        assert table(found) == well
        assert "not missed: 13 images deleted by clean_image_dirs.sh" in found.output
    old, new = done.run_here("why", "cam1-00001").lines
    assert old != new
    assert all(re.search(r", of the image received at [-0-9: ]{19} UTC$", x) for x in (old, new))
    clean(done)
    done.receive("--count", "1")
    done.started[1].says("00000  ")
    assert table(audit(done, "--repair")) == {"images": 1}
    (done.data / "image_database/00000.jpg").unlink()
    assert table(audit(done, status=1)) == {"images": 1, "lost": 1}


@pytest.mark.slow
def test_what_was_cleaned_away_and_put_back(done: Pipeline) -> None:
    """Files that were copied back from somewhere are audited as if nothing had been cleaned."""
    copy = done.data / "copy"
    names = ("image_database", "image_event_database", "image_event_alerts")
    for name in names:
        shutil.copytree(done.data / name, copy / name)
    clean(done)
    for name in names:
        shutil.copytree(copy / name, done.data / name, dirs_exist_ok=True)
    found = audit(done)
    assert table(found) == ALL_WELL
    assert "not missed" not in found.output


@pytest.mark.slow
def test_what_was_set_aside_is_no_fault(pipeline: Pipeline) -> None:
    """Neither rubbish nor an image that was damaged before it was analysed."""
    pipeline.receive()
    exchange(pipeline.data / "image_database" / "00005.jpg")
    pipeline.start("image_event_alert.py")
    analysis = pipeline.start("image_analysis.py")
    for topic in ("images", "image-events", "alerts", "dead-letters"):
        pipeline.put(topic, b"rubbish")
    analysis.says("00010  unchanged")
    pipeline.waits_for("dead-letters", 4)
    pipeline.waits_for("alerts", 3)
    assert table(audit(pipeline)) == ALL_WELL | {"set aside": 1}


@pytest.mark.slow
def test_what_kafka_has_deleted(done: Pipeline) -> None:
    """Of files whose messages are gone by Kafka's own rule nobody can judge: they are no fault."""
    records = done.records("images")
    (fourth,) = (one for one in records if b'"00004"' in one.value)
    admin = KafkaAdminClient(bootstrap_servers=done.bootstrap_servers)
    admin.delete_records({TopicPartition("images", fourth.partition): fourth.offset})
    admin.close()
    assert len(done.records("images")) == 7
    assert table(audit(done))["images"] == 7


def replace_kafka(pipeline: Pipeline) -> None:
    """Give the pipeline a Kafka that knows nothing, as a new container does."""
    for stage in pipeline.started:
        if stage.process.poll() is None:
            stage.stop()
    delete_topics(pipeline.bootstrap_servers)


def test_kafka_was_replaced_by_an_empty_one(done: Pipeline) -> None:
    """Images from before it are counted and not judged, and never sent; what is new is proved.

    So are those of a source that has none in the new one.
    """
    done.receive("--source", "my_cam", "--count", "4")
    done.waits_for("alerts", 3)
    replace_kafka(done)
    for options in ([], ["--repair"]):
        found = audit(done, *options)
        assert table(found) == {"not judged": 15}
        assert "the topics are empty: 15 images, " in found.output
    alert = done.start("image_event_alert.py")
    done.start("image_analysis.py")
    done.receive("--count", "2")
    alert.says("00011  ALERT")
    well = {"images": 2, "true changes": 1, "events": 1, "alerts": 1, "not judged": 15}
    found = audit(done, "--repair")
    assert table(found) == well
    last = "image_database/my_cam-00003.jpg"
    assert f"15 images, image_database/00000.jpg to {last}, from before" in found.output
    # What is lost of the new ones is found all the same: a file, and messages behind the first.
    (done.data / "image_event_database/image_event_00011.jpg").unlink()
    for number in ("00013", "00015"):
        shutil.copy(
            done.data / "image_database/00012.jpg", done.data / f"image_database/{number}.jpg"
        )
        if number == "00013":
            done.receive("--count", "1")
    found = audit(done, status=1)
    assert table(found)["lost"] == 3, found
    for name in ("image_event_00011.jpg", "00013.jpg", "00015.jpg"):
        assert name in found.output
    assert table(audit(done, "--repair"))["mended"] == 3
    assert done.ids("images") == ["00011", "00012", "00013", "00014", "00015"]


@pytest.mark.slow
def test_the_first_event_of_a_new_kafka(pipeline: Pipeline) -> None:
    """It is judged by the file of the image before it, which no message tells of any more."""
    analysis = pipeline.start("image_analysis.py")
    pipeline.receive("--count", "4")
    analysis.says("00003  CHANGED")
    replace_kafka(pipeline)
    analysis = pipeline.start("image_analysis.py")
    pipeline.receive("--count", "1")
    analysis.says("00004  unchanged")
    (image,) = pipeline.records("images")
    assert table(audit(pipeline)) == {"images": 1, "not judged": 4}
    about = {"event_id": "00004", "image_id": "00004", "previous_image_id": "00003"}
    event = msgspec.json.encode(about | {"path": f"{EVENT}.txt"})
    producer = KafkaProducer(bootstrap_servers=pipeline.bootstrap_servers)
    headers = [("cause", sha256(image.value).digest())]
    producer.send("image-events", event, b"", headers=headers).get(10)
    producer.close()
    found = audit(pipeline, status=1)
    assert "no change explains it" in found.output


@pytest.mark.slow
def test_the_topic_of_the_images_was_deleted(done: Pipeline) -> None:
    """Images that this Kafka has decided have lost their messages, and that is said of each.

    They are not sent again: what came of them would come twice. Those of a source of which nothing
    was decided may be from before this Kafka: they are not judged.
    """
    done.started[1].stop()
    done.receive("--source", "cam1", "--count", "2")
    done.started[0].stop()
    delete_topic(done, "images")
    found = audit(done, "--repair", status=1)
    assert table(found) == {"lost": 11, "not judged": 2}, found
    for number in range(11):
        name = f"image_database/{number:05d}.jpg"
        assert f"lost    images: no message of {name}; not sent" in found.output
    images = "2 images, image_database/cam1-00000.jpg to image_database/cam1-00001.jpg, from before"
    assert images in found.output
    assert not done.records("images")


@pytest.mark.slow
def test_a_message_that_nothing_explains(done: Pipeline) -> None:
    """An event and an alert of another program, of no change, are named."""
    about = {"event_id": "00005", "image_id": "00005", "previous_image_id": "00004"}
    path = f"{EVENT}.txt"
    done.put("image-events", msgspec.json.encode(about | {"path": path}))
    done.started[0].says("00005  ALERT")
    found = audit(done, status=1)
    assert "image-events[" in found.output
    assert table(found)["wrong"] == 2


@pytest.mark.slow
def test_beside_a_working_pipeline(pipeline: Pipeline) -> None:
    """Audits one after the other find no fault, and send nothing, while images flow."""
    pipeline.start("image_event_alert.py")
    pipeline.start("image_analysis.py")
    receiving = pipeline.start("image_receiving.py", "--count", "1000")
    receiving.says("  received")
    count = 0
    while receiving.process.poll() is None:
        program = pipeline.command("audit", "--repair")
        assert program.ends() == 0, program
        assert "mended" not in table(program)
        count += 1
    assert count > 1
    pipeline.waits_for("alerts", 250)
    assert table(audit(pipeline)) == {
        "images": 1000,
        "true changes": 250,
        "events": 250,
        "alerts": 250,
    }
