"""What can't be used is set aside with its reason, and the next one goes on."""

import hashlib
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from conftest import Pipeline, until
from kafka import KafkaProducer
from kafka.consumer.fetcher import ConsumerRecord
from PIL import Image

GOOD = {"image_id": "00000", "source": "", "number": 0, "path": "image_database/00000.jpg"}


def message(**fields: object) -> bytes:
    """An `images` message with the fields that the contract fixes, some of them changed."""
    return msgspec.json.encode(GOOD | fields)


def header(record: ConsumerRecord, name: str) -> str:
    """What a dead letter says about where it comes from and why."""
    value = dict(record.headers)[f"__connect.errors.{name}"]
    assert isinstance(value, bytes)
    return value.decode()


@pytest.fixture
def analysis(pipeline: Pipeline) -> Pipeline:
    """A pipeline in which only the analysis runs, and image 00000 is stored."""
    original = (pipeline.data / "image_original" / "original_image.jpg").read_bytes()
    (pipeline.data / "image_database" / "00000.jpg").write_bytes(original)
    pipeline.start("image_analysis.py")
    return pipeline


NONSENSE: list[tuple[bytes | None, str]] = [
    (b"", "it ends too early"),
    (None, "no value"),
    (b"\xff\xfe rubbish", "it is no JSON from byte 0 on"),
    (b'{"image_id": "00000"', "it ends too early"),
    (b"[" * 100_000, "no ReceivedImage"),
    (b"[]", "object"),
    (b"{}", "image_id"),
    (message(number="0"), "number"),
    (message(number=-1), "number"),
    (message(number=1), "'00000' is not that of"),
    (message(source="cam1"), "'00000' is not that of"),
    (message(source="Cam/1"), "source"),
    (message(image_id="../00000"), "image_id"),
    (message(image_id="00000\n"), "image_id"),
    (message(path="image_database/00009.jpg"), "can't be read: No such file"),
    (message(path="image_database"), "can't be read: Is a directory"),
    (message(path="image_database/" + "a" * 300), "can't be read: File name too long"),
    (message(path="image_database/\x1b[31mred"), "path has characters"),
    (message(path="/etc/hostname"), "not in image_database"),
    (message(path="image_database/../../x.jpg"), "not in image_database"),
    (message(path="image_original/original_image.jpg"), "not in image_database"),
    (message(path="image_database/a\0b"), "path has characters"),
    (message(received="0001-01-01T00:00:00+23:00"), "in no calendar"),
    (message(received="9999-12-31T23:59:59-23:00"), "in no calendar"),
    (message(sha256="0" * 64), "has other bytes"),
]


def test_a_message_that_makes_no_sense(analysis: Pipeline) -> None:
    """It goes to the dead letters as it came and says why, and the next message is analysed."""
    for number, (value, _) in enumerate(NONSENSE):
        analysis.put("images", value, key=f"key {number}".encode())
    analysis.put("images", message())
    stage = analysis.started[0]
    stage.says(r"^00000  first image")
    letters = {record.key: record for record in analysis.waits_for("dead-letters", len(NONSENSE))}
    assert "Traceback" not in stage.output
    records = {record.key: record for record in analysis.records("images")}
    for number, (value, reason) in enumerate(NONSENSE):
        letter, record = (found[f"key {number}".encode()] for found in (letters, records))
        assert letter.value == value
        assert header(letter, "topic") == "images"
        assert header(letter, "partition") == str(record.partition)
        assert header(letter, "offset") == str(record.offset)
        assert header(letter, "stage") == "image_analysis"
        assert reason in header(letter, "exception.message"), value
    assert "\x1b" not in stage.output
    until(
        lambda: sum(line.startswith("set aside  ") for line in stage.lines) == len(NONSENSE),
        "a line for each",
    )


def rubbish(path: Path) -> None:
    path.write_bytes(b"this is no image")


def truncated(path: Path) -> None:
    path.write_bytes(path.with_name("00000.jpg").read_bytes()[:100_000])


def link(path: Path) -> None:
    path.symlink_to("/etc/hostname")


