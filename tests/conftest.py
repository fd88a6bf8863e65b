"""The Kafka that the tests run on, and the programs as the tests run them: real ones, as processes.

`--broker` says which Kafka: `docker` builds our image and runs it, `embedded` starts the embedded
one, HOST:PORT is one of yours (its four topics are deleted before each test!), and `auto` takes
`docker` where a Docker engine answers and `embedded` otherwise.
"""

import io
import logging
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from _pytest.mark import ParameterSet
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from object_store import BUCKET, FaultyNetwork, ObjectStore

import embedded_kafka
from pipeline.settings import Location
from pipeline.stop_signal import StopSignal
from pipeline.store.database import Database

HERE = Path(__file__).resolve().parents[1]
TOPICS = (
    *("images", "image-events", "alerts", "images-without-event", "notifications"),
    "dead-letters",
)
IMAGE = "pipeline_image"
# Seconds until a test gives up: many, since a busy machine is no fault; a test whose subject is how
# soon something happens has a limit of its own.
PATIENCE = 120
SHOWN_LINES = 40  # of a program's output, in a failure
CHROMIUM = shutil.which("chromium")
# What the examples in other languages than Python are run by.
HAS_LANGUAGES = all(map(shutil.which, ("java", "mvn", "go", "node", "npm", "kcat")))
IS_ROOT = sys.platform == "linux" and os.getuid() == 0 and bool(shutil.which("ip"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--broker", default="auto", help="auto, docker, embedded or HOST:PORT")
    parser.addoption("--all", action="store_true", help="the tests that are marked slow, too")


def names_tests(config: pytest.Config) -> bool:
    """Whether the command line says which tests to run, by a path, -k or -m."""
    has_paths = config.args_source is pytest.Config.ArgsSource.ARGS
    return bool(has_paths or config.option.keyword or config.option.markexpr)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """How many tests run at the same time, each on a Kafka of its worker.

    One more than there are cores: tests wait for programs half of their time. Tests that are named
    run one after the other, so that somebody who looks for a fault sees what they print.
    """
    return 0 if names_tests(config) else (os.cpu_count() or 1) + 1


def slow(*values: object) -> ParameterSet:
    """Parameters of a test that are not in the quick run, while the test with others is."""
    return pytest.param(*values, marks=pytest.mark.slow)


def docker_answers() -> bool:
    """Whether there is a Docker engine to talk to."""
    if not shutil.which("docker"):
        return False
    return subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0


def pytest_configure(config: pytest.Config) -> None:
    chosen = config.getoption("--broker")
    why = "as --broker says"
    if chosen == "auto":
        chosen = "docker" if docker_answers() else "embedded"
        why = "a Docker engine answers" if chosen == "docker" else "no Docker engine answers"
    elif chosen == "docker" and not docker_answers():
        raise pytest.UsageError("--broker=docker, but no Docker engine answers; start one")
    elif chosen not in ("docker", "embedded") and not re.fullmatch(r"[^:]+:\d+", chosen):
        raise pytest.UsageError(f"--broker={chosen} is none of auto, docker, embedded, HOST:PORT")
    config.stash[BROKER] = chosen
    config.stash[WHY] = why
    # A worker of pytest-xdist is given the options as they are after this, and paths in any case.
    if not hasattr(config, "workerinput"):
        config.option.all = config.option.all or names_tests(config)
    # A failure shows what it is about, not each connection that Kafka's client has lost on the way.
    logging.getLogger("kafka").addHandler(logging.NullHandler())
    config.addinivalue_line("markers", "slow: not in the quick run; runs with --all, or if named")
    config.addinivalue_line("markers", "docker: needs a Docker engine; runs with --broker=docker")
    config.addinivalue_line(
        "markers", "browser: looks at pages; runs as the slow ones do, with a chromium"
    )
    config.addinivalue_line(
        "markers", "languages: runs examples with java, mvn, go, node, npm and kcat, if installed"
    )
    config.addinivalue_line(
        "markers", "root: makes file systems and networks; runs as root on Linux"
    )


BROKER = pytest.StashKey[str]()
WHY = pytest.StashKey[str]()


def pytest_report_header(config: pytest.Config) -> str:
    header = f"Kafka: {config.stash[BROKER]} ({config.stash[WHY]})"
    if config.stash[BROKER] != "docker":
        header += "; the tests of the container are left out, --broker=docker runs them"
    if not config.option.all:
        header += "; the slow tests and those of pages are left out, --all runs them"
    elif not CHROMIUM:
        header += "; the tests of pages are left out, an installed chromium runs them"
    if config.option.all and not HAS_LANGUAGES:
        header += (
            "; the examples in other languages than Python are left out, "
            "java, mvn, go, node, npm and kcat run them"
        )
    if not IS_ROOT:
        header += "; the tests of full disks and cut networks are left out, root runs them"
    return header


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    can = {
        "slow": config.option.all,
        "docker": config.stash[BROKER] == "docker",
        "browser": bool(CHROMIUM) and config.option.all,
        "languages": HAS_LANGUAGES,
        "root": IS_ROOT,
    }
    left_out = {marker for marker, is_possible in can.items() if not is_possible}
    out = [item for item in items if any(map(item.get_closest_marker, left_out))]
    config.hook.pytest_deselected(items=out)
    # The longest first, which are the slow ones and then the stories of the whole pipeline: so no
    # worker is still busy with one at the end, when the others have nothing left to do.
    left = [item for item in items if item not in out]
    stories = HERE / "tests"
    items[:] = sorted(
        left,
        key=lambda item: (not item.get_closest_marker("slow"), item.path.parent != stories),
    )


def docker(*arguments: str) -> str:
    """What a docker command prints; it must succeed."""
    ended = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def clone_to(directory: Path) -> Path:
    """A fresh clone of what is here, committed or not."""
    tracked = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(tracked, cwd=HERE, capture_output=True, check=True).stdout.split(b"\0")
    for name in filter(None, map(os.fsdecode, names)):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(HERE / name, directory / name)
    return directory


def until(condition: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    """Wait for the condition, and fail with what was waited for if it doesn't come."""
    __tracebackhide__ = True
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds} s")
        time.sleep(0.02)


@contextmanager
def file_system(directory: Path, size: str) -> Iterator[Path]:
    """A file system of this size in the directory, which is made for it; only root can."""
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", directory], check=True)
    yield directory
    subprocess.run(["umount", "--lazy", directory], check=True)


def fill(disk: Path) -> Path:
    """Leave no room in a file system; the file that takes it."""
    filler = disk / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(disk).free))
    return filler


