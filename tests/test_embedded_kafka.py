"""The embedded Kafka: fetched and checked, ended with its parent, kept from run to run."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import HERE, until
from kafka import KafkaAdminClient

import embedded_kafka


def is_alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """Where a Kafka of this test may keep its topics."""
    yield tmp_path / "kafka"
    shutil.rmtree(tmp_path / "kafka", ignore_errors=True)


def test_topics_stay_from_run_to_run(directory: Path) -> None:
    """What was made in one run is there in the next, and each ends cleanly."""
    for run in range(2):
        broker = embedded_kafka.start(directory, embedded_kafka.free_port())
        admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
        if run == 0:
            admin.create_topics({"kept": {"num_partitions": 3}})
        assert "kept" in admin.list_topics()
        admin.close()
        broker.stop()
        assert broker.process.returncode == 128 + signal.SIGTERM  # as Java puts it


def test_two_at_once(directory: Path, tmp_path: Path) -> None:
    """Two on one machine take different ports; two on one directory don't, and that is said."""
    first = embedded_kafka.start(directory)
    second = embedded_kafka.start(tmp_path / "other")
    try:
        assert first.port != second.port
        with pytest.raises(embedded_kafka.KafkaStartError, match="another Kafka runs on"):
            embedded_kafka.start(directory)
    finally:
        first.stop()
        second.stop()


def run_by_hand(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """`python -m embedded_kafka`, where it is expected to end by itself."""
    return subprocess.run(
        [sys.executable, "-m", "embedded_kafka", *arguments],
        cwd=HERE,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_a_port_in_use(directory: Path) -> None:
    """It is said in one line, with what to do."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        ended = run_by_hand("--directory", str(directory), "--port", port)
    assert ended.returncode == 1
    assert ended.stderr == (
        f"embedded_kafka: port {port} is in use; "
        "stop what listens there, or choose another with --port\n"
    )


def test_a_directory_that_cannot_be_made(directory: Path) -> None:
    """It is said in one line."""
    directory.write_text("a file")
    ended = run_by_hand("--directory", str(directory / "kafka"))
    assert ended.returncode == 1
    assert ended.stderr.startswith("embedded_kafka: cannot write Kafka's directory")
    assert ended.stderr.count("\n") == 1
    directory.unlink()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_with_its_parent(directory: Path, number: int) -> None:
    """However the parent ends, no Java stays behind."""
    code = (
        "import sys, time, embedded_kafka; from pathlib import Path\n"
        "broker = embedded_kafka.start(Path(sys.argv[1]), embedded_kafka.free_port())\n"
        "print(broker.process.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, directory], cwd=HERE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout
    with parent.stdout as output:
        java = int(output.readline())
    assert is_alive(java)
    parent.send_signal(number)
    parent.wait()
    until(lambda: not is_alive(java), "Java's end", 10)


def test_a_jar_with_other_bytes_is_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What isn't what the lock file says is never run."""
    monkeypatch.setattr(embedded_kafka, "JARS", tmp_path / "kafka-jars.txt")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    lines = (HERE / "embedded_kafka" / "kafka-jars.txt").read_text().splitlines()
    line = next(line for line in lines if "slf4j" in line)
    embedded_kafka.JARS.write_text(line)
    (jar,) = embedded_kafka.fetch_jars()
    content = jar.read_bytes()
    jar.write_bytes(b"other bytes")
    assert embedded_kafka.fetch_jars() == [jar]
    assert jar.read_bytes() == content

    embedded_kafka.JARS.write_text(line.replace(line.split()[1], "0" * 64))
    jar.unlink()
    with pytest.raises(embedded_kafka.KafkaStartError, match="does not match"):
        embedded_kafka.fetch_jars()
    assert not jar.exists()


def test_no_network(tmp_path: Path) -> None:
    """Without jars and without a network, one line says so."""
    ended = subprocess.run(
        [sys.executable, "-m", "embedded_kafka", "--directory", tmp_path / "kafka"],
        cwd=HERE,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path), "HTTPS_PROXY": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("embedded_kafka: cannot get Kafka's jars")
    assert "check the network" in last
    assert "Traceback" not in ended.stderr
