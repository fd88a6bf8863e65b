"""Wrong settings, missing or wrong originals, no room, no Kafka: one clear line, no half files."""

import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import HERE, Pipeline, file_system, fill, slow, until

import embedded_kafka

PROGRAMS = ["image_receiving.py", "image_analysis.py", "image_event_alert.py"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("KAFKA_BOOTSTRAP_SERVERS", "localhost"),
        ("KAFKA_BOOTSTRAP_SERVERS", "localhost:99999"),
        ("KAFKA_BOOTSTRAP_SERVERS", "localhost:9092,"),
        ("KAFKA_WAIT", "soon"),
        ("KAFKA_WAIT", "-1"),
        ("KAFKA_WAIT", "nan"),
        ("PIPELINE_DATA", "/nowhere/at/all"),
        ("KAFKA_SECURITY_PROTOCOL", "TLS"),
        ("KAFKA_SASL_USERNAME", "me"),
        ("KAFKA_SSL_CAFILE", "/nowhere.pem"),
    ],
)
def test_a_setting_that_makes_no_sense(lone: Pipeline, name: str, value: str) -> None:
    """It ends each program at once with 2 and one line that names it."""
    for program in PROGRAMS:
        line = lone.usage_error(program, **{name: value})
        assert re.match(rf"\w+\.py: (--[a-z-]+ or )?{name}\b", line)


def test_a_password_is_never_shown(lone: Pipeline) -> None:
    """What is said of wrong security settings has no secret in it."""
    started = lone.start(
        "image_analysis.py",
        KAFKA_SECURITY_PROTOCOL="SASL_SSL",
        KAFKA_SASL_MECHANISM="none",
        KAFKA_SASL_PASSWORD="hush",  # noqa: S106
    )
    assert started.ends() == 2
    assert "hush" not in started.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["--count", "0"],
        ["--count", "-1"],
        ["--count", "x"],
        ["--count", "1e9"],
        ["--count"],
        ["--source", "a/b"],
        ["--source", "A"],
        ["--source", "a" * 65],
        ["--nonsense"],
        ["more"],
        ["--kafka-wait", "long"],
        ["--data", "/nowhere/at/all"],
        ["--bootstrap-servers", "here"],
    ],
)
def test_an_option_that_makes_no_sense(lone: Pipeline, arguments: list[str]) -> None:
    """It ends the program, or the whole run, at once with 2 and one line that names it."""
    for program in ("image_receiving.py", "run"):
        line = lone.usage_error(program, *arguments)
        assert arguments[0] in line or arguments[-1] in line
    assert lone.files("image_database") == []


def test_usage_errors_of_processes(lone: Pipeline) -> None:
    """What the other tests see of it in their own process, a process prints and ends with, too."""
    programs = [lone.start(program, KAFKA_WAIT="soon") for program in PROGRAMS]
    programs.append(lone.command("run", KAFKA_WAIT="soon"))
    for program in programs:
        assert program.ends() == 2
        (line,) = program.lines
        assert "KAFKA_WAIT: 'soon' is not a number of seconds" in line


@pytest.mark.parametrize("program", [*PROGRAMS, "run"])
def test_help(lone: Pipeline, program: str) -> None:
    """--help explains and ends with 0, on a terminal that knows ASCII only, too."""
    start = lone.command if program == "run" else lone.start
    started = start(program, "--help", PYTHONIOENCODING="ascii")
    assert started.ends() == 0
    assert len(started.lines) > 5


@pytest.mark.parametrize("content", [None, b"", b"no image"])
def test_an_original_that_is_no_image(lone: Pipeline, content: bytes | None) -> None:
    """One line says which file, and nothing is written."""
    original = lone.data / "image_original" / "original_image.jpg"
    original.unlink()
    if content is not None:
        original.write_bytes(content)
    started = lone.start("image_receiving.py")
    assert started.ends() == 1
    assert "image_original/original_image.jpg" in started.lines[-1]
    assert "Traceback" not in started.output
    assert lone.files("image_database") == []


@pytest.mark.parametrize(
    ("program", "directory"),
    [
        ("image_receiving.py", "image_database"),
        ("image_analysis.py", "image_event_database"),
        ("image_event_alert.py", "image_event_alerts"),
    ],
)
def test_a_directory_that_cannot_be_written(lone: Pipeline, program: str, directory: str) -> None:
    """One line says which, at the start, and the program ends with 1."""
    (lone.data / directory).rmdir()
    (lone.data / directory).write_text("a file in its place")
    started = lone.start(program)
    assert started.ends() == 1
    (line,) = started.lines
    assert line.startswith("cannot write to ")
    assert directory in line


