"""Brokers die, freeze or are cut off, and copies of a stage freeze: nothing lost, nothing twice."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from conftest import HERE, TOPICS, Pipeline, Program, file_system, fill, slow, until
from kafka import KafkaAdminClient
from kafka.errors import KafkaError

import embedded_kafka

STAGES = ("image_event_alert.py", "image_analysis.py")


def events_of(count: int) -> list[str]:
    """The ids of the changes among the first `count` images."""
    return [f"{number:05d}" for number in range(3, count, 4)]


def all_is_there_once(pipeline: Pipeline, count: int) -> None:
    """Each of so many images, and each of their changes, is there once, and no stage ended."""
    assert pipeline.ids("images") == [f"{number:05d}" for number in range(count)]
    assert pipeline.ids("image-events") == events_of(count)
    assert pipeline.ids("alerts") == events_of(count)
    assert pipeline.records("dead-letters") == []
    assert pipeline.files("image_event_database") == sorted(
        f"image_event_{name}.{kind}" for name in events_of(count) for kind in ("jpg", "txt")
    )
    for program in pipeline.started:
        assert program.process.poll() in (None, 0), program
        assert "Traceback" not in program.output


class Cluster:
    """Three embedded Kafkas that are one: each topic on all, and written to two at least."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        ports = [embedded_kafka.free_port() for _ in range(6)]
        self._ports, self._controllers = ports[:3], ports[3:]
        self.bootstrap_servers = ",".join(f"localhost:{port}" for port in self._ports)
        self.brokers = [self._start(number) for number in range(3)]

    def _start(self, number: int) -> "subprocess.Popen[bytes]":
        voters = (f"{one + 1}@127.0.0.1:{port}" for one, port in enumerate(self._controllers))
        port, controller = self._ports[number], self._controllers[number]
        properties = {
            "node.id": number + 1,
            "controller.quorum.voters": ",".join(voters),
            "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
            "default.replication.factor": 3,
            "min.insync.replicas": 2,
            "offsets.topic.replication.factor": 3,
            "transaction.state.log.replication.factor": 3,
            "transaction.state.log.min.isr": 2,
        }
        directory = self._directory / str(number)
        command = [sys.executable, "-m", "embedded_kafka", "--directory", str(directory)]
        command += ["--port", str(port)]
        command += [f"--property={name}={value}" for name, value in properties.items()]
        with (self._directory / f"{number}.log").open("ab") as log:
            return subprocess.Popen(command, cwd=HERE, stdout=log, stderr=log)

    def kill(self, number: int) -> None:
        """Kill a broker: its Java, with which the program that has started it ends."""
        program = self.brokers[number].pid
        for child in Path(f"/proc/{program}/task/{program}/children").read_text().split():
            os.kill(int(child), signal.SIGKILL)
        self.brokers[number].wait()

    def restart(self, number: int) -> None:
        """Start a broker that was killed."""
        self.brokers[number] = self._start(number)

    def is_whole(self) -> bool:
        """Whether each broker has all that each topic has."""
        try:
            with closing(KafkaAdminClient(bootstrap_servers=self.bootstrap_servers)) as admin:
                topics = admin.describe_topics()
                number = len(admin.describe_cluster()["brokers"])
        except Exception:  # a broker isn't back yet; kafka-python raises more than its own errors
            return False
        return number == 3 and all(
            len(one["isr_nodes"]) == len(one["replica_nodes"])
            for topic in topics
            for one in topic["partitions"]
        )


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster that is ready."""
    cluster = Cluster(tmp_path)
    until(cluster.is_whole, "three brokers")
    yield cluster
    for broker in cluster.brokers:
        broker.kill()
        broker.wait()


@pytest.mark.parametrize("killed", [(0,), slow((1, 2))])
def test_each_broker_of_a_cluster_is_killed(
    data: Path, cluster: Cluster, killed: tuple[int, ...]
) -> None:
    """One after the other, each in the middle of a run, and whichever leads what."""
    pipeline = Pipeline(data, cluster.bootstrap_servers)
    try:
        alert, analysis = (pipeline.start(name, KAFKA_WAIT="120") for name in STAGES)
        pipeline.receive("--count", "20")
        for run, number in enumerate(killed, 1):
            last = 20 + 400 * run - 1
            receiving = pipeline.start("image_receiving.py", "--count", "400", KAFKA_WAIT="120")
            analysis.says(f"{last - 350 - (last - 350) % 4 + 3:05d}  CHANGED")
            cluster.kill(number)
            assert receiving.ends() == 0, receiving
            alert.says(f"{last:05d}  ALERT")
            cluster.restart(number)
            until(cluster.is_whole, f"broker {number} in sync")
        all_is_there_once(pipeline, 20 + 400 * len(killed))
        topics = KafkaAdminClient(bootstrap_servers=cluster.bootstrap_servers).describe_topics()
        assert {len(one["replica_nodes"]) for topic in topics for one in topic["partitions"]} == {3}
    finally:
        pipeline.close()


@pytest.mark.slow
def test_partitions_that_nobody_leads(data: Path, cluster: Cluster) -> None:
    """A broker with the only copy of some partitions dies: programs wait for it, and none ends."""
    admin = KafkaAdminClient(bootstrap_servers=cluster.bootstrap_servers)
    settings = {"min.insync.replicas": "1"}
    topic = {"num_partitions": 16, "replication_factor": 1, "configs": settings}
    admin.create_topics(dict.fromkeys(TOPICS, topic))
    admin.wait_for_topics(list(TOPICS))
    admin.close()
    pipeline = Pipeline(data, cluster.bootstrap_servers)
    try:
        for stage in STAGES:
            pipeline.start(stage, KAFKA_WAIT="120")
        pipeline.receive("--sources", "4", "--count", "8")
        pipeline.waits_for("alerts", 8)
        until(cluster.is_whole, "internal topics on three brokers")
        cluster.kill(2)
        pipeline.start(STAGES[1], KAFKA_WAIT="120")

        def has_joined() -> bool:
            with suppress(KafkaError):  # of an admin client that asks the dead broker first
                return members(pipeline, "image_analysis") == 2
            return False

        until(has_joined, "another copy joins")
        receiving = pipeline.start("image_receiving.py", "--sources", "4", "--count", "8")
        cluster.restart(2)
        assert receiving.ends() == 0, receiving
        until(cluster.is_whole, "three brokers")
        pipeline.waits_for("alerts", 16)
        assert len(pipeline.ids("alerts")) == 16
        for program in pipeline.started:
            assert program.process.poll() in (None, 0), program
    finally:
        pipeline.close()


@pytest.mark.slow
def test_kafka_freezes_for_30_seconds(data: Path, tmp_path: Path) -> None:
    """It neither answers nor refuses; once it is back, all goes on."""
    broker = embedded_kafka.start(tmp_path / "kafka", embedded_kafka.free_port())
    pipeline = Pipeline(data, broker.bootstrap_servers)
    try:
        alert, analysis = (pipeline.start(name, KAFKA_WAIT="120") for name in STAGES)
        receiving = pipeline.start("image_receiving.py", "--count", "400", KAFKA_WAIT="120")
        analysis.says("CHANGED")
        broker.process.send_signal(signal.SIGSTOP)
        time.sleep(30)
        broker.process.send_signal(signal.SIGCONT)
        assert receiving.ends() == 0, receiving
        alert.says("00399  ALERT")
        all_is_there_once(pipeline, 400)
    finally:
        broker.process.send_signal(signal.SIGCONT)
        pipeline.close()
        broker.stop()


@pytest.fixture
def kafkas_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for a young Kafka and little else."""
    with file_system(tmp_path / "disk", "40m") as disk:
        yield disk


