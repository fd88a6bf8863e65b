"""The embedded Kafka: fetched and checked, ended with its parent, kept from run to run."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import HERE, PATIENCE, Pipeline, until
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaTimeoutError

import embedded_kafka
from pipeline.stream.kafka_version import version_of, warning

# Kafkas that are newer than ours, and what each says of itself: release line, metadata.version.
NEWER = {
    HERE / "tests" / "kafka-4.3.1-jars.txt": ("4.3", 30),
    HERE / "tests" / "kafka-4.4.0-jars.txt": ("4.4", 33),
}


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


@pytest.mark.slow
def test_topics_stay_from_run_to_run(directory: Path) -> None:
    """What was made in one run is there in the next, and each ends cleanly."""
    for run in range(2):
        broker = embedded_kafka.start(directory, embedded_kafka.free_port())
        admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
        if run == 0:
            admin.create_topics({"kept": {"num_partitions": 3}})
        admin.wait_for_topics(["kept"])
        admin.close()
        # Not stop(), which after 10 s ends by force what a busy machine only makes slow.
        broker.process.terminate()
        assert broker.process.wait(PATIENCE) == 128 + signal.SIGTERM  # as Java puts it


def start_any(directory: Path, jars: Path = embedded_kafka.JARS) -> embedded_kafka.Broker:
    """A Kafka of this version, on a port that is free."""
    return embedded_kafka.start(directory, embedded_kafka.free_port(), jars=jars)


def write(broker: embedded_kafka.Broker) -> None:
    """Make the topic "kept" with a record in it."""
    admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
    admin.create_topics({"kept": {"num_partitions": 1}})
    admin.wait_for_topics(["kept"])
    admin.close()
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers)
    producer.send("kept", b"a record").get(10)
    producer.close()


def read(broker: embedded_kafka.Broker) -> list[bytes]:
    """The values in the topic "kept"."""
    consumer = KafkaConsumer(bootstrap_servers=broker.bootstrap_servers)
    partition = TopicPartition("kept", 0)
    consumer.assign([partition])
    consumer.seek_to_beginning(partition)
    records = consumer.poll(timeout_ms=10_000).get(partition, [])
    consumer.close()
    return [record.value for record in records]


def test_the_version_is_the_one_that_the_constants_say() -> None:
    """All of Kafka's own jars have the version that an error names."""
    lines = embedded_kafka.JARS.read_text().splitlines()
    versions = {line.split("/")[4] for line in lines if line.startswith("org/apache/kafka/")}
    assert versions == {embedded_kafka.VERSION}


def test_our_version_reads_what_the_constant_says_and_gets_no_warning(directory: Path) -> None:
    """The highest metadata.version is the broker's own, and it isn't one that loses messages."""
    broker = start_any(directory)
    admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
    _, highest = admin.describe_features()["metadata.version"]["supported"]
    assert highest == embedded_kafka.METADATA_VERSION
    assert embedded_kafka.VERSION.startswith(f"{version_of(admin)}.")
    assert warning(admin) == ""
    broker.stop()
    assert warning(admin) == ""  # nor is there one from a Kafka that can't be asked
    admin.close()


