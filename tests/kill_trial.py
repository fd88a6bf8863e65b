"""A pipeline behind the kill proxy, tries at it, and an independent reader that counts.

`tools/kill_points.py` makes tries for as long as one likes, `test_kill_points.py` a handful. The
reader is librdkafka's, with read_committed: what our own library would hide, it sees.
"""

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from confluent_kafka import OFFSET_BEGINNING, Consumer, IsolationLevel, KafkaError, Message
from confluent_kafka import KafkaException as ConfluentError
from confluent_kafka import TopicPartition as Partition
from confluent_kafka.admin import AdminClient, OffsetSpec
from kafka import KafkaAdminClient
from kill_proxy import Act, Cut, Delay, Error, KillProxy, Point, Strike, Trap
from PIL import Image

import embedded_kafka

HERE = Path(__file__).resolve().parents[1]
PROGRAMS = ("image_receiving", "image_analysis", "image_event_alert")
STAGES = PROGRAMS[1:]
SOURCES = ("cam1", "cam2", "cam3")
INTERVAL = "0.15"  # seconds between two images of a source
DIRECTORIES = ("image_original", "image_database", "image_event_database", "image_event_alerts")
ALERTS = "alerts"
TOPICS = ("images", "image-events", ALERTS, "images-without-event", "dead-letters")

MOST_SILENCE = 15.0  # seconds that we want at most
PATIENCE = 60.0  # seconds of silence after which a try is given up
REACH = 20.0  # seconds for a point to be reached
DELAYS = (2, 2, 12)  # seconds; the last is more than the stages wait for a transaction

# Which programs send what; some only when they start.
SENDERS = {
    "InitProducerId": PROGRAMS,
    "AddPartitionsToTxn": PROGRAMS,
    "AddOffsetsToTxn": PROGRAMS,
    "Produce": PROGRAMS,
    "TxnOffsetCommit": PROGRAMS,
    "EndTxn": PROGRAMS,
    "WriteTxnMarkers": ("Kafka",),
    "JoinGroup": STAGES,
    "SyncGroup": STAGES,
    "OffsetFetch": PROGRAMS,
    "Metadata": PROGRAMS,
}
AT_THE_START = ("InitProducerId", "JoinGroup", "SyncGroup", "OffsetFetch", "Metadata")
IN_MID_TRANSACTION = ("AddPartitionsToTxn", "AddOffsetsToTxn", "Produce", "TxnOffsetCommit")

# What a broker may answer; by its name: kafka.errors.for_code(N).
ERRORS = {
    "InitProducerId": (14, 15, 16, 51),
    "AddPartitionsToTxn": (3, 14, 15, 16, 47, 48, 51, 90),
    "AddOffsetsToTxn": (14, 15, 16, 47, 51, 90),
    "Produce": (6, 7, 19, 45, 47, 48, 59),
    "TxnOffsetCommit": (14, 15, 16, 22, 25, 47, 82),
    "EndTxn": (14, 15, 16, 47, 48, 51, 90),
    "WriteTxnMarkers": (3, 6),
    "JoinGroup": (14, 15, 16, 25, 27),
    "SyncGroup": (14, 15, 16, 22, 25, 27),
    "OffsetFetch": (14, 16, 88),
    "Metadata": (3, 5),
}
ONLY_REPLACED = ("WriteTxnMarkers", "OffsetFetch", "Metadata")  # such answers, never made here

Kind = Literal["kill", "cut", "delay", "error", "suspend"]
Side = Literal["request", "answer"]
When = Literal["before", "after"]
PLACES: tuple[tuple[Side, When], ...] = (
    ("request", "before"),
    ("request", "after"),
    ("answer", "before"),
)


@dataclass(frozen=True)
class Trial:
    """What is tried: an act on somebody at a point."""

    point: Point
    kind: Kind
    victim: str  # a program, Kafka, or all programs
    sender: str  # of the request
    number: int = 0  # of the error, or of seconds
    skip: int = 0  # so many of the sender's requests first

    def __str__(self) -> str:
        return f"{self.point} {self.kind} {self.victim}"


