"""run_pipeline.sh: everything with one command, from nothing, again and again."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from conftest import HERE, Pipeline, Program, slow, until

import embedded_kafka
from embedded_kafka import free_port


@pytest.fixture
def alone(data: Path) -> Iterator[Pipeline]:
    """A data directory for runs that start a Kafka of their own."""
    alone = Pipeline(data, "")
    yield alone
    alone.close()


def table(run: Program) -> dict[str, str]:
    """The summary's rows."""
    rows = [line.strip().split("  ", 1) for line in run.lines if line.startswith("  ")]
    return {name: value.strip() for name, value in rows}


def run(pipeline: Pipeline, *arguments: str) -> Program:
    """run_pipeline.sh to its end, which must be 0."""
    program = pipeline.start(str(HERE / "run_pipeline.sh"), *arguments)
    assert program.ends() == 0, program
    return program


@pytest.mark.slow
def test_the_whole_pipeline_twice(alone: Pipeline) -> None:
    """It ends by itself with 0 and a summary; a second run goes on counting."""
    first = run(alone)
    assert table(first).items() >= {
        ("images", "11"),
        ("image events", "2"),
        ("alerts", "2"),
        ("dead letters", "0"),
    }
    assert "s median" in table(first)["received to alert"]
    for program in ("image_receiving", "image_analysis", "image_event_alert"):
        assert any(line.startswith(program) for line in first.lines)
    second = run(alone, "--count", "3", "--source", "cam1")
    assert table(second)["images"] == "3"
    third = run(alone, "--count", "3")
    assert "00013.jpg" in alone.files("image_database")
    assert table(third)["images"] == "3"
    assert alone.files("image_event_alerts") == [
        f"image_event_alert_{name}.txt" for name in ("00003", "00007", "00011")
    ]


@pytest.mark.slow
def test_topics_of_a_newer_kafka(alone: Pipeline) -> None:
    """The run says that it can't read them and what to do; with them moved away, it goes on."""
    topics = alone.data / ".kafka"
    jars = HERE / "tests" / "kafka-4.3.1-jars.txt"
    embedded_kafka.start(topics, free_port(), jars=jars).stop()
    refused = alone.start(str(HERE / "run_pipeline.sh"))
    assert refused.ends() == 1
    assert refused.lines[-1].startswith(f"run_pipeline: {topics} was made by a newer Kafka than ")
    assert alone.files("image_database") == []
    topics.rename(alone.data / ".kafka-of-before")
    assert table(run(alone))["images"] == "11"


@pytest.mark.slow
def test_with_the_viewer(alone: Pipeline) -> None:
    """--view shows what happens, also what another terminal receives later; Ctrl-C ends with 0."""
    port = str(free_port())
    program = alone.start(str(HERE / "run_pipeline.sh"), "--view", port, "--count", "4")
    where = program.says("embedded Kafka at ").split()[4].strip(",")
    program.says(f"the viewer is at http://localhost:{port}; Ctrl-C ends all")
    assert table(program)["alerts"] == "1"

    def shows(path: str) -> bool:
        with suppress(HTTPError), urlopen(f"http://localhost:{port}{path}") as answer:
            return bool(answer.status == 200)
        return False

    until(lambda: shows("/events/00003"), "the first event's page")
    assert not shows("/events/00007")
    later = alone.start("image_receiving.py", "--count", "4", KAFKA_BOOTSTRAP_SERVERS=where)
    assert later.ends() == 0, later
    until(lambda: shows("/events/00007"), "the second event's page")
    assert program.process.poll() is None
    program.process.send_signal(signal.SIGINT)
    assert program.ends() == 0, program
    assert "Traceback" not in program.output


@pytest.mark.slow
def test_with_a_kafka_of_ones_own(pipeline: Pipeline) -> None:
    """KAFKA_BOOTSTRAP_SERVERS is used where it is set, and no other Kafka is started."""
    program = run(pipeline)
    assert pipeline.ids("alerts") == ["00003", "00007"]
    assert table(program)["alerts"] == "2"
    assert not (pipeline.data / ".kafka").exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_in_the_middle(alone: Pipeline, number: int) -> None:
    """Ctrl-C stops everything; the next run finishes what was left."""
    first = alone.start(str(HERE / "run_pipeline.sh"), "--count", "2000")
    first.says("image_analysis .*CHANGED")
    first.process.send_signal(number)
    assert first.ends() == 130
    assert "Traceback" not in first.output
    received = len([name for name in alone.files("image_database") if name.endswith(".jpg")])
    second = run(alone, "--count", "1")
    alerts = len(alone.files("image_event_alerts"))
    assert alerts == len([n for n in range(received + 1) if n % 4 == 3])
    assert int(table(second)["images"].split()[0]) >= 1