def loop(path: Path) -> None:
    path.symlink_to(path)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def empty(path: Path) -> None:
    path.touch()


@pytest.mark.parametrize("make", [rubbish, truncated, link, loop, pipe, empty])
def test_a_file_that_is_no_image(analysis: Pipeline, make: object) -> None:
    """It is set aside, and the image after it is compared with the one before it."""
    assert callable(make)
    make(analysis.data / "image_database" / "00001.jpg")
    original = (analysis.data / "image_database" / "00000.jpg").read_bytes()
    (analysis.data / "image_database" / "00002.jpg").write_bytes(original)
    for number in range(3):
        name = f"{number:05d}"
        path = f"image_database/{name}.jpg"
        analysis.put("images", message(image_id=name, number=number, path=path))
    analysis.started[0].says("^00002  unchanged")
    (letter,) = analysis.records("dead-letters")
    assert b"00001" in letter.value
    assert "image_database/00001.jpg" in header(letter, "exception.message")


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_compressed_messages(analysis: Pipeline, codec: str) -> None:
    """Other programs may compress as Kafka allows."""
    analysis.wait_for_topics()
    producer = KafkaProducer(bootstrap_servers=analysis.bootstrap_servers, compression_type=codec)
    producer.send("images", message(), b"").get(10)
    producer.close()
    analysis.started[0].says("00000  first image")


def test_what_a_reset_took_away_is_set_aside(pipeline: Pipeline) -> None:
    """Messages from before a reset aren't analysed with the files from after it."""
    pipeline.receive("--count", "5")
    for path in (pipeline.data / "image_database").iterdir():
        path.unlink()
    pipeline.receive("--count", "3")
    stage = pipeline.start("image_analysis.py")
    stage.says("00002  unchanged")
    pipeline.waits_for("dead-letters", 2)
    stage.says("00004.jpg' can't be read")


def test_a_time_that_no_calendar_has(analysis: Pipeline) -> None:
    """A record that a clock dates before the year 1 counts from its arrival on."""
    path = "image_database/00001.jpg"
    Image.new("RGB", (9, 9)).save(analysis.data / path)
    analysis.wait_for_topics()
    producer = KafkaProducer(bootstrap_servers=analysis.bootstrap_servers)
    for topic in ("images", "dead-letters"):
        producer.send(topic, b"rubbish", timestamp_ms=-(10**16)).get(10)
    value = message(image_id="00001", number=1, path=path)
    producer.send("images", value, b"", timestamp_ms=-(10**16)).get(10)
    producer.close()
    (event,) = analysis.waits_for("image-events", 1)
    received = datetime.fromisoformat(json.loads(event.value)["received"])
    assert abs(datetime.now(UTC) - received) < timedelta(hours=1)
    analysis.waits_for("dead-letters", 2)
    assert command(analysis)[-1].startswith("2 dead letters")


def test_the_alert_sets_aside_too(pipeline: Pipeline) -> None:
    """An image event without its description, or with another one, is no alert."""
    stage = pipeline.start("image_event_alert.py")
    text = b"Image event: 00003\n"
    (pipeline.data / "image_event_database" / "image_event_00003.txt").write_bytes(text)
    event = {
        "event_id": "00003",
        "image_id": "00003",
        "previous_image_id": "00002",
        "path": "image_event_database/image_event_00003.txt",
    }
    for fields in (
        {"path": "image_event_database/none.txt"},
        {"path": "image_database/00003.jpg"},
        {"event_id": "00004"},
        {"sha256": hashlib.sha256(b"other").hexdigest()},
        {},
    ):
        pipeline.put("image-events", msgspec.json.encode(event | fields))
    stage.says("^00003  ALERT")
    assert len(pipeline.records("dead-letters")) == 4
    assert pipeline.ids("alerts") == ["00003"]


def test_a_record_as_large_as_kafka_takes(pipeline: Pipeline) -> None:
    """There is room for the headers too, whether it compresses or not."""
    stage = pipeline.start("image_analysis.py")
    large = b"x" * (2**20 - 200)
    pipeline.put("images", large)
    pipeline.put("images", os.urandom(2**20 - 200), key=None)
    letters = pipeline.waits_for("dead-letters", 2)
    assert large in [letter.value for letter in letters]
    assert stage.stop() == 0