def trials(chance: random.Random) -> list[Trial]:
    """Each act at each point, in an order and with the numbers that come by chance."""
    found = []
    for api, senders in SENDERS.items():
        for side, when in PLACES:
            point = Point(api, side, when, chance.randrange(50) if when == "after" else 0)
            kinds: list[tuple[Kind, int]] = [("cut", 0)]
            if when == "before":
                kinds.append(("delay", chance.choice(DELAYS)))
                if side == "answer" or api not in ONLY_REPLACED:
                    kinds.append(("error", chance.choice(ERRORS[api])))
            for kind, number in kinds:
                found += [Trial(point, kind, one, one, number) for one in senders]
            victims = senders if senders in (PROGRAMS, STAGES) else PROGRAMS
            for victim in victims:
                sender = victim if victim in senders else senders[0]
                found.append(Trial(point, "kill", victim, sender))
            found.append(Trial(point, "kill", "Kafka", chance.choice(senders)))
            if (side, when) == ("answer", "before") and api in IN_MID_TRANSACTION:
                found += [Trial(point, "suspend", one, one) for one in senders]
                found.append(Trial(point, "suspend", "all", chance.choice(senders)))
    chance.shuffle(found)
    most = {"Metadata": 3} | dict.fromkeys(set(SENDERS) - set(AT_THE_START), 5)
    return [
        Trial(
            one.point,
            one.kind,
            one.victim,
            one.sender,
            one.number,
            chance.randrange(most.get(one.point.api, 1)),
        )
        for one in found
    ]


@dataclass
class Outcome:
    """What came of a try."""

    is_reached: bool = True
    silence: float = 0  # seconds until each source had an alert again
    lost: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)  # partitions
    ended: list[str] = field(default_factory=list)  # programs, otherwise than they must

    @property
    def faults(self) -> list[str]:
        """All that must not be, a line each."""
        found = [f"lost: {one}" for one in self.lost]
        found += [f"twice: {one}" for one in self.twice]
        found += [f"stuck: {one}" for one in self.stuck]
        found += [f"ended: {one}" for one in self.ended]
        if self.silence > MOST_SILENCE:
            found.append(f"silent for {self.silence:.1f} s")
        return found

    @property
    def is_hopeless(self) -> bool:
        """Whether this pipeline is of no use any more."""
        return bool(self.stuck) or self.silence >= PATIENCE


