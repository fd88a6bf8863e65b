"""Recipients are told by real servers' channels, whatever these servers and the copies do."""

import io
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from conftest import HERE, TOPICS, Pipeline, Program, until
from kafka import KafkaProducer
from mail_server import PASSWORD, USER, MailServer, WebServer
from PIL import Image

import embedded_kafka
from pipeline.messages import image_id

# The mail server says so, since it is asked for a password in clear.
pytestmark = pytest.mark.filterwarnings("ignore:Requiring AUTH:UserWarning")


@pytest.fixture
def mail() -> Iterator[MailServer]:
    """A mail server."""
    server = MailServer()
    yield server
    server.close()


@pytest.fixture
def web() -> Iterator[WebServer]:
    """A web server."""
    server = WebServer()
    yield server
    server.close()


def start(pipeline: Pipeline, *arguments: str, **tables: str) -> Program:
    """Start image_event_alert.py with these recipients, if any are given."""
    if tables:
        text = "\n".join(f"[{name}]\n{table}" for name, table in tables.items())
        (pipeline.data / "recipients.toml").write_text(text)
    secrets = {"MAIL_USER": USER, "MAIL_PASSWORD": PASSWORD}
    return pipeline.start("image_event_alert.py", *arguments, **secrets)


def put_event(pipeline: Pipeline, *names: str, **fields: object) -> None:
    """Events of another program, each with a description and nothing else."""
    pipeline.wait_for_topics()
    path = "image_event_database/image_event.txt"
    (pipeline.data / path).write_text("Something happened\n")
    producer = KafkaProducer(bootstrap_servers=pipeline.bootstrap_servers)
    for name in names:
        source, _, number = name.rpartition("-")
        previous = image_id(source, int(number) - 1)
        event = {"event_id": name, "image_id": name, "previous_image_id": previous, "path": path}
        producer.send("image-events", msgspec.json.encode(event | fields), source.encode())
    producer.close()


def notices(pipeline: Pipeline) -> list[dict[str, Any]]:
    """What is in `notifications`."""
    return [msgspec.json.decode(one.value) for one in pipeline.records("notifications")]


def told(pipeline: Pipeline, outcome: str = "sent") -> list[list[str]]:
    """The ids of each message of which `notifications` says that it was sent, or given up."""
    return [one["event_ids"] for one in notices(pipeline) if one.get("outcome") == outcome]


def command(pipeline: Pipeline, *arguments: str, status: int = 0) -> list[str]:
    """What one of the commands prints."""
    program = pipeline.command(*arguments)
    assert program.ends() == status, program
    assert "Traceback" not in program.output
    return program.lines


@pytest.mark.slow
def test_a_mail_with_three_pictures(pipeline: Pipeline, mail: MailServer) -> None:
    """Each event is one mail: its title, the alert's text, three pictures that open."""
    pipeline.start("image_analysis.py")
    alert = start(pipeline, night=f'url = "{mail.url("night@example.org")}"')
    pipeline.receive("--count", "4")
    alert.says("^00003  told night")
    (one,) = mail.mails
    assert one["Subject"] == "Image 00003 differs from image 00002"
    assert "night@example.org" in one["To"]
    text = one.get_body()
    assert text
    written = (pipeline.data / "image_event_alerts" / "image_event_alert_00003.txt").read_text()
    assert text.get_content().split() == written.split()
    pictures = {part.get_filename(): part.get_content() for part in one.iter_attachments()}
    for directory, name in (
        ("image_database", "00003.jpg"),
        ("image_database", "00002.jpg"),
        ("image_event_database", "image_event_00003.jpg"),
    ):
        assert pictures[name] == (pipeline.data / directory / name).read_bytes()
        Image.open(io.BytesIO(pictures[name])).load()
    assert len(pictures) == 3
    assert told(pipeline) == [["00003"]]
    assert alert.stop() == 0
    assert PASSWORD not in alert.output
    assert not re.search("Traceback|mailto", alert.output)