@pytest.fixture(scope="session", autouse=True)
def temporary_files() -> Iterator[None]:
    """A directory for temporary files of this worker alone.

    In it are the locks of running programs: no other run on this machine is in a test's way.
    """
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("TMPDIR", directory)
        patch.setattr(tempfile, "tempdir", directory)
        yield


@pytest.fixture(scope="session")
def image() -> str:
    """Our Docker image, built."""
    # Its id: a build by another builder may take the name.
    return docker("build", "--quiet", "-t", IMAGE, str(HERE)).strip()


@pytest.fixture(scope="session")
def bootstrap_servers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Where the Kafka of this session is."""
    chosen = request.config.stash[BROKER]
    if chosen == "embedded":
        directory = tmp_path_factory.mktemp("kafka")
        broker = embedded_kafka.start(directory, embedded_kafka.free_port())
        yield broker.bootstrap_servers
        broker.stop()
    elif chosen == "docker":
        name = request.getfixturevalue("image")
        port = str(embedded_kafka.free_port())
        command = ["python", "-P", "-m", "embedded_kafka", "--listen", "0.0.0.0"]  # noqa: S104
        command += ["--directory", "/var/lib/kafka", "--port", port]
        run = ["run", "--rm", "--detach", "-p", f"127.0.0.1:{port}:{port}", name]
        container = docker(*run, *command).strip()
        yield f"localhost:{port}"
        docker("stop", container)
    else:
        yield chosen


class Program:
    """A program that runs, and the lines that it has printed."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        with self.process.stdout as output:
            self.lines.extend(line.rstrip("\n") for line in output)

    def __repr__(self) -> str:
        """The end of the output, for a failed test to show."""
        omitted = max(0, len(self.lines) - SHOWN_LINES)
        return "\n".join([f"… {omitted} lines"] * bool(omitted) + self.lines[omitted:])

    @property
    def output(self) -> str:
        """All that it has printed."""
        return "\n".join(self.lines)

    def says(self, pattern: str, seconds: float = PATIENCE) -> str:
        """Wait for a line that has this pattern, and return it."""
        __tracebackhide__ = True
        end = time.monotonic() + seconds
        searched = 0
        while True:
            has_ended = self.process.poll() is not None
            if has_ended:
                self._reader.join()
            lines = self.lines[searched:]
            found = next((line for line in lines if re.search(pattern, line)), None)
            if found is not None:
                return found
            searched += len(lines)
            if has_ended or time.monotonic() > end:
                how = "ended" if has_ended else f"{seconds} s passed"
                raise AssertionError(f"{how} without {pattern!r}:\n{self}")
            time.sleep(0.02)

    def ends(self, seconds: float = PATIENCE) -> int:
        """Wait until it ends, and return its exit status."""
        status = self.process.wait(seconds)
        self._reader.join()
        return status

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send it a signal; its exit status, which must come within 5 seconds."""
        self.process.send_signal(number)
        return self.ends(5)


@dataclass
class Ended:
    """What a program that was run in this process ended with and printed."""

    status: str | int | None
    lines: list[str]

    @property
    def output(self) -> str:
        """All that it has printed."""
        return "\n".join(self.lines)


class Pipeline:
    """The three programs on a data directory and a Kafka of their own."""

    def __init__(self, data: Path, bootstrap_servers: str) -> None:
        self.data = data
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("KAFKA_")},
            "KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers,
            "PIPELINE_DATA": str(data),
            "KAFKA_WAIT": "60",
        }
        self.bootstrap_servers = bootstrap_servers
        self.started: list[Program] = []
        self._scripts: list[Program] = []  # of these, which start nothing themselves

    def start(self, program: str, *arguments: str, **environment: str) -> Program:
        """Start one of our scripts, or another program."""
        is_script = program.endswith(".py")
        command = [sys.executable, HERE / program] if is_script else [program]
        process = subprocess.Popen(
            [*command, *arguments],
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.data,
        )
        started = Program(process)
        self.started.append(started)
        if is_script:
            self._scripts.append(started)
        return started

    def command(self, name: str, *arguments: str, **environment: str) -> Program:
        """Start a command of `python -m pipeline`."""
        module = ("-m", "pipeline", name, *arguments)
        return self.start(sys.executable, *module, PYTHONPATH=str(HERE), **environment)

    def run_here(self, name: str, *arguments: str, **environment: str) -> "Ended":
        """Run a script or a command to its end in this process, which saves starting another."""
        is_script = name.endswith(".py")
        path = str(HERE / name) if is_script else "pipeline"
        command = [name, *arguments] if is_script else [path, name, *arguments]
        printed = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
        with pytest.MonkeyPatch.context() as patch, ExitStack() as closing:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
                closing.callback(signal.signal, number, signal.getsignal(number))
            closing.enter_context(redirect_stdout(printed))
            closing.enter_context(redirect_stderr(printed))
            patch.chdir(self.data)
            patch.setattr(os, "environ", self.environment | environment)
            patch.setattr(sys, "argv", command)
            with pytest.raises(SystemExit) as ended:
                (runpy.run_path if is_script else runpy.run_module)(path, run_name="__main__")
        printed.seek(0)
        return Ended(ended.value.code, printed.read().splitlines())

    def usage_error(self, name: str, *arguments: str, **environment: str) -> str:
        """The only line of a script or command that ends with 2 for what it was asked."""
        with pytest.MonkeyPatch.context() as patch:
            # Where a program gets as far as this, it has accepted its arguments.
            patch.setattr(StopSignal, "__init__", None)
            ended = self.run_here(name, *arguments, **environment)
        assert ended.status == 2, ended
        (line,) = ended.lines
        return line

    def end_if_hanging(self, transactional_id: str, **environment: str) -> Program:
        """Start what each program does first: to look for its transaction without an end."""
        code = (
            "import sys; from pipeline.stream.connection import Kafka\n"
            "from pipeline.stop_signal import StopSignal\n"
            "from pipeline.stream.hanging import end_if_hanging\n"
            "from pipeline.program import run_program\n"
            "from pipeline.settings import Parser\n"
            "parser = Parser('')\n"
            "kafka = Kafka(parser.settings(parser.parse_args([])), StopSignal())\n"
            "run_program(lambda: end_if_hanging(kafka, sys.argv[1]))"
        )
        program = ("-c", code, transactional_id)
        return self.start(sys.executable, *program, PYTHONPATH=str(HERE), **environment)

    def receive(self, *arguments: str) -> Program:
        """Run image_receiving.py to its end."""
        program = self.start("image_receiving.py", *arguments)
        assert program.ends() == 0, program
        return program

    def close(self) -> None:
        """Kill whatever still runs."""
        for program in self.started:
            if program.process.poll() is None:
                if program not in self._scripts:
                    # It may have started programs that only it knows, and ends them when asked to.
                    program.process.terminate()
                    with suppress(subprocess.TimeoutExpired):
                        program.process.wait(30)
                program.process.kill()
            program.ends()

    def put(self, topic: str, value: bytes | None, key: bytes | None = b"") -> None:
        """Publish what is given, as another program would."""
        self.wait_for_topics()
        producer = KafkaProducer(bootstrap_servers=self.bootstrap_servers)
        producer.send(topic, value, key).get(PATIENCE)
        producer.close()

    def wait_for_topics(self) -> None:
        """Wait until one of the programs has made the topics."""
        admin = KafkaAdminClient(bootstrap_servers=self.bootstrap_servers)
        until(lambda: set(TOPICS) <= set(admin.list_topics()), "the topics")
        admin.wait_for_topics(list(TOPICS))
        admin.close()

    def records(self, topic: str) -> list[ConsumerRecord]:
        """All that readers of committed messages see in a topic now, by partition, in order."""
        with ExitStack() as closing:
            consumer = KafkaConsumer(
                bootstrap_servers=self.bootstrap_servers, isolation_level="read_committed"
            )
            closing.callback(consumer.close)
            numbers = consumer.partitions_for_topic(topic) or ()
            partitions = [TopicPartition(topic, number) for number in numbers]
            consumer.assign(partitions)
            consumer.seek_to_beginning(*partitions)
            ends = consumer.end_offsets(partitions)
            found: list[ConsumerRecord] = []
            while any(consumer.position(partition) < end for partition, end in ends.items()):
                for records in consumer.poll(timeout_ms=500).values():
                    found.extend(records)
        return found

    def ids(self, topic: str) -> list[str]:
        """The image ids of a topic's messages, sorted; twice what is there twice."""
        return sorted(msgspec.json.decode(one.value)["image_id"] for one in self.records(topic))

    def waits_for(self, topic: str, count: int) -> list[ConsumerRecord]:
        """Wait until the topic has as many messages."""
        until(lambda: len(self.records(topic)) >= count, f"{count} in {topic}")
        return self.records(topic)

    def files(self, directory: str) -> list[str]:
        """The names in one of the data directories, hidden ones too."""
        return sorted(os.listdir(self.data / directory))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory with the original image and empty databases."""
    shutil.copytree(HERE / "image_original", tmp_path / "data" / "image_original")
    for name in ("image_database", "image_event_database", "image_event_alerts"):
        (tmp_path / "data" / name).mkdir()
    return tmp_path / "data"


@pytest.fixture
def pipeline(data: Path, bootstrap_servers: str) -> Iterator[Pipeline]:
    """The pipeline with nothing running, on a Kafka without topics of ours."""
    delete_topics(bootstrap_servers)
    pipeline = Pipeline(data, bootstrap_servers)
    yield pipeline
    pipeline.close()


@pytest.fixture
def lone(data: Path) -> Iterator[Pipeline]:
    """A pipeline whose Kafka isn't there."""
    lone = Pipeline(data, f"localhost:{embedded_kafka.free_port()}")
    yield lone
    lone.close()