class Reader:
    """Counts what is in the topics, in a thread of its own, and looks at the files."""

    def __init__(self, bootstrap_servers: str, data: Path, outcome: Outcome) -> None:
        self.outcome = outcome  # of the try that goes on
        self.counts: dict[str, Counter[str]] = {topic: Counter() for topic in TOPICS}
        self.newest: dict[str, int] = dict.fromkeys(SOURCES, -1)  # the number of the last alert
        self.received: dict[str, float] = dict.fromkeys(SOURCES, 0.0)  # when its image was
        self._data = data
        options = {
            "bootstrap.servers": bootstrap_servers,
            "reconnect.backoff.max.ms": 200,
            "log_level": 0,
        }
        self._admin = AdminClient(options)
        self.partitions = self._wait_for_topics()
        self._consumer = Consumer(
            {
                **options,
                "group.id": "kill_trial",  # which it never joins
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "fetch.wait.max.ms": 100,
            }
        )
        ours = [one for one in self.partitions if one.topic in TOPICS]
        self._consumer.assign(
            [Partition(one.topic, one.partition, OFFSET_BEGINNING) for one in ours]
        )
        self._is_closed = False
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End."""
        self._is_closed = True
        self._thread.join()
        self._consumer.close()

    def ends(self, level: IsolationLevel) -> dict[tuple[str, int], int]:
        """Each partition's last stable offset (READ_COMMITTED), or its high watermark."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                asked = {one: OffsetSpec.latest() for one in self.partitions}
                futures = self._admin.list_offsets(asked, isolation_level=level, request_timeout=5)
                return {
                    (one.topic, one.partition): future.result().offset
                    for one, future in futures.items()
                }
            except ConfluentError:
                if time.monotonic() > end:
                    raise
                # It doesn't ask by itself who leads the partitions of a Kafka that was away.
                with suppress(ConfluentError):
                    self._admin.list_topics(timeout=5)
                time.sleep(0.2)

    def stuck(self, high: dict[tuple[str, int], int], seconds: float) -> list[str]:
        """The partitions whose last stable offset doesn't come so far."""
        end = time.monotonic() + seconds
        while True:
            stable = self.ends(IsolationLevel.READ_COMMITTED)
            behind = [
                f"{topic}[{number}] at {stable[topic, number]} of {offset}"
                for (topic, number), offset in high.items()
                if stable[topic, number] < offset
            ]
            if not behind or time.monotonic() > end:
                return behind
            time.sleep(0.1)

    def _wait_for_topics(self) -> list[Partition]:
        wanted = {*TOPICS, "__consumer_offsets"}
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            with suppress(ConfluentError):
                topics = self._admin.list_topics(timeout=5).topics
                if wanted <= topics.keys() and all(topics[one].partitions for one in wanted):
                    return [Partition(one, n) for one in wanted for n in topics[one].partitions]
            time.sleep(0.2)
        raise TimeoutError("the programs have made no topics")

    def _read(self) -> None:
        while not self._is_closed:
            for message in self._consumer.consume(500, 0.05):
                error = message.error()
                if error is None:
                    self._take(message)
                elif error.code() == KafkaError._AUTO_OFFSET_RESET:
                    self.outcome.lost.append(f"{message.topic()}: records it had: {error}")

    def _take(self, message: Message) -> None:
        topic, value = str(message.topic()), message.value() or b""
        if topic == "dead-letters":
            headers = dict(message.headers() or ())
            why = headers.get("__connect.errors.exception.message")
            self.outcome.lost.append(f"set aside: {value!r}: {why!r}")
            return
        content = json.loads(value)
        name = content["image_id"]
        source, _, digits = name.rpartition("-")
        self.counts[topic][name] += 1
        is_event = int(digits) % 4 == 3
        if self.counts[topic][name] > 1:
            self.outcome.twice.append(f"{topic}: {name}")
        elif topic != "images" and is_event == (topic == "images-without-event"):
            self.outcome.twice.append(f"{topic}: {name}, which doesn't belong there")
        for prefix in ("", "difference_"):
            path, digest = content.get(f"{prefix}path"), content.get(f"{prefix}sha256")
            if path and not self._is_whole(path, digest):
                self.outcome.lost.append(f"the file {path}, which {topic} has")
        if topic == ALERTS:
            self.newest[source] = max(self.newest[source], int(digits))
            received = datetime.fromisoformat(content["received"]).timestamp()
            self.received[source] = max(self.received[source], received)

    def _is_whole(self, path: str, digest: str) -> bool:
        with suppress(OSError):
            return sha256((self._data / path).read_bytes()).hexdigest() == digest
        return False