def test_kafka_is_not_there(lone: Pipeline) -> None:
    """It is said at once, again after a few seconds, and after KAFKA_WAIT each ends with 1."""
    begun = time.monotonic()
    programs = [lone.start(program, KAFKA_WAIT="6") for program in PROGRAMS]
    for program in programs:
        program.says("is away")
    for program in programs:
        program.says("waiting for it, [56] of 6 s")
        assert program.ends() == 1
        assert time.monotonic() - begun > 6
        assert "did not come in 6 s" in program.lines[-1]


@pytest.mark.parametrize("program", PROGRAMS[1:])
def test_a_stage_that_waits_for_kafka_can_be_stopped(lone: Pipeline, program: str) -> None:
    """SIGTERM ends it with 0 while it waits."""
    started = lone.start(program)
    started.says("is away")
    assert started.stop() == 0


def test_kafka_comes_later(lone: Pipeline, tmp_path: Path) -> None:
    """A program that waits goes on when Kafka comes."""
    started = lone.start("image_receiving.py")
    started.says("is away")
    port = int(lone.bootstrap_servers.split(":")[1])
    broker = embedded_kafka.start(tmp_path / "kafka", port)
    assert started.ends() == 0
    started.says("is there")
    broker.stop()


@pytest.mark.slow
def test_something_else_listens_there(lone: Pipeline) -> None:
    """A server that is no Kafka is said to be none, and is not waited for."""
    port = lone.bootstrap_servers.split(":")[1]
    server = lone.start(sys.executable, "-m", "http.server", "--bind", "127.0.0.1", port)
    started = lone.start("image_analysis.py", KAFKA_WAIT="60")
    assert started.ends() == 1
    assert "is not there: what listens answers " in started.lines[-1]
    assert "Traceback" not in started.output
    server.stop()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for nine megabytes."""
    with file_system(tmp_path / "disk", "9m") as disk:
        yield disk


@pytest.mark.root
@pytest.mark.parametrize(
    ("program", "directory"),
    [
        slow("image_receiving.py", "image_database"),
        ("image_analysis.py", "image_event_database"),
        slow("image_event_alert.py", "image_event_alerts"),
    ],
)
def test_a_full_disk(pipeline: Pipeline, small_disk: Path, program: str, directory: str) -> None:
    """The stage waits and says so, no half file stays, and once there is room the rest is done."""
    (pipeline.data / directory).rmdir()
    (pipeline.data / directory).symlink_to(small_disk)
    filler = fill(small_disk)
    programs = [pipeline.start(name) for name in PROGRAMS]
    full = programs[PROGRAMS.index(program)]
    full.says(f"cannot write .*/{directory}/.*: No space left on device; trying again in 1 s")
    full.says("trying again in 4 s")
    until(lambda: pipeline.files(directory) == ["filler"], "no half file between the attempts")
    filler.unlink()
    programs[2].says("00007  ALERT")
    assert programs[0].ends() == 0
    assert pipeline.ids("images") == [f"{number:05d}" for number in range(11)]
    assert pipeline.ids("alerts") == ["00003", "00007"]
    assert pipeline.records("dead-letters") == []
    assert not [name for name in pipeline.files(directory) if name.endswith(".part")]
    assert "Traceback" not in full.output


@pytest.mark.slow
@pytest.mark.root
def test_stopped_while_the_disk_is_full(pipeline: Pipeline, small_disk: Path) -> None:
    """It ends at once all the same, and the next run does what was left."""
    (pipeline.data / "image_event_database").rmdir()
    (pipeline.data / "image_event_database").symlink_to(small_disk)
    filler = fill(small_disk)
    pipeline.receive()
    analysis = pipeline.start("image_analysis.py")
    analysis.says("trying again")
    assert analysis.stop() == 0
    filler.unlink()
    pipeline.start("image_analysis.py").says("00007  CHANGED")
    assert pipeline.ids("image-events") == ["00003", "00007"]


def test_clean_image_dirs(lone: Pipeline) -> None:
    """It empties the three databases, hidden files too, and leaves .gitkeep and the original."""
    for name in ("image_database", "image_event_database", "image_event_alerts"):
        for file in ("00000.jpg", ".image_receiving.json", ".gitkeep"):
            (lone.data / name / file).touch()
    cleaned = lone.start(str(HERE / "clean_image_dirs.sh"))
    assert cleaned.ends() == 0
    for name in ("image_database", "image_event_database", "image_event_alerts"):
        assert lone.files(name) == [".gitkeep"]
    assert lone.files("image_original") == ["original_image.jpg"]
    refused = lone.start(str(HERE / "clean_image_dirs.sh"), "--all")
    assert refused.ends() == 2
