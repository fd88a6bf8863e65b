"""Messages that Kafka deleted before a stage read them: the stage, `lag` and the audit say so."""

import signal
from collections.abc import Callable

import pytest
from conftest import Ended, Pipeline, Program
from kafka import KafkaAdminClient, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from test_audit import audit, replace_kafka, table


def delete_before(pipeline: Pipeline, record: ConsumerRecord) -> None:
    """Delete the messages in front of this one, as retention does."""
    admin = KafkaAdminClient(bootstrap_servers=pipeline.bootstrap_servers)
    admin.delete_records({TopicPartition(record.topic, record.partition): record.offset})
    admin.close()


def command(pipeline: Pipeline, name: str) -> Ended:
    """Run one of the commands to its end."""
    ended = pipeline.run_here(name)
    assert ended.status == 0, ended
    return ended


def gaps(program: Ended | Program) -> list[str]:
    """What a program said that it will never read."""
    return [line for line in program.lines if "Kafka deleted" in line]


@pytest.mark.slow
def test_deleted_while_the_analysis_was_off(pipeline: Pipeline) -> None:
    """The stage says what it misses, once, and goes on; the audit names the images, and sends them.

    `lag` says the same while the stage is off, and counts only what there is.
    """
    alert = pipeline.start("image_event_alert.py")
    analysis = pipeline.start("image_analysis.py")
    pipeline.receive("--count", "2")
    analysis.says("00001  unchanged")
    assert analysis.stop() == 0
    pipeline.receive("--count", "5")
    fifth = next(one for one in pipeline.records("images") if b'"00005"' in one.value)
    delete_before(pipeline, fifth)
    lag = command(pipeline, "lag")
    assert [line.split()[0] for line in gaps(lag)] == [f"images[{fifth.partition}]:"]
    assert int(lag.lines[1].split()[2]) == 2
    expired = {"images": 2, "not judged": 2, "waiting": 2, "expired": 3}
    assert table(audit(pipeline, status=1)) == expired

    analysis = pipeline.start("image_analysis.py")
    analysis.says("00006  unchanged")
    (line,) = gaps(analysis)
    assert line.startswith(f"images[{fifth.partition}]: Kafka deleted the offsets ")
    assert "before image_analysis read them (retention)" in line
    found = audit(pipeline, status=1)
    assert [line for line in found.lines if line.startswith("expired ")] == [
        f"expired  images: Kafka deleted the message of image_database/0000{number}.jpg before it "
        "was read"
        for number in (2, 3, 4)
    ]
    audit(pipeline, "--repair")
    alert.says("00003  ALERT")
    analysis.says("00004  unchanged")
    assert pipeline.ids("alerts") == ["00003"]
    well = {"images": 5, "true changes": 1, "events": 1, "alerts": 1, "not judged": 2}
    assert table(audit(pipeline)) == well
    assert gaps(analysis) == [line]
    assert not gaps(command(pipeline, "lag"))


@pytest.mark.slow
def test_a_source_that_was_never_analysed(pipeline: Pipeline) -> None:
    """Its images are named, and sent again in order: each is compared with the one before it."""
    alert = pipeline.start("image_event_alert.py")
    pipeline.receive("--source", "cam7", "--count", "9")
    sixth = next(one for one in pipeline.records("images") if b'"cam7-00005"' in one.value)
    delete_before(pipeline, sixth)
    analysis = pipeline.start("image_analysis.py")
    analysis.says("cam7-00008  unchanged")
    (line,) = gaps(analysis)
    assert "does not know whether image_analysis had read them" in line
    found = audit(pipeline, status=1)
    for number in range(5):
        assert f"image_database/cam7-0000{number}.jpg before it was read" in found.output
    assert table(found)["expired"] == 5
    audit(pipeline, "--repair")
    analysis.says("cam7-00004  unchanged")
    alert.says("cam7-00003  ALERT: image cam7-00003 differs from image cam7-00002")
    decided = [line.split()[0] for line in analysis.lines if line.startswith("cam7")]
    assert decided == [f"cam7-0000{number}" for number in (5, 6, 7, 8, 0, 1, 2, 3, 4)]
    assert pipeline.ids("alerts") == ["cam7-00003", "cam7-00007"]
    assert "expired" not in table(audit(pipeline))


def test_deleted_while_the_stage_runs(pipeline: Pipeline) -> None:
    """A stage that Kafka's retention overtakes says so, too, and goes on."""
    analysis = pipeline.start("image_analysis.py")
    pipeline.receive("--count", "1")
    analysis.says("00000  first image")
    analysis.process.send_signal(signal.SIGSTOP)  # as slow as can be
    try:
        pipeline.receive("--count", "1")
        pipeline.receive("--count", "600")
        record = next(one for one in pipeline.records("images") if b'"00550"' in one.value)
        delete_before(pipeline, record)
    finally:
        analysis.process.send_signal(signal.SIGCONT)
    analysis.says("00601  ")
    assert gaps(analysis)  # twice, if the group gave it up meanwhile: it joins from its last commit
    found = audit(pipeline, status=1)
    assert table(found)["expired"] > 300