class StoredPipeline(Pipeline):
    """The three programs on an object store; `data` is only where they are started."""

    def __init__(
        self, data: Path, bootstrap_servers: str, url: str, environment: dict[str, str]
    ) -> None:
        super().__init__(data, bootstrap_servers)
        self.url = url
        self.environment |= {"PIPELINE_DATA": url, **environment}

    def database(self, name: str) -> Database:
        """One of the databases, to be looked at and changed as another program would."""
        return Database(Location(self.url), name)

    def files(self, directory: str) -> list[str]:
        """The names in one of the databases, hidden ones too."""
        return sorted(self.database(directory).names())


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """An object store, which this process's own databases use, too."""
    store = ObjectStore(tmp_path_factory.mktemp("objects"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in store.environment.items():
            patch.setenv(name, value)
        yield store
    store.kill()


@pytest.fixture
def network(object_store: ObjectStore) -> Iterator[FaultyNetwork]:
    """The network before the object store, which works until it's told otherwise."""
    network = FaultyNetwork(object_store)
    yield network
    network.close()


@pytest.fixture
def stored(
    tmp_path: Path, bootstrap_servers: str, network: FaultyNetwork
) -> Iterator[StoredPipeline]:
    """The pipeline on an empty place of the object store, behind the network."""
    delete_topics(bootstrap_servers)
    url = f"s3://{BUCKET}/{tmp_path.name}"
    stored = StoredPipeline(tmp_path, bootstrap_servers, url, network.environment)
    yield stored
    stored.close()


def delete_topics(bootstrap_servers: str) -> None:
    """Delete the four topics, and with them what the groups have committed."""
    end = time.monotonic() + 30
    while True:
        try:
            admin = KafkaAdminClient(bootstrap_servers=bootstrap_servers)
            break
        except Exception:
            assert time.monotonic() < end, f"no Kafka at {bootstrap_servers}"
            time.sleep(0.2)
    there = set(admin.list_topics()) & set(TOPICS)
    if there:
        admin.delete_topics(list(there))
        until(lambda: not set(admin.list_topics()) & set(TOPICS), "topics deleted")
    admin.close()