@pytest.mark.slow
def test_nothing_stays_behind(alone: Pipeline) -> None:
    """After SIGKILL of the run itself, Kafka ends by itself, and the next run works."""
    first = alone.start(str(HERE / "run_pipeline.sh"), "--count", "2000", KAFKA_WAIT="2")
    first.says("image_analysis .*CHANGED")
    first.process.kill()
    first.process.wait()
    until(lambda: not running(alone.data), "the end of all processes")
    run(alone, "--count", "1")


def running(data: Path) -> list[str]:
    """The processes that work on this data directory."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            told = (process / "environ").read_bytes() + (process / "cmdline").read_bytes()
        except OSError:
            continue
        if str(data).encode() in told:
            found.append(process.name)
    return found


@pytest.mark.parametrize("number", [signal.SIGKILL, slow(signal.SIGTERM)])
def test_a_stage_that_ends_is_said(pipeline: Pipeline, number: int) -> None:
    """When a stage ends under it, in whatever way, the run says which and doesn't end with 0."""
    program = pipeline.start(str(HERE / "run_pipeline.sh"), "--count", "2000")
    program.says("image_analysis .*CHANGED")
    children = Path(f"/proc/{program.process.pid}/task/{program.process.pid}/children")
    for child in children.read_text().split():
        if b"image_analysis.py" in Path(f"/proc/{child}/cmdline").read_bytes():
            os.kill(int(child), number)
    assert program.ends() not in (0, None)
    program.says("run_pipeline: image_analysis ended")


@pytest.mark.slow
def test_an_image_that_is_set_aside_is_a_failure(pipeline: Pipeline) -> None:
    """What was set aside in this run shows in the table, and the status is 1."""
    program = pipeline.start(str(HERE / "run_pipeline.sh"), "--count", "100")
    program.says("image_receiving .*received")
    pipeline.put("images", b"rubbish")
    assert program.ends() == 1
    assert table(program)["dead letters"] == "1"
    assert table(program)["alerts"] == "25"


@pytest.mark.slow
def test_a_notification_that_is_given_up_is_a_failure(pipeline: Pipeline) -> None:
    """It is set aside after all images went all the way, and yet it is in the table."""
    table_of_night = f'[night]\nurl = "json://localhost:{free_port()}/"\ngive_up_after = 1\n'
    (pipeline.data / "recipients.toml").write_text(table_of_night)
    program = pipeline.start(str(HERE / "run_pipeline.sh"), "--count", "4")
    assert program.ends() == 1, program
    assert table(program)["alerts"] == "1"
    assert table(program)["dead letters"] == "1"
    assert program.lines[-1].startswith("run_pipeline: not everything went all the way;")


@pytest.mark.slow
def test_nobody_reads_any_more(alone: Pipeline) -> None:
    """In a pipe that is closed, the run ends, and its programs don't wait for ever to print."""
    command = f"{HERE / 'run_pipeline.sh'} --count 2000 | head -3"
    assert alone.start("/bin/sh", "-c", command).ends() == 0
    until(lambda: not running(alone.data), "the end of all processes")


@pytest.mark.slow
def test_two_at_once_and_names_with_everything(alone: Pipeline, tmp_path: Path) -> None:
    """Two runs started together take two ports; a comma or an é in a path troubles nobody."""
    other = tmp_path / "données, et [plus]"
    shutil.copytree(alone.data, other)
    runs = [
        alone.start(str(HERE / "run_pipeline.sh"), "--data", str(data), "--count", "4")
        for data in (alone.data, other)
    ]
    for program in runs:
        assert program.ends() == 0, program
        assert table(program)["alerts"] == "1"
    assert (other / "image_event_alerts" / "image_event_alert_00003.txt").exists()
    assert (other / ".kafka" / "topics").is_dir()
    cleaned = alone.start(str(HERE / "clean_image_dirs.sh"), PIPELINE_DATA=str(other))
    assert cleaned.ends() == 0
    assert os.listdir(other / "image_database") == []


def test_from_any_directory(alone: Pipeline) -> None:
    """All programs find their files from the repository, wherever they are started."""
    for program in ("image_receiving.py", "image_analysis.py", "image_event_alert.py"):
        ended = subprocess.run([sys.executable, HERE / program, "--help"], cwd="/", check=False)
        assert ended.returncode == 0
    started = alone.start(str(HERE / "run_pipeline.sh"), "--help")
    assert started.ends() == 0