@pytest.mark.slow
@pytest.mark.root
def test_kafkas_disk_is_full(data: Path, kafkas_disk: Path) -> None:
    """Kafka ends by itself; with room again, and started again, it and the stages go on."""
    broker = embedded_kafka.start(kafkas_disk / "kafka", embedded_kafka.free_port())
    pipeline = Pipeline(data, broker.bootstrap_servers)
    try:
        alert, analysis = (pipeline.start(name, KAFKA_WAIT="120") for name in STAGES)
        pipeline.receive()
        alert.says("00007  ALERT")
        filler = fill(kafkas_disk)
        receiving = pipeline.start("image_receiving.py", "--count", "389", KAFKA_WAIT="120")
        until(lambda: broker.process.poll() is not None, "Kafka has ended")
        analysis.says("is away")
        with pytest.raises(embedded_kafka.KafkaStartError, match="is the disk full"):
            embedded_kafka.start(kafkas_disk / "kafka", broker.port)
        filler.unlink()
        broker = embedded_kafka.start(kafkas_disk / "kafka", broker.port)
        assert receiving.ends() == 0, receiving
        alert.says("00399  ALERT")
        all_is_there_once(pipeline, 400)
    finally:
        pipeline.close()
        broker.stop()


@pytest.mark.slow
@pytest.mark.root
def test_the_disk_fills_while_kafka_starts(
    kafkas_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who can't note the Kafka's port ends it again, and says why in a line."""
    start, started = embedded_kafka._start, []

    def start_and_fill(*given: Any, **named: Any) -> "subprocess.Popen[bytes]":
        started.append(start(*given, **named))
        fill(kafkas_disk)
        return started[-1]

    monkeypatch.setattr(embedded_kafka, "_start", start_and_fill)
    with pytest.raises(embedded_kafka.KafkaStartError, match=r"No space left.*is the disk full"):
        embedded_kafka.start(kafkas_disk / "kafka", embedded_kafka.free_port())
    assert started[0].poll() is not None


@pytest.mark.parametrize("stage", [slow(STAGES[0]), STAGES[1]])
def test_a_copy_freezes_and_another_takes_over(pipeline: Pipeline, stage: str) -> None:
    """When it thaws it is fenced: what it had in hand isn't published again."""
    other = pipeline.start(STAGES[1 - STAGES.index(stage)])
    frozen = pipeline.start(stage)
    receiving = pipeline.start("image_receiving.py", "--count", "400")
    frozen.says("CHANGED|ALERT")
    frozen.process.send_signal(signal.SIGSTOP)
    copy = pipeline.start(stage)
    assert receiving.ends() == 0
    pipeline.waits_for("alerts", 100)
    frozen.process.send_signal(signal.SIGCONT)
    pipeline.receive("--count", "8")
    pipeline.waits_for("alerts", 102)
    copy.process.kill()
    copy.ends()
    pipeline.started.remove(copy)
    pipeline.receive("--count", "8")
    pipeline.waits_for("alerts", 104)
    assert other.process.poll() is None
    all_is_there_once(pipeline, 416)


@pytest.mark.slow
@pytest.mark.parametrize("program", ["image_receiving.py", *STAGES])
def test_a_signal_during_a_suspension(pipeline: Pipeline, program: str) -> None:
    """A program that was told to stop while it was suspended stops once it goes on."""
    arguments = ("--count", "999999", "--interval", "1") if "receiving" in program else ()
    for _ in range(5):
        started = pipeline.start(program, *arguments)
        started.says(" from ")
        pipeline.wait_for_topics()
        started.process.send_signal(signal.SIGSTOP)
        started.process.send_signal(signal.SIGTERM)
        started.process.send_signal(signal.SIGCONT)
        assert started.ends() == (1 if arguments else 0), started


class Host:
    """Another host: a network of its own, with one cable to this one."""

    here, there = "10.213.77.1", "10.213.77.2"

    def __init__(self) -> None:
        self._name = f"pipeline-{os.getpid()}"
        self._cable = f"pl{os.getpid()}"
        self._run("ip", "netns", "add", self._name)
        cable = ("ip", "link", "add", self._cable, "type", "veth", "peer", "cable")
        self._run(*cable, "netns", self._name)
        self._run("ip", "addr", "add", f"{self.here}/30", "dev", self._cable)
        self._run("ip", "link", "set", self._cable, "up")
        self._run(*self.inside, "ip", "addr", "add", f"{self.there}/30", "dev", "cable")
        self.plug_in()

    @property
    def inside(self) -> tuple[str, ...]:
        """What runs a command there."""
        return ("ip", "netns", "exec", self._name)

    def pull(self) -> None:
        """Cut the network: what is sent is gone, and nothing says so."""
        self._run(*self.inside, "ip", "link", "set", "cable", "down")

    def plug_in(self) -> None:
        """Bring it back."""
        self._run(*self.inside, "ip", "link", "set", "cable", "up")

    def remove(self) -> None:
        """Take it away, and its cable with it."""
        self._run("ip", "netns", "delete", self._name)

    def _run(self, *command: str) -> None:
        subprocess.run(command, check=True)


@pytest.fixture
def host() -> Iterator[Host]:
    """Another host."""
    host = Host()
    yield host
    host.remove()


def start_on(host: Host, pipeline: Pipeline, stage: str) -> Program:
    """Start a stage on the other host."""
    command = [*host.inside, sys.executable, str(HERE / stage)]
    return pipeline.start(command[0], *command[1:], KAFKA_WAIT="120")


@pytest.mark.root
@pytest.mark.parametrize("has_copy", [False, slow(True)], ids=["alone", "with another copy"])
def test_the_network_of_a_stage_is_cut(
    data: Path, tmp_path: Path, host: Host, has_copy: bool
) -> None:
    """For longer than Kafka waits for it; when it is back, it goes on or leaves it to others."""
    port, controller = embedded_kafka.free_port(), embedded_kafka.free_port()
    properties = [
        f"listeners=PLAINTEXT://:{port},CONTROLLER://127.0.0.1:{controller}",
        f"controller.quorum.voters=1@127.0.0.1:{controller}",
        f"advertised.listeners=PLAINTEXT://{host.here}:{port}",
    ]
    broker = embedded_kafka.start(tmp_path / "kafka", port, properties)
    pipeline = Pipeline(data, f"{host.here}:{port}")
    try:
        pipeline.start("image_event_alert.py")
        analysis = start_on(host, pipeline, "image_analysis.py")
        receiving = pipeline.start("image_receiving.py", "--count", "400")
        analysis.says("CHANGED")
        host.pull()
        analysis.says("is away")
        assert receiving.ends() == 0
        if has_copy:
            pipeline.start("image_analysis.py").says("00399  CHANGED")
        else:
            until(lambda: not members(pipeline, "image_analysis"), "Kafka gives it up")
        host.plug_in()
        analysis.says("is there")
        pipeline.receive("--count", "8")
        pipeline.waits_for("alerts", 102)
        all_is_there_once(pipeline, 408)
    finally:
        pipeline.close()
        broker.stop()


def members(pipeline: Pipeline, group: str) -> int:
    """How many copies Kafka counts in a group."""
    admin = KafkaAdminClient(bootstrap_servers=pipeline.bootstrap_servers)
    found = admin.describe_groups([group])[group]["members"]
    admin.close()
    return len(found)