@pytest.mark.slow
def test_what_was_read_is_not_missed(pipeline: Pipeline) -> None:
    """When all that there was is read and deleted, a stage that starts again misses nothing."""
    alert = pipeline.start("image_event_alert.py")
    analysis = pipeline.start("image_analysis.py")
    pipeline.receive()
    alert.says("00007  ALERT")
    analysis.says("00010  unchanged")
    for stage in (alert, analysis):
        assert stage.stop() == 0
    for topic in ("images", "image-events"):
        last = pipeline.records(topic)[-1]
        delete_before(pipeline, last._replace(offset=-1))  # all that there is
    stages = [pipeline.start("image_event_alert.py"), pipeline.start("image_analysis.py")]
    pipeline.receive("--count", "1")
    stages[0].says("00011  ALERT")
    assert not any(map(gaps, stages))
    well = {"images": 1, "true changes": 1, "events": 1, "alerts": 1, "not judged": 11}
    assert table(audit(pipeline)) == well


def miss_an_event(pipeline: Pipeline) -> Program:
    """Let Kafka delete the event 00007 while the alert program, which is given back, is off."""
    alert = pipeline.start("image_event_alert.py")
    analysis = pipeline.start("image_analysis.py")
    pipeline.receive("--count", "4")
    alert.says("00003  ALERT")
    assert alert.stop() == 0
    pipeline.receive("--count", "8")
    analysis.says("00011  CHANGED")
    last = next(one for one in pipeline.records("image-events") if b'"00011"' in one.value)
    delete_before(pipeline, last)
    alert = pipeline.start("image_event_alert.py")
    alert.says("00011  ALERT")
    assert len(gaps(alert)) == 1
    return alert


@pytest.mark.slow
def test_events_that_were_deleted_before_their_alert(pipeline: Pipeline) -> None:
    """The alert program says so; the audit names the event, and sends it again."""
    alert = miss_an_event(pipeline)
    found = audit(pipeline, status=1)
    assert table(found)["expired"] == 1
    assert "Kafka deleted the event 00007 before its alert" in found.output
    audit(pipeline, "--repair")
    alert.says("00007  ALERT")
    assert pipeline.ids("alerts") == ["00003", "00007", "00011"]
    assert "expired" not in table(audit(pipeline))


@pytest.mark.slow
def test_events_that_were_deleted_with_their_images(pipeline: Pipeline) -> None:
    """The audit names an event without an alert by its file, also where its image is gone."""
    miss_an_event(pipeline)
    last = next(one for one in pipeline.records("images") if b'"00011"' in one.value)
    delete_before(pipeline, last)
    found = audit(pipeline, status=1)
    assert table(found)["expired"] == 1
    assert "Kafka deleted the event 00007 before its alert" in found.output


@pytest.mark.slow
def test_deleted_in_a_kafka_that_replaced_another(pipeline: Pipeline) -> None:
    """Images from before it are no fault and not sent, though it deleted some that were read."""
    pipeline.receive("--count", "3")
    replace_kafka(pipeline)
    analysis = pipeline.start("image_analysis.py")
    pipeline.receive("--count", "3")
    analysis.says("00005  unchanged")
    delete_before(pipeline, pipeline.records("images")[-1])
    found = audit(pipeline, "--repair")
    assert table(found)["not judged"] == 5
    assert "3 images, image_database/00000.jpg to image_database/00002.jpg, whose" in found.output
    assert "mended" not in table(found)
    assert pipeline.ids("images") == ["00005"]


def forget_decisions(pipeline: Pipeline) -> None:
    """Let Kafka delete what was decided, too."""
    for topic in ("images-without-event", "image-events"):
        for record in pipeline.records(topic)[-1:]:
            delete_before(pipeline, record._replace(offset=-1))


def keep_decisions(pipeline: Pipeline) -> None:
    """Do nothing."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("forget", "words"),
    [
        (keep_decisions, "whose messages Kafka deleted (retention), after they were decided"),
        (forget_decisions, "whether they had been read can't be known any more"),
    ],
)
def test_what_cannot_be_known(
    pipeline: Pipeline, forget: Callable[[Pipeline], None], words: str
) -> None:
    """Of images whose decisions Kafka deleted as well, the audit says that nobody can know."""
    analysis = pipeline.start("image_analysis.py")
    pipeline.receive("--count", "3")
    analysis.says("00002  unchanged")
    last = pipeline.records("images")[-1]
    delete_before(pipeline, last)
    forget(pipeline)
    found = audit(pipeline)
    assert "2 images, image_database/00000.jpg to image_database/00001.jpg" in found.output
    assert words in found.output
    assert table(found)["not judged"] == 2
    assert table(found)["images"] == 1


@pytest.mark.slow
def test_deleted_unread_and_no_decision_is_left(pipeline: Pipeline) -> None:
    """The offset that the analysis has come to says that something is missing, if not what."""
    analysis = pipeline.start("image_analysis.py")
    pipeline.receive("--count", "2")
    analysis.says("00001  unchanged")
    assert analysis.stop() == 0
    pipeline.receive("--count", "3")
    last = pipeline.records("images")[-1]
    delete_before(pipeline, last)
    forget_decisions(pipeline)
    found = audit(pipeline, status=1)
    (line,) = [one for one in found.lines if one.startswith("expired ")]
    assert line.startswith(f"expired  images[{last.partition}]: Kafka deleted the offsets ")
    assert line.endswith("nothing says of which images")
    assert table(found)["not judged"] == 4