@pytest.mark.slow
def test_only_who_wants_it(pipeline: Pipeline, web: WebServer) -> None:
    """Each recipient gets what it wants, where `alerts` has all; the topic's key is who it is."""
    alert = start(
        pipeline,
        one=f'url = "{web.url("one")}"\nsources = ["cam1"]',
        two=f'url = "{web.url("two")}"\nleast_rms = 5',
    )
    put_event(pipeline, "cam1-00001", rms=1)
    put_event(pipeline, "cam2-00002", rms=9)
    alert.says("^cam1-00001  told one")
    alert.says("^cam2-00002  told two")
    assert pipeline.ids("alerts") == ["cam1-00001", "cam2-00002"]
    assert len(web.got) == 2
    assert {one.key for one in pipeline.records("notifications")} == {b"one", b"two"}


@pytest.mark.slow
def test_nobody_to_tell(pipeline: Pipeline) -> None:
    """Without a file, and with an empty one, there are alerts and no notifications, as ever."""
    alert = start(pipeline)
    put_event(pipeline, "00001")
    alert.says("^00001  ALERT")
    assert alert.stop() == 0
    (pipeline.data / "recipients.toml").touch()
    again = start(pipeline)
    put_event(pipeline, "00002")
    again.says("^00002  ALERT")
    assert "recipients.toml has no table for a recipient" in again.output
    assert notices(pipeline) == []
    assert "tells" not in f"{alert}{again}"


@pytest.mark.slow
@pytest.mark.parametrize("does", ["refuse", "drop"])
def test_servers_that_fail(pipeline: Pipeline, mail: MailServer, web: WebServer, does: str) -> None:
    """Each is tried again with growing pauses, says why, and is told once when it works."""
    mail.does = web.does = does
    alert = start(
        pipeline,
        mail=f'url = "{mail.url("night@example.org")}"',
        web=f'url = "{web.url("secret-path")}"',
        wrong=f'url = "{mail.url("night@example.org").replace("MAIL_PASSWORD", "MAIL_USER")}"',
    )
    put_event(pipeline, "00001")
    alert.says("^00001  wrong could not be told .*535.*; trying again in 1 s")
    for name in ("mail", "web"):
        alert.says(f"^00001  {name} could not be told .*; trying again in 1 s")
        alert.says(f"^00001  {name} could not be told .*; trying again in 2 s")
    mail.does = web.does = "take"
    for name in ("mail", "web"):
        alert.says(f"^00001  told {name}")
    assert (len(mail.mails), len(web.got)) == (1, 1)
    assert len(told(pipeline)) == 2
    assert pipeline.records("dead-letters") == []
    assert alert.stop() == 0
    assert not re.search("Traceback|secret-path|example.org|mailto", alert.output)
    assert PASSWORD not in alert.output


@pytest.mark.slow
def test_a_server_that_stalls(pipeline: Pipeline, mail: MailServer, web: WebServer) -> None:
    """It holds up neither other recipients, nor alerts, nor the end of the program."""
    mail.does = "stall"
    alert = start(
        pipeline,
        mail=f'url = "{mail.url("night@example.org")}"',
        web=f'url = "{web.url()}"',
    )
    put_event(pipeline, "00001")
    until(lambda: mail.tries, "the mail server's silence")
    put_event(pipeline, "00002", "00003")
    alert.says("^00003  ALERT")
    alert.says("^00003  told web")
    assert alert.stop() == 0
    assert "told mail" not in alert.output
    mail.does = "take"
    start(pipeline).says("^00003  told mail")
    assert [one["Subject"][:11] for one in mail.mails] == [
        "Image 00001",
        "Image 00002",
        "Image 00003",
    ]


@pytest.mark.slow
def test_what_is_being_sent_is_recorded_at_the_end(pipeline: Pipeline, web: WebServer) -> None:
    """An answer that comes while the program ends counts, and the next start sends nothing."""
    web.does = "stall"
    alert = start(pipeline, night=f'url = "{web.url()}"')
    put_event(pipeline, "00001")
    until(lambda: web.tries, "the web server's silence")
    alert.process.send_signal(signal.SIGTERM)
    web.take()
    assert alert.ends(5) == 0
    assert told(pipeline) == [["00001"]]
    again = start(pipeline)
    put_event(pipeline, "00002")
    again.says("^00002  told night")
    assert [one["title"][:11] for one in web.got] == ["Image 00001", "Image 00002"]