class TriedPipeline:
    """Kafka and the three programs, which go on from try to try, and a reader."""

    def __init__(self, directory: Path, jars: Path | None = None) -> None:
        """`jars` is the list of another Kafka's, as for `embedded_kafka.start`."""
        self.outcome = Outcome()
        self.data = directory / "data"
        self._directory = directory
        self._more: dict[str, Any] = {"jars": jars} if jars else {}
        for name in DIRECTORIES:
            (self.data / name).mkdir(parents=True)
        (directory / "tmp").mkdir()
        original = Path("image_original", "original_image.jpg")
        with Image.open(HERE / original) as image:
            image.resize((64, 48)).save(self.data / original)
        self._programs: dict[str, subprocess.Popen[bytes]] = {}
        self._checked: dict[str, int] = dict.fromkeys(SOURCES, 0)  # all before is accounted for
        self._broker_port = embedded_kafka.free_port()
        port = embedded_kafka.free_port()
        while port == self._broker_port:
            port = embedded_kafka.free_port()
        self.bootstrap_servers = f"localhost:{port}"
        self._proxy = KillProxy(port, self._broker_port, self._pids)
        self._broker: embedded_kafka.Broker
        self._start_kafka()
        for name in reversed(PROGRAMS):
            self._start(name)
        self._reader = Reader(self.bootstrap_servers, self.data, self.outcome)
        self._wait_for_alerts(time.time())

    def attempt(self, trial: Trial) -> Outcome:
        """Do it, start again who was killed, wait until all flows again, and count."""
        outcome = self.outcome
        trap = Trap(trial.point, self._act(trial), trial.sender, trial.skip)
        self._proxy.arm(trap)
        if trial.point.api in AT_THE_START:
            self._kill(trial.sender)
            self._start(trial.sender)
        outcome.is_reached = trap.sprung.wait(REACH)
        self._proxy.disarm()
        if trap.fault:
            raise RuntimeError(f"{trial}: the proxy failed: {trap.fault}")
        if outcome.is_reached:
            if trial.kind == "kill":
                self._restart(trial.victim)
            elif trial.kind == "suspend":
                self._wait_for_abort(trap)
                for name in self._victims(trial):
                    self._programs[name].send_signal(signal.SIGCONT)
        since = time.time()
        high = self._reader.ends(IsolationLevel.READ_UNCOMMITTED)
        outcome.silence = self._wait_for_alerts(since)
        outcome.stuck = self._reader.stuck(high, MOST_SILENCE)
        self._check(5)
        self._begin_anew()
        return outcome

    def take_over(self, trial: Trial) -> Outcome:
        """Kill a stage at the point beside another copy of it, and start nobody again."""
        stage = trial.victim
        self._start(stage, "copy")
        self._wait_for_members(stage, 2)
        outcome = self.outcome
        trap = Trap(trial.point, self._act(trial), trial.sender, trial.skip)
        self._proxy.arm(trap)
        outcome.is_reached = trap.sprung.wait(REACH)
        self._proxy.disarm()
        self._popen(stage).wait()
        self._programs[stage] = self._programs.pop("copy")
        outcome.silence = self._wait_for_alerts(time.time())
        self._check(5)
        self._begin_anew()
        return outcome

    def finish(self, patience: float = PATIENCE) -> Outcome:
        """End receiving, wait until all went all the way, and count once more."""
        outcome = self.outcome
        receiving = self._programs["image_receiving"]
        receiving.terminate()
        try:
            receiving.wait(10)
        except subprocess.TimeoutExpired:
            receiving.send_signal(signal.SIGABRT)  # it says where each of its threads is
            receiving.wait()
            where = self.said("image_receiving")
            outcome.ended.append(f"image_receiving only after 10 s and SIGABRT: {where}")
        lines = self._log("image_receiving").read_text()
        said = re.findall(r"^(\S+)  received", lines, re.MULTILINE)
        names = set(said).union(*self._reader.counts.values())
        numbers = [one.rpartition("-")[::2] for one in names]
        for source in SOURCES:
            last = max((int(digits) for one, digits in numbers if one == source), default=-1)
            self._reader.newest[source] = last
        self._check(patience)
        high = self._reader.ends(IsolationLevel.READ_UNCOMMITTED)
        outcome.stuck = self._reader.stuck(high, patience)
        self._begin_anew()
        return outcome

    def close(self) -> None:
        """Kill all."""
        if hasattr(self, "_reader"):
            self._reader.close()
        for name in self._programs:
            self._kill(name)
        self._broker.process.kill()
        self._broker.process.wait()
        self._proxy.close()

    def said(self, name: str) -> str:
        """The last lines of a program."""
        return "\n".join(self._log(name).read_text(errors="replace").splitlines()[-3:])

    def _begin_anew(self) -> None:
        """From here on, what comes to light is noted with the next try."""
        self.outcome = self._reader.outcome = Outcome()

    def _pids(self) -> dict[str, int]:
        pids = {name: program.pid for name, program in self._programs.items()}
        return pids | {"Kafka": self._broker.process.pid}

    def _act(self, trial: Trial) -> Act:
        match trial.kind:
            case "kill":
                drops = trial.victim in (trial.sender, "Kafka")
                return Strike(lambda: self._popen(trial.victim).kill(), drops)
            case "suspend":
                return Strike(lambda: self._suspend(trial), drops=False)
            case "cut":
                return Cut()
            case "delay":
                return Delay(trial.number)
            case "error":
                return Error(trial.number)

    def _popen(self, name: str) -> "subprocess.Popen[bytes]":
        return self._broker.process if name == "Kafka" else self._programs[name]

    def _victims(self, trial: Trial) -> tuple[str, ...]:
        return PROGRAMS if trial.victim == "all" else (trial.victim,)

    def _suspend(self, trial: Trial) -> None:
        for name in self._victims(trial):
            self._programs[name].send_signal(signal.SIGSTOP)

    def _log(self, name: str) -> Path:
        return self._directory / f"{name}.log"

    def _start(self, name: str, known_as: str = "") -> None:
        arguments = []
        if name == "image_receiving":
            arguments = ["--count", "999999", "--sources", str(len(SOURCES))]
            arguments += ["--interval", INTERVAL]
        environment = {
            **{one: value for one, value in os.environ.items() if not one.startswith("KAFKA_")},
            "KAFKA_BOOTSTRAP_SERVERS": self.bootstrap_servers,
            "PIPELINE_DATA": str(self.data),
            "PYTHONFAULTHANDLER": "1",
            "TMPDIR": str(self._directory / "tmp"),  # so that no other pipeline's copies count
        }
        with self._log(name).open("ab") as log:
            self._programs[known_as or name] = subprocess.Popen(
                [sys.executable, str(HERE / f"{name}.py"), *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Where one is suspended, the end of whoever started us is a SIGHUP for its group.
                start_new_session=True,
            )

    def _kill(self, name: str) -> None:
        self._programs[name].kill()
        self._programs[name].wait()

    def _restart(self, name: str) -> None:
        """Start what was killed."""
        self._popen(name).wait()
        if name == "Kafka":
            self._proxy.refuse()
            self._start_kafka()
        else:
            self._start(name)

    def _start_kafka(self) -> None:
        properties = [f"advertised.listeners=PLAINTEXT://{self.bootstrap_servers}"]
        self._broker = embedded_kafka.start(
            self._directory / "kafka", self._broker_port, properties, **self._more
        )
        self._proxy.listen()

    def _wait_for_members(self, group: str, number: int) -> None:
        """Wait until so many copies share a group's partitions."""
        admin = KafkaAdminClient(bootstrap_servers=self.bootstrap_servers)
        end = time.monotonic() + PATIENCE
        while True:
            found = admin.describe_groups([group])[group]
            if found["group_state"] == "Stable" and len(found["members"]) == number:
                break
            if time.monotonic() > end:
                raise TimeoutError(f"{group} does not get {number} members")
            time.sleep(0.1)
        admin.close()

    def _wait_for_abort(self, trap: Trap) -> None:
        """Wait until Kafka has ended the transaction of the trapped request by its time-out."""
        assert trap.request
        asked = trap.request.decoded()
        is_partitions = trap.point.api == "AddPartitionsToTxn"
        name = asked.v3_and_below_transactional_id if is_partitions else asked.transactional_id
        admin = KafkaAdminClient(bootstrap_servers=self.bootstrap_servers)
        end = time.monotonic() + PATIENCE
        while admin.describe_transactions([name])[name].state == "Ongoing":
            if time.monotonic() > end:
                raise TimeoutError(f"Kafka does not end the transaction of {name}")
            time.sleep(0.2)
        admin.close()

    def _wait_for_alerts(self, since: float) -> float:
        """Wait until each source has an alert of an image received since; how many seconds."""
        while min(self._reader.received.values()) < since:
            silence = time.time() - since
            if silence > PATIENCE:
                return silence
            for name, program in self._programs.items():
                if program.poll() is not None:
                    status = program.returncode
                    self.outcome.ended.append(f"{name} with status {status}: {self.said(name)}")
                    self._start(name)
            time.sleep(0.02)
        return time.time() - since

    def _check(self, seconds: float) -> None:
        """Each image up to the newest alert, and what comes of it, is there."""
        end = time.monotonic() + seconds
        newest = dict(self._reader.newest)  # a source's images go in order: those before, too
        while missing := list(self._missing(newest)):
            if time.monotonic() > end:
                self.outcome.lost += missing
                break
            time.sleep(0.1)
        self._checked = {source: number + 1 for source, number in newest.items()}

    def _missing(self, newest: dict[str, int]) -> Iterator[str]:
        counts = self._reader.counts
        for source in SOURCES:
            for number in range(self._checked[source], newest[source] + 1):
                name = f"{source}-{number:05d}"
                is_event = number % 4 == 3
                topics = ("image-events", ALERTS) if is_event else ("images-without-event",)
                yield from (
                    f"{one}: {name}" for one in ("images", *topics) if not counts[one][name]
                )
