"""compose.yaml: three brokers, the programs in copies, all containers of a real Docker Compose."""

import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from conftest import Pipeline, clone_to, docker, until
from kafka import KafkaAdminClient
from kafka.errors import KafkaError
from test_readme import DOCKER, terminals

import embedded_kafka

((UP,),) = terminals("Three brokers", DOCKER)
PROJECT = "pipeline_test"
OURS = ("--filter", f"label=com.docker.compose.project={PROJECT}")
COUNT = 60  # images of each of the eight sources, received while things are killed


class Composed(Pipeline):
    """The containers of a clone, and their cluster as programs on the host see it."""

    def __init__(self, clone: Path) -> None:
        first = next(one for one in range(2000, 3200) if all(map(is_free, ports(one))))
        super().__init__(clone, ",".join(f"localhost:{port}" for port in ports(first)))
        self.environment["COMPOSE_PROJECT_NAME"] = PROJECT
        self.environment["KAFKA_PORTS"] = str(first)
        self.viewer = embedded_kafka.free_port()
        self.environment["VIEWER_PORT"] = str(self.viewer)
        if subprocess.run(
            ["docker", "buildx", "version"], capture_output=True, check=False
        ).returncode:
            # Then `docker build` has an older builder than compose; let them share their layers.
            self.environment["DOCKER_BUILDKIT"] = "0"
        del self.environment["PIPELINE_DATA"]  # which would be passed on

    def compose(self, *arguments: str) -> None:
        """Run a compose command to its end."""
        program = self.start("docker", "compose", *arguments)
        assert program.ends() == 0, program

    def is_whole(self) -> bool:
        """Whether each broker has all that each topic has."""
        try:
            admin = KafkaAdminClient(bootstrap_servers=self.bootstrap_servers)
            topics = admin.describe_topics()
            admin.close()
        except KafkaError:  # one of them has only begun to start
            return False
        return all(len(one["isr_nodes"]) == 3 for topic in topics for one in topic["partitions"])


def ports(first: int) -> list[int]:
    """The three brokers' ports on the host, which begin with these digits."""
    return [10 * first + last for last in (2, 3, 4)]


def is_free(port: int) -> bool:
    """Whether nobody listens on this port."""
    return embedded_kafka.port_is_free("127.0.0.1", port)


def state(container: str, what: str) -> str:
    """What the Docker engine says of a container of ours."""
    return docker("inspect", "--format", "{{" + what + "}}", f"{PROJECT}-{container}").strip()


@pytest.fixture
def composed(tmp_path: Path) -> Iterator[Composed]:
    """A fresh clone; nothing runs that a killed test may have left."""
    composed = Composed(clone_to(tmp_path / "clone"))
    composed.compose("down", "--volumes", "--remove-orphans")
    yield composed
    composed.compose("down", "--volumes", "--remove-orphans")
    composed.close()


@pytest.mark.docker
def test_four_copies_on_three_brokers(composed: Composed) -> None:
    """A broker and a copy are killed in the middle: each image, event and alert is there once."""
    up = composed.start(*UP.split())
    up.says("image_event_alert-1 .*-00007  ALERT", 180)
    up.says("image_receiving-1 exited with code 0")

    more = ("run", "--rm", "image_receiving", "--sources", "8", "--count", str(COUNT))
    receiving = composed.start("docker", "compose", *more)
    line = up.says(r"image_analysis-\d .*-00015  CHANGED")
    docker("kill", f"{PROJECT}-kafka2-1")
    copy = re.findall(r"image_analysis-\d", line)[0]
    # As a crash: what `docker kill` ends isn't started again.
    composed.start("docker", "exec", f"{PROJECT}-{copy}", "bash", "-c", "kill -KILL -1").ends()
    until(lambda: state(copy, ".RestartCount") == "1", f"{copy} comes back")
    assert receiving.ends() == 0, receiving
    sources = [f"cam{number}" for number in range(1, 9)]
    images = [f"{one}-{number:05d}" for one in sources for number in range(11 + COUNT)]
    events = [name for name in images if int(name[-5:]) % 4 == 3]
    composed.waits_for("alerts", len(events))
    assert state("kafka2-1", ".State.Running") == "false"
    composed.compose("start", "kafka2")
    until(composed.is_whole, "the broker has what it missed")

    assert composed.ids("images") == images
    assert composed.ids("image-events") == composed.ids("alerts") == events
    assert composed.records("dead-letters") == []
    alerts = [f"image_event_alert_{name}.txt" for name in events]
    assert composed.files("image_event_alerts") == [".gitkeep", *alerts]
    assert "Traceback" not in up.output
    with urlopen(f"http://localhost:{composed.viewer}/events/cam8-00003") as page:
        assert page.status == 200

    up.process.send_signal(signal.SIGINT)
    assert up.ends() in (0, 130), up
    for name in docker("ps", "--all", "--format", "{{.Names}}", *OURS).split():
        # Nothing by force.
        assert state(name.removeprefix(f"{PROJECT}-"), ".State.ExitCode") == "0", name
    composed.compose("down")
    assert not docker("ps", "--all", "--quiet", *OURS)
    assert not docker("network", "ls", "--quiet", *OURS)
    assert len(docker("volume", "ls", "--quiet", *OURS).split()) == 3  # which keep the topics