def test_killed_between_sending_and_recording(pipeline: Pipeline, web: WebServer) -> None:
    """Who is killed there tells once more at most, and never again once it is recorded."""
    web.does = "stall"
    alert = start(pipeline, night=f'url = "{web.url()}"')
    put_event(pipeline, "00001")
    until(lambda: web.tries, "the web server's silence")
    alert.process.kill()
    alert.ends()
    web.take()
    for _ in range(2):
        again = start(pipeline)
        until(lambda: told(pipeline) == [["00001"]], "the record")
        again.process.kill()
        again.ends()
    last = start(pipeline)
    put_event(pipeline, "00002")
    last.says("^00002  told night")
    assert web.tries == 3
    assert told(pipeline) == [["00001"], ["00002"]]


@pytest.mark.slow
def test_two_copies_that_come_and_go(pipeline: Pipeline, web: WebServer) -> None:
    """Whichever copy has a recipient, it is told of each event once."""
    people = [f"person{number}" for number in range(12)]
    tables = {name: f'url = "{web.url(name)}"' for name in people}
    copies = [start(pipeline, **tables), start(pipeline)]
    for number in range(1, 21):
        put_event(pipeline, f"{number:05d}")
        if number % 8 == 0:
            copies.pop(0).stop()
            copies.append(start(pipeline))
    until(lambda: len(told(pipeline)) >= 240, "all told")
    assert len(web.got) == len(told(pipeline)) == 240
    assert all("Traceback" not in program.output for program in pipeline.started)


@pytest.mark.slow
def test_a_copy_that_freezes(pipeline: Pipeline, web: WebServer) -> None:
    """Another one takes over, and once thawed it tells nobody of what the other one has told."""
    people = {f"person{number}": f'url = "{web.url()}"' for number in range(6)}
    frozen = start(pipeline, **people)
    put_event(pipeline, "00001")
    until(lambda: len(told(pipeline)) == 6, "the first event")
    other = start(pipeline)
    put_event(pipeline, "00002")
    until(lambda: len(told(pipeline)) == 12, "the second event")
    web.does = "refuse"
    put_event(pipeline, "00003")
    until(lambda: web.tries >= 18, "refused attempts")
    frozen.process.send_signal(signal.SIGSTOP)
    web.does = "take"
    put_event(pipeline, "00004")
    until(lambda: len(told(pipeline)) == 24, "all told by the other one")
    frozen.process.send_signal(signal.SIGCONT)
    put_event(pipeline, "00005")
    until(lambda: len(told(pipeline)) == 30, "all told of the last one")
    assert len(web.got) == 30
    assert (frozen.stop(), other.stop()) == (0, 0)


def test_given_up_and_sent_again(pipeline: Pipeline, web: WebServer) -> None:
    """What can't be sent in time is a dead letter with the reason; sent back, it is told."""
    web.does = "refuse"
    alert = start(pipeline, night=f'url = "{web.url()}"\ngive_up_after = 1')
    put_event(pipeline, "00001")
    alert.says("^00001  given up, and set aside: night could not be told in 1 s: .*answered 503")
    (letter,) = pipeline.waits_for("dead-letters", 1)
    (notification,) = (
        one for one in pipeline.records("notifications") if b'"to tell"' in one.value
    )
    assert (letter.key, letter.value) == (b"night", notification.value)
    headers = {name.removeprefix("__connect.errors."): value for name, value in letter.headers}
    assert headers["topic"] == b"notifications"
    assert headers["partition"] == str(notification.partition).encode()
    assert headers["offset"] == str(notification.offset).encode()
    assert headers["stage"] == b"image_event_alert"
    assert b"the server answered 503" in headers["exception.message"]
    assert told(pipeline, "given up") == [["00001"]]
    assert "given up  00001" in command(pipeline, "notifications")[0]

    web.does = "take"
    name = f"{letter.partition}:{letter.offset}"
    (sent, _) = command(pipeline, "dead-letters", "send", name)
    assert sent == f"{name}  sent back to notifications"
    alert.says("^00001  told night")
    assert alert.stop() == 0
    again = start(pipeline)
    put_event(pipeline, "00002")
    again.says("^00002  told night")
    assert len(web.got) == 2
    lines = command(pipeline, "notifications")
    assert [re.split("  +", line)[2:] for line in lines[:-1]] == [
        ["given up", "00001"],
        ["sent", "00001"],
        ["sent", "00002"],
    ]
    assert lines[-1] == "1 recipient: 2 sent, 1 given up, 0 waiting"