@pytest.mark.slow
@pytest.mark.parametrize("jars", NEWER, ids=[line for line, _ in NEWER.values()])
def test_a_directory_of_a_newer_version(directory: Path, data: Path, jars: Path) -> None:
    """Ours says in one line that it can't read it and what to do, and leaves each byte as it was.

    The newer version tells its line, which programs warn of, and goes on with the directory.
    """
    line, level = NEWER[jars]
    newer = start_any(directory, jars)
    admin = KafkaAdminClient(bootstrap_servers=newer.bootstrap_servers)
    assert version_of(admin) == line
    assert warning(admin).startswith(f"Kafka {line} can lose a transaction")
    admin.close()
    pipeline = Pipeline(data, newer.bootstrap_servers)
    pipeline.receive("--count", "1").says(f"^Kafka {line} can lose a transaction .*KAFKA-20734")
    write(newer)
    newer.stop()

    before = {file: file.read_bytes() for file in directory.rglob("*") if file.is_file()}
    with pytest.raises(embedded_kafka.KafkaStartError) as error:
        embedded_kafka.start(directory)
    by_hand = run_by_hand("--directory", str(directory))
    assert by_hand.returncode == 1
    assert by_hand.stderr == f"embedded_kafka: {error.value}\n"
    assert str(error.value).startswith(
        f"{directory} was made by a newer Kafka than {embedded_kafka.VERSION} "
        f"(its metadata.version is {level}, "
    )
    assert "move it away" in str(error.value)
    assert {file: file.read_bytes() for file in directory.rglob("*") if file.is_file()} == before

    newer = start_any(directory, jars)
    assert read(newer) == [b"a record"]
    newer.stop()


@pytest.mark.slow
def test_a_newer_version_is_tried_on_a_directory_of_ours(directory: Path) -> None:
    """Afterwards it still is a directory of ours, with all records."""
    ours = start_any(directory)
    write(ours)
    ours.stop()
    newer = start_any(directory, next(iter(NEWER)))
    assert read(newer) == [b"a record"]
    newer.stop()
    ours = start_any(directory)
    assert read(ours) == [b"a record"]
    ours.stop()


@pytest.mark.slow
def test_who_asks_for_a_topic_does_not_make_it(directory: Path) -> None:
    """Neither a reader nor a writer that comes first makes a topic with the broker's defaults."""
    broker = start_any(directory)
    consumer = KafkaConsumer(
        "absent", bootstrap_servers=broker.bootstrap_servers, group_id="a reader"
    )
    consumer.poll(timeout_ms=500)
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers, max_block_ms=2000)
    with pytest.raises(KafkaTimeoutError):
        producer.send("absent", b"a record")
    admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
    assert "absent" not in admin.list_topics()
    for client in (admin, producer, consumer):
        client.close()
    broker.stop()


@pytest.mark.slow
def test_the_transaction_of_a_dead_program_ends_soon(directory: Path) -> None:
    """Readers of committed messages pass it a few seconds after its time-out."""
    broker = start_any(directory)
    write(broker)
    dead = KafkaProducer(
        bootstrap_servers=broker.bootstrap_servers,
        transactional_id="dead",
        transaction_timeout_ms=1000,
    )
    dead.init_transactions()
    dead.begin_transaction()
    dead.send("kept", b"never committed").get(10)
    partition = TopicPartition("kept", 0)
    reader = KafkaConsumer(
        bootstrap_servers=broker.bootstrap_servers, isolation_level="read_committed"
    )
    assert reader.end_offsets([partition]) == {partition: 1}
    # The record that was never committed, and the marker that says so.
    until(lambda: reader.end_offsets([partition]) == {partition: 3}, "the transaction's end", 5)
    reader.close()
    dead.close(1)
    broker.stop()


@pytest.mark.slow
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


@pytest.mark.slow
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
    until(lambda: not is_alive(java), "Java's end")


def test_a_jar_with_other_bytes_is_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What isn't what the lock file says is never run."""
    jars = tmp_path / "kafka-jars.txt"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    lines = (HERE / "embedded_kafka" / "kafka-jars.txt").read_text().splitlines()
    line = next(line for line in lines if "slf4j" in line)
    jars.write_text(line)
    (jar,) = embedded_kafka.fetch_jars(jars)
    content = jar.read_bytes()
    jar.write_bytes(b"other bytes")
    assert embedded_kafka.fetch_jars(jars) == [jar]
    assert jar.read_bytes() == content

    jars.write_text(line.replace(line.split()[1], "0" * 64))
    jar.unlink()
    with pytest.raises(embedded_kafka.KafkaStartError, match="does not match"):
        embedded_kafka.fetch_jars(jars)
    assert not jar.exists()