def test_a_record_that_is_too_large_to_set_aside(analysis: Pipeline) -> None:
    """A dead letter says where it is; what compresses well is larger than it looks to Kafka."""
    analysis.wait_for_topics()
    producer = KafkaProducer(
        bootstrap_servers=analysis.bootstrap_servers,
        compression_type="zstd",
        max_request_size=2**26,
    )
    block = os.urandom(2**19)  # gzip doesn't see that it comes again and again
    producer.send("images", 6 * block, b"").get(10)
    producer.send("images", b"x" * 2**25, b"").get(10)
    producer.send("images", b"", os.urandom(2**20 - 200)).get(10)  # twice in a dead letter
    producer.send("images", message(), b"").get(10)
    producer.close()
    analysis.started[0].says("00000  first image")
    letters = analysis.waits_for("dead-letters", 3)
    assert [letter.value for letter in letters] == [b"", b"", b""]
    assert all("is left where it is" in header(one, "exception.message") for one in letters)


class NotUtf8(str):
    """A header's name that kafka-python sends as bytes that no client of its own can read."""

    def encode(self, *_: str) -> bytes:
        """The same for all."""
        return b"\xff\xfe"


def test_a_record_that_cannot_be_read(analysis: Pipeline) -> None:
    """Each is set aside once, by where it is, and the records after it are analysed."""
    analysis.wait_for_topics()
    producer = KafkaProducer(bootstrap_servers=analysis.bootstrap_servers)
    for _ in range(2):
        producer.send("images", message(), b"", [(NotUtf8("name"), b"")]).get(10)
    producer.close()
    analysis.put("images", message())
    analysis.started[0].says("00000  first image")
    letters = analysis.records("dead-letters")
    assert sorted(header(letter, "offset") for letter in letters) == ["0", "1"]
    assert all("can't be read" in header(letter, "exception.message") for letter in letters)
    # Who begins behind them, and reads what was before, goes past them too.
    analysis.started[0].process.kill()
    analysis.put("images", message(sha256="0" * 64))
    analysis.start("image_analysis.py").says("has other bytes")


def command(pipeline: Pipeline, *arguments: str, status: int = 0) -> list[str]:
    """What `python -m pipeline dead-letters` prints."""
    program = pipeline.command("dead-letters", *arguments)
    assert program.ends() == status, program
    assert "Traceback" not in program.output
    return program.lines


@pytest.mark.slow
def test_a_dead_letter_is_sent_back_after_a_fix(analysis: Pipeline) -> None:
    """It is listed, becomes what it should have been at first, and can't be sent twice."""
    path = "image_database/00001.jpg"
    analysis.wait_for_topics()
    producer = KafkaProducer(bootstrap_servers=analysis.bootstrap_servers)
    value = message(image_id="00001", number=1, path=path)
    headers = [("origin", b"camera 7"), ("cause", b"\x1b\xff" * 16)]
    producer.send("images", value, b"", headers).get(10)
    producer.close()
    (letter,) = analysis.waits_for("dead-letters", 1)
    name = f"{letter.partition}:{letter.offset}"
    assert header(letter, "key") == ""
    datetime.strptime(header(letter, "time"), "%Y-%m-%dT%H:%M:%SZ").astimezone()
    (line, count) = command(analysis)
    assert line.startswith(f"{name}  {header(letter, 'time')}  image_analysis  images[")
    assert line.endswith("No such file or directory")
    assert count == "1 dead letter, 0 sent back"
    shown = "\n".join(command(analysis, "show", name))
    assert "origin: camera 7" in shown
    assert f"cause: {'1bff' * 16}" in shown
    assert value.decode() in shown

    Image.new("RGB", (9, 9)).save(analysis.data / path)
    assert command(analysis, "send", name) == [f"{name}  sent back to images", "1 sent back"]
    analysis.started[0].says("00001  CHANGED")
    (event,) = analysis.waits_for("image-events", 1)
    assert b"00001" in event.value
    (again,) = (
        one
        for one in analysis.records("images")
        if ("origin", b"camera 7") in one.headers and ("dead-letter", name.encode()) in one.headers
    )
    assert (again.key, again.value, len(again.headers)) == (b"", value, 3)
    assert command(analysis)[0].endswith("(sent back)")
    assert "was sent back already" in command(analysis, "send", name, status=1)[-1]
    assert command(analysis, "send", "--all") == ["0 sent back"]
    assert analysis.ids("image-events") == ["00001"]