@pytest.mark.slow
def test_a_dead_channel_is_given_up_for_all(pipeline: Pipeline, web: WebServer) -> None:
    """What has waited behind a failing message as long isn't tried for as long once more."""
    web.does = "refuse"
    alert = start(pipeline, night=f'url = "{web.url()}"\ngive_up_after = 3')
    put_event(pipeline, *(f"{number:05d}" for number in range(1, 31)))
    pipeline.waits_for("dead-letters", 30)
    assert len(told(pipeline, "given up")) == 30
    assert alert.stop() == 0


@pytest.mark.slow
def test_thousands_at_once(pipeline: Pipeline, web: WebServer) -> None:
    """With a digest or a cool-down they are a few messages, each of which lists some.

    How many depends on how many alerts the machine makes in the 8 seconds.
    """
    alert = start(
        pipeline,
        digest=f'url = "{web.url()}"\ndigest = 8',
        cool=f'url = "{web.url()}"\ncool_down = 8',
    )
    put_event(
        pipeline, *(f"{number:05d}" for number in range(1, 2001)), received="2026-01-01T00:00:00Z"
    )
    alert.says(r"^00001, 00002 and \d+ more  told digest")
    until(lambda: sum(map(len, told(pipeline))) == 4000, "all told")
    assert len(web.got) <= 20
    numbers = [int(one["title"].split()[0]) for one in web.got if "image events" in one["title"]]
    most = max(numbers)
    assert most > 200
    digest = next(one for one in web.got if one["title"] == f"{most} image events")
    lines = digest["message"].splitlines()
    assert lines[0] == f"{most} image events:"
    assert lines[1].endswith("  2026-01-01 00:00:00 UTC")
    assert f"and {most - 20} more" in digest["message"]
    assert len(lines) < 30


@pytest.mark.slow
def test_pictures_that_are_gone(pipeline: Pipeline, web: WebServer) -> None:
    """After a reset the recipient is told without them, and of that; no other file is sent."""
    pipeline.start("image_analysis.py")
    web.does = "refuse"
    alert = start(pipeline, night=f'url = "{web.url()}"')
    pipeline.receive("--count", "4")
    alert.says("^00003  night could not be told")
    for directory in ("image_database", "image_event_alerts"):
        for path in (pipeline.data / directory).iterdir():
            path.unlink()
    (pipeline.data / "image_event_database" / "image_event_00003.jpg").write_bytes(b"another")
    web.does = "take"
    alert.says("^00003  told night")
    (one,) = web.got
    assert one["attachments"] == []
    assert (
        "Not attached: image_event_database/image_event_00003.jpg has other bytes" in one["message"]
    )
    assert "00002.jpg' can't be read: No such file" in one["message"]
    assert "The alert is gone" in one["message"]


def test_a_hostile_name(pipeline: Pipeline, mail: MailServer) -> None:
    """A picture's name can't end its place in a mail's header, nor begin another one."""
    path = 'image_database/a"; filename="evil.exe'
    (pipeline.data / path).write_bytes(b"picture")
    alert = start(pipeline, night=f'url = "{mail.url("night@example.org")}"')
    put_event(pipeline, "00001", image_path=path, previous_image_path=path)
    alert.says("^00001  told night")
    (picture,) = mail.mails[0].iter_attachments()
    assert picture.get_filename() == "a___filename__evil.exe"
    assert picture.get_content() == b"picture"


