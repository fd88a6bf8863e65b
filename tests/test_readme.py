"""What the README tells to type is typed here, letter by letter."""

import os
import pty
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from conftest import HERE, Pipeline, clone_to, docker, until

README = (HERE / "README.md").read_text()
DOCKER = (HERE / "docs" / "docker.md").read_text()
CONTAINER = "pipeline_container"
READY = "^Apache Kafka is ready at localhost:9092, .*; Ctrl-C or docker stop stops it\r?\n"
KILL_JAVA = """
import os, pathlib
for process in pathlib.Path("/proc").glob("[0-9]*"):
    if os.access(process / "exe", os.X_OK) and (process / "exe").resolve().name == "java":
        os.kill(int(process.name), 9)
"""


def terminals(heading: str, page: str = README) -> list[list[str]]:
    """What is typed in a section, terminal by terminal."""
    section = page.split(f"## {heading}\n")[1].split("\n## ", maxsplit=1)[0]
    blocks = re.findall(r"^```console\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    return [re.findall(r"^\$ (.*)", block, re.MULTILINE) for block in blocks]


@pytest.mark.slow
def test_the_first_commands(tmp_path: Path) -> None:
    """In a fresh clone they do what the README says, and print what it shows."""
    clone = clone_to(tmp_path / "clone")
    (run, tests), (clean,) = terminals("Run it")
    kept = ("KAFKA_", "PIPELINE_", "VIRTUAL_ENV", "PYTEST_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(kept)}

    def typed(command: str) -> str:
        ended = subprocess.run(
            ["bash", "-c", command],
            cwd=clone,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    printed = re.sub(r"\d\.\d+ s", "TIME", typed(run)).splitlines()
    sample = re.sub(r"\d\.\d+ s", "TIME", README.split("told apart:\n\n```\n")[1].split("\n```")[0])
    for line in sample.splitlines():
        assert line in [*printed, "…"]
    # These very tests, so that they are only gathered here.
    assert "test_pipeline.py" in typed(f"{tests} --collect-only -q")
    typed(clean)
    assert os.listdir(clone / "image_database") == [".gitkeep"]


class Terminal:
    """A terminal in which someone types."""

    def __init__(self, command: str) -> None:
        master, slave = pty.openpty()
        self._master = master
        self.process = subprocess.Popen(
            ["bash", "-c", command], stdin=slave, stdout=slave, stderr=slave, start_new_session=True
        )
        os.close(slave)
        os.set_blocking(master, False)
        self.text = ""

    def type(self, line: str) -> None:
        """Type a line and press Return."""
        os.write(self._master, line.encode() + b"\n")

    def shows(self, pattern: str, seconds: float = 60) -> None:
        """Wait until this is on the screen."""

        def look() -> bool:
            with suppress(BlockingIOError, OSError):
                self.text += os.read(self._master, 65536).decode(errors="replace")
            return bool(re.search(pattern, self.text))

        until(look, f"{pattern!r} on the screen", seconds)

    def close(self) -> None:
        """Close the window."""
        self.process.kill()
        self.process.wait()
        os.close(self._master)


@pytest.fixture
def no_container() -> Iterator[None]:
    """A machine without the README's container, before and after."""
    subprocess.run(["docker", "rm", "--force", CONTAINER], capture_output=True, check=False)
    yield
    docker("rm", "--force", CONTAINER)


def inspect(path: str, container: str = CONTAINER) -> str:
    """What the Docker engine says of a container."""
    return docker("inspect", "--format", "{{" + path + "}}", container).strip()


@pytest.mark.docker
@pytest.mark.usefixtures("no_container")
def test_the_docker_story(tmp_path: Path) -> None:
    """Each command of the README, typed into terminals, with what should come of it."""
    clone = clone_to(tmp_path / "clone")
    (build, run), alert, analysis, receiving = terminals("Run it with Docker")
    subprocess.run(["bash", "-c", build], cwd=clone, check=True, capture_output=True)
    opened = [Terminal(run.replace("<path>", str(clone)))]
    opened[0].shows(READY)
    until(lambda: inspect(".State.Health.Status") == "healthy", "health")

    for enter, program in (alert, analysis, receiving):
        opened.append(Terminal(enter))
        opened[-1].shows("/pipeline#")
        opened[-1].type(program)
    opened[3].shows("received 11 images")
    opened[2].shows("00010  unchanged")
    opened[1].shows("00007  ALERT")
    assert (clone / "image_event_alerts" / "image_event_alert_00007.txt").is_file()
    # On the host, too.
    seen = Pipeline(clone, "localhost:9092")
    assert seen.ids("alerts") == ["00003", "00007"]

    begun = time.monotonic()
    docker("stop", CONTAINER)
    assert time.monotonic() - begun < 8
    assert inspect(".State.ExitCode") == "0"
    opened[0].shows(READY)
    assert opened[0].text.count("\n") == 1  # there is nothing else to say while all is well
    for terminal in opened:
        terminal.close()

    docker("start", CONTAINER)
    until(lambda: inspect(".State.Health.Status") == "healthy", "health")
    assert seen.ids("alerts") == ["00003", "00007"]


@pytest.mark.docker
def test_without_the_volume_and_without_root(image: str) -> None:
    """The container works on its own copy of the code, as a user that isn't root."""
    container = docker("run", "--rm", "--detach", image).strip()
    try:
        assert docker("exec", container, "id", "-u").strip() != "0"
        users = docker("exec", container, "sh", "-c", "grep -h ^Uid: /proc/[0-9]*/status")
        assert users
        assert not re.search(r"\b0\b", users)
        docker("exec", container, "python", "image_receiving.py")
        stage = subprocess.Popen(
            ["docker", "exec", container, "python", "image_analysis.py"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert stage.stdout
        with stage.stdout as output:
            assert any("00007  CHANGED" in line for line in output)
        stage.kill()
        stage.wait()
    finally:
        docker("stop", container)


@pytest.mark.docker
def test_as_any_user(image: str) -> None:
    """Docker run -u with whatever number works: Kafka's directory is anybody's to write.

    The container also ends when its Kafka does, which isn't a success.
    """
    container = docker("run", "--detach", "-u", "12345:12345", image).strip()
    try:
        until(lambda: inspect(".State.Health.Status", container) == "healthy", "health")
        docker("exec", container, "python", "-c", KILL_JAVA)
        until(lambda: inspect(".State.Status", container) == "exited", "the container's end")
        assert inspect(".State.ExitCode", container) == "1"
        ended = subprocess.run(["docker", "logs", container], capture_output=True, check=True)
        assert b"embedded_kafka: Kafka ended with status -9" in ended.stderr
    finally:
        docker("rm", "--force", container)


@pytest.mark.docker
def test_a_change_of_code_rebuilds_nothing_else(image: str, tmp_path: Path) -> None:
    """Packages and jars stay as they are built when a program changes."""
    clone = clone_to(tmp_path / "clone")
    with (clone / "image_analysis.py").open("a") as program:
        program.write("# changed\n")
    layers = [
        msgspec.json.decode(docker("inspect", name))[0]["RootFS"]["Layers"]
        for name in (image, docker("build", "--quiet", str(clone)).strip())
    ]
    changed = [old != new for old, new in zip(*layers, strict=True)]
    assert sum(changed) <= 2
    assert changed[-1]