@pytest.mark.slow
def test_a_poison_message_sent_back_costs_one_attempt(analysis: Pipeline) -> None:
    """Each time that it is sent back without a fix it makes one new dead letter."""
    analysis.put("images", b"poison", b"key")
    for count in (1, 2, 3):
        assert len(analysis.waits_for("dead-letters", count)) == count
        assert command(analysis, "send", "--all")[-1] == "1 sent back"
    letters = analysis.waits_for("dead-letters", 4)
    assert [(one.key, one.value) for one in letters] == [(b"key", b"poison")] * 4
    # Only the last dead letter of a record says that it was sent back, and only the last time.
    assert max(sum(name == "dead-letter" for name, _ in one.headers) for one in letters) == 1


@pytest.mark.slow
def test_letters_that_cannot_be_sent(analysis: Pipeline) -> None:
    """What doesn't say where it belongs, or says another topic, stays; and all stay with it."""
    analysis.put("images", b"poison")
    (ours,) = analysis.waits_for("dead-letters", 1)
    producer = KafkaProducer(bootstrap_servers=analysis.bootstrap_servers)
    forged = [
        (f"__connect.errors.{name}", value)
        for name, value in {
            "topic": b"alerts",
            "partition": b"x",
            "offset": b"-1",
            "stage": b"\xff",
        }.items()
    ]
    names = []
    for headers in ([], forged, [("\x1b[31m", b"\x1b[31m")]):
        sent = producer.send("dead-letters", b"\x1b[31mred", b"", headers, partition=0).get(10)
        names.append(f"0:{sent.offset}")
    producer.close()
    assert "\x1b" not in "\n".join(command(analysis))
    assert "\x1b" not in "\n".join(command(analysis, "show", *names))
    ids = f"{ours.partition}:{ours.offset}"
    for name in names:
        assert "not from our stages" in command(analysis, "send", ids, name, status=1)[-1]
    assert "no dead letter 3:99" in command(analysis, "send", ids, "3:99", status=1)[-1]
    assert command(analysis, "send", "--all")[-1] == "1 sent back"


def test_a_file_that_receiving_set_aside(analysis: Pipeline) -> None:
    """It is listed with its path and reason, and can't be sent: it never was a message."""
    analysis.wait_for_topics()
    producer = KafkaProducer(bootstrap_servers=analysis.bootstrap_servers)
    headers = {"stage": b"image_receiving", "exception.message": b"it is no image"}
    named = [(f"__connect.errors.{name}", value) for name, value in headers.items()]
    sent = producer.send("dead-letters", b"/camera/\x1b[31m7.jpg", b"", named).get(10)
    producer.close()
    name = f"{sent.partition}:{sent.offset}"
    (line, _) = command(analysis)
    assert line.startswith(f"{name}  ")
    assert line.endswith("  image_receiving  file /camera/\\x1b[31m7.jpg  it is no image")
    (refusal,) = command(analysis, "send", name, status=1)
    assert refusal == f"{name} is a file: give the file to image_receiving.py again"
    assert command(analysis, "send", "--all") == ["0 sent back"]


@pytest.mark.parametrize(
    "arguments",
    [["send"], ["send", "0:0", "--all"], ["send", "zero"], ["show"], ["burn"], ["list", "0:0"]],
)
def test_commands_that_make_no_sense(pipeline: Pipeline, arguments: list[str]) -> None:
    """One line and exit 2."""
    assert len(command(pipeline, *arguments, status=2)) == 1