@pytest.mark.slow
def test_hostile_notifications(pipeline: Pipeline, web: WebServer) -> None:
    """Rubbish is left and said; no path leads out; nothing steers a terminal; the rest is told."""
    alert = start(pipeline, night=f'url = "{web.url()}"')
    event = {
        "event_id": "00001",
        "image_id": "00001",
        "previous_image_id": "00000",
        "path": "image_event_database/x\u202e.txt",
        "image_path": "/etc/hostname",
        "previous_image_path": "image_database/../../../etc/passwd",
        "difference_path": "image_event_database/../image_original/original_image.jpg",
    }
    notification = {
        "type": "to tell",
        "recipient": "night",
        "event": event,
        "alert_path": "image_event_alerts/../../etc/passwd",
    }
    value = msgspec.json.encode(notification)
    told = {
        "type": "told",
        "recipient": "night",
        "offsets": [99],
        "event_ids": [],
        "outcome": "sent",
    }
    for rubbish in (
        b"",
        None,
        b"\x1b[31m",
        b"[" * 100_000,
        value.replace(b"night", b"../x"),
        value.replace(b'"00001"', b'"<b>"'),
        value.replace(b"night", b"gone"),
        value.replace(b"image_event_database/x", b"\\u0000"),
        msgspec.json.encode(told | {"at": "9999-12-31T23:59:59-23:00"}),
    ):
        pipeline.put("notifications", rubbish, b"night")
    pipeline.put("notifications", value, b"night")
    alert.says("^00001  told night")
    (one,) = web.got
    assert one["attachments"] == []
    assert "root:" not in one["message"]
    assert "\u202e" not in one["message"]
    alert.says("gone is no recipient")
    assert sum("it is left where it is" in line for line in alert.lines) == 8
    assert all(line.isprintable() for line in alert.lines)
    assert alert.process.poll() is None
    command(pipeline, "notifications")


@pytest.mark.slow
def test_a_notification_that_comes_twice(pipeline: Pipeline, web: WebServer) -> None:
    """The same one again, before and after it was sent, is told once."""
    web.does = "refuse"
    alert = start(pipeline, night=f'url = "{web.url()}"')
    put_event(pipeline, "00001")
    alert.says("^00001  night could not be told")
    (first,) = pipeline.records("notifications")
    pipeline.put("notifications", first.value, first.key)
    web.does = "take"
    alert.says("^00001  told night")
    pipeline.put("notifications", first.value, first.key)
    put_event(pipeline, "00002")
    alert.says("^00002  told night")
    assert len(web.got) == 2
    alert.stop()
    again = start(pipeline)
    put_event(pipeline, "00003")
    again.says("^00003  told night")
    assert len(web.got) == 3
    assert command(pipeline, "notifications")[-1] == "1 recipient: 3 sent, 0 given up, 0 waiting"


@pytest.mark.slow
def test_kafka_is_away_after_sending(data: Path, tmp_path: Path, web: WebServer) -> None:
    """What was sent while Kafka was away is recorded once it is back, and not sent again."""
    port = embedded_kafka.free_port()
    broker = embedded_kafka.start(tmp_path / "kafka", port)
    pipeline = Pipeline(data, f"localhost:{port}")
    web.does = "stall"
    alert = start(pipeline, night=f'url = "{web.url()}"')
    put_event(pipeline, "00001")
    until(lambda: web.tries, "the web server's silence")
    broker.stop()
    web.take()
    alert.says("nothing listens there")
    broker = embedded_kafka.start(tmp_path / "kafka", port)
    alert.says("^00001  told night")
    put_event(pipeline, "00002")
    alert.says("^00002  told night")
    assert web.tries == 2
    assert told(pipeline) == [["00001"], ["00002"]]
    assert alert.stop() == 0
    pipeline.close()
    broker.stop()