@pytest.mark.parametrize("content", [None, "not a list of jars"])
def test_a_list_of_jars_that_cannot_be_read(tmp_path: Path, content: str | None) -> None:
    """It is said in one line that names it."""
    jars = tmp_path / "jars.txt"
    if content:
        jars.write_text(content)
    port = str(embedded_kafka.free_port())
    place = ("--directory", str(tmp_path / "kafka"), "--port", port)
    ended = run_by_hand(*place, "--jars", str(jars))
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"embedded_kafka: cannot read the list of Kafka's jars {jars}: ")
    assert ended.stderr.count("\n") == 1


def test_no_network(tmp_path: Path) -> None:
    """Without jars and without a network, one line says so."""
    port = str(embedded_kafka.free_port())
    place = ("--directory", tmp_path / "kafka", "--port", port)
    ended = subprocess.run(
        [sys.executable, "-m", "embedded_kafka", *place],
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


def test_another_server_comes_to_the_port_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever listens on the port when Kafka has been started for it isn't taken for that Kafka."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        # As if the server had come right after the port was found to be free.
        monkeypatch.setattr(embedded_kafka, "port_is_free", lambda _host, _port: True)
        with pytest.raises(embedded_kafka.KafkaStartError, match="Address already in use"):
            embedded_kafka.start(tmp_path, server.getsockname()[1])


@pytest.mark.parametrize("is_gone", [False, True])
def test_the_usual_port_is_lost_to_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_gone: bool
) -> None:
    """If another program comes to port 9092 first, Kafka starts again, on a port that is free.

    The other program may have ended by the time that Kafka has. Nobody who wants to use this Kafka
    meanwhile is sent to the other program.
    """
    noted = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        ports = iter([taken])
        monkeypatch.setattr(
            embedded_kafka, "_usual_port", lambda: next(ports, None) or embedded_kafka.free_port()
        )
        is_free = embedded_kafka.port_is_free

        def before_it_was_taken(host: str, port: int) -> bool:
            return port == taken or is_free(host, port)

        monkeypatch.setattr(embedded_kafka, "port_is_free", before_it_was_taken)
        start = embedded_kafka._start

        def start_and_end_the_other(*arguments: Any, **options: Any) -> Any:
            try:
                return start(*arguments, **options)
            finally:
                noted.append((tmp_path / "lock").read_text())
                if is_gone:
                    server.close()

        monkeypatch.setattr(embedded_kafka, "_start", start_and_end_the_other)
        broker = embedded_kafka.start(tmp_path)
        broker.stop()
        assert broker.port != taken
        assert noted == ["", ""]


USE = """
import sys, embedded_kafka; from pathlib import Path
with embedded_kafka.use(Path(sys.argv[1])) as broker:
    print(broker.port, bool(broker.own), flush=True)
    sys.stdin.read()
"""


def test_it_is_shared_and_ends_with_the_last(directory: Path) -> None:
    """Whoever comes uses the Kafka that runs, and it outlives a killed starter, not its last user.

    Who comes while it is ending gets a new one.
    """

    def use() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", USE, directory],
            cwd=HERE,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def line(process: subprocess.Popen[str]) -> list[str]:
        assert process.stdout
        return process.stdout.readline().split()

    first, second = use(), use()  # at once: one of them starts it, and the other waits for that
    lines = [line(first), line(second)]
    assert {own for _, own in lines} == {"True", "False"}
    assert lines[0][0] == lines[1][0]
    starter, joiner = (first, second) if lines[0][1] == "True" else (second, first)
    starter.kill()
    starter.wait()
    third = use()
    assert line(third) == [lines[0][0], "False"]
    assert joiner.communicate("")[0] == ""
    assert embedded_kafka.runs_on(directory)
    third.kill()
    third.wait()
    fourth = use()
    assert line(fourth)[1] == "True"
    assert fourth.communicate("")[0] == ""
    assert not embedded_kafka.runs_on(directory)