# Makes a method of the pipeline fail the first time it is called, and starts the alert program.
FAULTY = """
import importlib, sys
module, owner, name = sys.argv[1:4]
owner = getattr(importlib.import_module(module), owner)
method = getattr(owner, name)

def fails_once(*arguments):
    setattr(owner, name, method)
    raise ZeroDivisionError("secret")

setattr(owner, name, fails_once)
sys.argv = ["image_event_alert.py"]
importlib.import_module("image_event_alert").main()
"""


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        ("inbox Inbox add", "^notifications: {}; trying again in 5 s"),
        ("delivery Delivery run", "^night: {}; trying again in 5 s"),
        ("delivery Delivery _messages", "^Kafka did not record what was told: {}; trying again"),
    ],
)
def test_a_fault_in_the_notifier(pipeline: Pipeline, web: WebServer, fault: str, line: str) -> None:
    """An unexpected error is said without its text; alerts go on, and each event is sent once."""
    (pipeline.data / "recipients.toml").write_text(f'[night]\nurl = "{web.url()}"')
    module, owner, name = fault.split()
    arguments = ("-c", FAULTY, f"pipeline.notify.{module}", owner, name)
    alert = pipeline.start(sys.executable, *arguments, PYTHONPATH=str(HERE))
    put_event(pipeline, "00001")
    alert.says(line.format(r"unexpected ZeroDivisionError in <string>, line \d+"))
    put_event(pipeline, "00002")
    alert.says("^00002  ALERT")
    alert.says("^00002  told night")
    assert [one["title"][:11] for one in web.got] == ["Image 00001", "Image 00002"]
    assert told(pipeline) == [["00001"], ["00002"]]
    assert alert.stop() == 0
    assert not re.search("Traceback|secret", alert.output)


@pytest.mark.slow
def test_a_dry_run(pipeline: Pipeline, web: WebServer) -> None:
    """It says who would be told what and when, and who not and why; and changes nothing."""
    start(pipeline).says("Kafka at")
    put_event(pipeline, "00001", "00002", rms=3.21)
    pipeline.started[0].says("^00002  ALERT")
    pipeline.started[0].stop()
    before = {topic: len(pipeline.records(topic)) for topic in TOPICS}
    run = start(
        pipeline,
        "--dry-run",
        day=f'url = "{web.url()}"\nleast_rms = 5',
        night=f'url = "{web.url()}"',
        week=f'url = "{web.url()}"\ndigest = 3600',
    )
    assert run.ends() == 0
    assert run.lines[:2] == [
        "00001  not day: RMS 3.21 is under 5",
        "00001  would tell night at once: Image 00001 differs from image 00000",
    ]
    assert re.match(
        "00001  would tell week with what else comes until 20.* UTC: Image", run.lines[2]
    )
    assert run.lines[2][12:70] == run.lines[5][12:70]
    assert run.lines[-1] == "2 events, 3 recipients; nobody was told"
    assert {topic: len(pipeline.records(topic)) for topic in TOPICS} == before
    assert web.tries == 0


@pytest.mark.slow
def test_a_recipient_that_is_no_more(pipeline: Pipeline, web: WebServer) -> None:
    """It is named if something waits for it, and not if all was sent."""
    two = {name: f'url = "{web.url()}"' for name in ("done", "night")}
    alert = start(pipeline, **two)
    put_event(pipeline, "00001")
    until(lambda: len(told(pipeline)) == 2, "both told")
    alert.stop()
    again = start(pipeline, new=f'url = "{web.url()}"', night=f'url = "{web.url()}"\ndigest = 3600')
    put_event(pipeline, "00002")
    again.says("^00002  told new")
    again.stop()
    last = start(pipeline, new=f'url = "{web.url()}"')
    last.says("^night is no recipient any more; what waits for it stays")
    put_event(pipeline, "00003")
    last.says("^00003  told new")
    assert "done" not in f"{again.output}{last.output}"


def test_a_dry_run_without_recipients(pipeline: Pipeline) -> None:
    """It says that there are none, and where it looked for them."""
    run = start(pipeline, "--dry-run")
    assert run.ends() == 0
    assert "recipients.toml" in run.lines[-1]


def test_files_that_are_wrong(pipeline: Pipeline) -> None:
    """One line and exit 2: a file that isn't there but was named, and one that is wrong."""
    for arguments, environment in (
        (["--recipients", "nowhere.toml"], {}),
        ([], {"PIPELINE_RECIPIENTS": "nowhere.toml"}),
    ):
        assert pipeline.usage_error("image_event_alert.py", *arguments, **environment) == (
            "image_event_alert.py: nowhere.toml can't be read: No such file or directory"
        )
    wrong = start(pipeline, night='url = "json://h"\nleast_rms = "5"')
    assert wrong.ends() == 2
    (line,) = wrong.lines
    assert line.endswith(
        'recipients.toml, line 3: least_rms is "5"; it must be a number, 0 or more'
    )
