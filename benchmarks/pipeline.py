"""Pipeline: the three programs as processes, against the plain pipeline and against the limit.

Each way of writing the programs has its own topics on the same Kafka and its own directory, and
runs from round to round. A round receives a number of images and ends with the last alert. The time
from received to alert ends when a read_committed consumer has the alert: the alert's own timestamp
is from before its transaction was committed, when nobody could read the alert.
"""

import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec
import numpy as np
from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition

import embedded_kafka
from benchmarks import limit
from benchmarks.images import Kind, jpeg, star_field
from benchmarks.rounds import ROUNDS, Figure, Measure, interleaved, over
from pipeline.messages import ALERTS, IMAGES
from pipeline.store.names import (
    IMAGE_DATABASE,
    IMAGE_EVENT_ALERTS,
    IMAGE_EVENT_DATABASE,
    IMAGE_ORIGINAL,
)
from pipeline.stream.create_topics import PARTITIONS, TOPICS

HERE = Path(__file__).resolve().parents[1]
PLAIN_PROGRAMS = HERE / "benchmarks" / "plain_pipeline"
MAX_SILENCE = 120  # seconds without an alert

Command = tuple[str, ...]  # for Python


@dataclass(frozen=True)
class Way:
    """A way of writing the three programs."""

    receiving: Command
    stages: tuple[Command, ...]
    images: str  # topics
    alerts: str


RECEIVING, ANALYSIS, ALERT = (
    (str(HERE / f"{name}.py"),)
    for name in ("image_receiving", "image_analysis", "image_event_alert")
)
OURS = Way(RECEIVING, (ANALYSIS, ALERT), IMAGES, ALERTS)
PLAIN = Way(
    (str(PLAIN_PROGRAMS / "receiving.py"),),
    ((str(PLAIN_PROGRAMS / "analysis.py"),), (str(PLAIN_PROGRAMS / "alert.py"),)),
    "plain-images",
    "plain-alerts",
)
LIMIT = Way(
    ("-m", "benchmarks.limit", "receiving"),
    (("-m", "benchmarks.limit", "analysis"), ("-m", "benchmarks.limit", "alert")),
    limit.IMAGES,
    limit.ALERTS,
)
WAYS = {"ours": OURS, "plain pipeline": PLAIN, "limit": LIMIT}


@dataclass(frozen=True)
class Load:
    """A kind of images, and how many of them each way receives in a round.

    Flat out, a round takes a few seconds. Numbers are multiples of 4: the last image is an event.
    """

    kind: Kind
    flat_out: Mapping[str, int]  # images by way
    at_rate: int  # images
    per_second: int  # images, at the rate
    bar: float | None = None  # images/s over the plain pipeline, flat out
    bar_p99: float | None = None  # ms from received to alert, at the rate


LOADS = (
    Load(
        Kind("350x350", 350, 350),
        flat_out={"ours": 2000, "plain pipeline": 200, "limit": 4000},
        at_rate=400,
        per_second=50,
        bar=10,
        bar_p99=250,
    ),
    # The limit reads no image, so it has no figure for another size.
    Load(Kind("2 MP", 1414, 1414), {"ours": 60, "plain pipeline": 16}, at_rate=40, per_second=10),
)


@dataclass(frozen=True)
class Passage:
    """A round of images that went through all three programs."""

    images: int
    seconds: float  # from the first image received to the last alert read
    waits: list[float]  # seconds from received to alert of each event, the longest last

    @property
    def rate(self) -> float:
        """Images per second."""
        return self.images / self.seconds

    def wait(self, share: float) -> float:
        """The milliseconds within which this share of the events has its alert."""
        return self.waits[math.ceil(share * len(self.waits)) - 1] * 1000


class Reader:
    """A consumer of the committed messages that come to a topic from now on."""

    def __init__(self, server: str, topic: str, closing: ExitStack) -> None:
        self._consumer = KafkaConsumer(
            bootstrap_servers=server, isolation_level="read_committed", enable_auto_commit=False
        )
        closing.callback(self._consumer.close, autocommit=False)
        numbers = self._consumer.partitions_for_topic(topic) or ()
        self._partitions = [TopicPartition(topic, number) for number in numbers]
        self._consumer.assign(self._partitions)
        self.to_end()

    def to_end(self) -> None:
        """Skip the messages that are there already."""
        self._consumer.seek_to_end(*self._partitions)
        for partition in self._partitions:
            self._consumer.position(
                partition
            )  # seek_to_end is only done when the position is asked for

    def received(self) -> list[float]:
        """When the images of the next messages were received, in seconds since 1970."""
        return [
            datetime.fromisoformat(msgspec.json.decode(record.value)["received"]).timestamp()
            for records in self._consumer.poll(timeout_ms=100).values()
            for record in records
        ]


class Course:
    """The running programs of a way, and the consumers that time them."""

    def __init__(self, way: Way, server: str, data: Path, closing: ExitStack) -> None:
        self.way = way
        self.data = data
        self.programs: dict[str, subprocess.Popen[bytes]] = {}
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("KAFKA_")},
            "KAFKA_BOOTSTRAP_SERVERS": server,
            "PIPELINE_DATA": str(data),
            "PYTHONPATH": str(HERE),
        }
        self._alerts = Reader(server, way.alerts, closing)
        self._images = Reader(server, way.images, closing)
        closing.callback(self.stop)

    def start(self) -> None:
        """Start the stages."""
        for number, command in enumerate(self.way.stages, 1):
            self._start(f"{Path(command[-1]).stem} {number}", command)

    def stop(self) -> None:
        """End all programs."""
        for program in self.programs.values():
            program.terminate()
        for program in self.programs.values():
            program.wait()
        self.programs.clear()

    def _start(self, name: str, command: Sequence[str]) -> None:
        with (self.data / f"{name}.log").open("wb") as log:
            self.programs[name] = subprocess.Popen(
                [sys.executable, *command],
                cwd=self.data,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def receive(self, count: int, *options: str) -> None:
        """Start the program that receives `count` images."""
        self._start("receiving", [*self.way.receiving, "--count", str(count), *options])

    def passage(
        self,
        count: int,
        *options: str,
        sources: int = 1,
        watch: Callable[[float], object] = float,
    ) -> Passage:
        """Receive `count` images of each source, a multiple of 4, and wait for the last alert.

        `watch` is called now and then with the share of the alerts that have come.
        """
        os.sync()  # so that this round doesn't wait for what was written before
        self._images.to_end()
        self.receive(count, *options)
        waits = self.alerts(count * sources // 4, watch)
        end = time.time()
        self._ends("receiving")
        first = min(self._images.received())
        return Passage(count * sources, end - first, sorted(waits))

    def alerts(self, count: int, watch: Callable[[float], object] = float) -> list[float]:
        """Wait for `count` alerts. Returns the seconds of each from received to alert."""
        waits: list[float] = []
        last = time.monotonic()
        while len(waits) < count:
            received = self._alerts.received()
            now = time.time()
            waits += [now - moment for moment in received]
            last = time.monotonic() if received else last
            for name in [name for name, program in self.programs.items() if program.poll()]:
                self._ends(name)
            if time.monotonic() - last > MAX_SILENCE:
                sys.exit(f"benchmarks: no alert in {MAX_SILENCE} s; see {self.data}")
            watch(len(waits) / count)
        return waits

    def _ends(self, name: str) -> None:
        status = self.programs.pop(name).wait()
        if status != 0:
            said = (self.data / f"{name}.log").read_text(errors="replace").splitlines()[-1:]
            sys.exit(
                f"benchmarks: {name} of {self.way.alerts} ended with {status}: {''.join(said)}"
            )


@contextmanager
def kafka() -> Iterator[embedded_kafka.Broker]:
    """A new Kafka with the topics of each way."""
    with tempfile.TemporaryDirectory(prefix="benchmarks-kafka-") as directory:
        broker = embedded_kafka.start(Path(directory), embedded_kafka.free_port())
        try:
            make_topics(broker.bootstrap_servers)
            yield broker
        finally:
            broker.stop()


def make_topics(server: str) -> None:
    """Create the topics of each way; those of the plain way with Kafka's defaults."""
    partitions = {
        **dict.fromkeys(TOPICS, PARTITIONS),
        **dict.fromkeys((limit.IMAGES, limit.IMAGE_EVENTS, limit.ALERTS), PARTITIONS),
        **dict.fromkeys((PLAIN.images, "plain-image-events", PLAIN.alerts), 1),
    }
    admin = KafkaAdminClient(bootstrap_servers=server)
    new = {
        topic: {"num_partitions": number, "configs": TOPICS.get(topic, {})}
        for topic, number in partitions.items()
    }
    admin.create_topics(new)
    admin.wait_for_topics(list(new))
    admin.close()


def directory(kind: Kind, closing: ExitStack) -> Path:
    """A data directory with an original image of this kind, which is deleted on closing."""
    data = Path(tempfile.mkdtemp(prefix="benchmarks-"))
    closing.callback(shutil.rmtree, data)
    for name in (IMAGE_ORIGINAL, IMAGE_DATABASE, IMAGE_EVENT_DATABASE, IMAGE_EVENT_ALERTS):
        (data / name).mkdir()
    field = star_field(np.random.default_rng(5), kind)
    (data / IMAGE_ORIGINAL / "original_image.jpg").write_bytes(jpeg(field))
    return data


def figures(loads: Sequence[Load] = LOADS, rounds: int = ROUNDS) -> Iterator[Figure]:
    """Images per second and milliseconds to alert, flat out and at the rate."""
    for load in loads:
        with ExitStack() as closing:
            server = closing.enter_context(kafka()).bootstrap_servers
            courses = {
                name: Course(WAYS[name], server, directory(load.kind, closing), closing)
                for name in load.flat_out
            }
            for course in courses.values():
                course.start()
            for course in courses.values():
                course.passage(4)  # everything is connected, and has done all once
            turns = take_turns(courses, load.flat_out, rounds)
            rates = {name: [passage.rate for passage in turns[name]] for name in turns}
            for name in courses:
                row = f"{load.kind.name} flat out, {name}"
                yield Figure("pipeline", row, "images/s", rates[name], unit="", is_checked=False)
                yield from wait_figures(row, turns[name])
                if name != "ours":
                    row = f"{load.kind.name} flat out, ours"
                    bar = load.bar if name == "plain pipeline" else None
                    ratio = over(rates["ours"], rates[name])
                    yield Figure("pipeline", row, f"over the {name}", ratio, bar=bar)

            # In a way that is slower than the rate, images would queue up longer and longer.
            able = {name: courses[name] for name in courses if min(rates[name]) > load.per_second}
            counts = dict.fromkeys(courses, load.at_rate)
            interval = f"{1 / load.per_second:f}"
            turns = take_turns(able, counts, rounds, "--interval", interval)
            for name in courses:
                row = f"{load.kind.name} at {load.per_second}/s, {name}"
                bar = load.bar_p99 if name == "ours" else None
                yield from wait_figures(row, turns.get(name, []), bar)


def take_turns(
    courses: Mapping[str, Course], counts: Mapping[str, int], rounds: int, *options: str
) -> dict[str, list[Passage]]:
    """The passages of each course, which take turns; `counts` says the images of a round."""
    passages: dict[str, list[Passage]] = {name: [] for name in courses}

    def measure(name: str) -> Measure:
        def once() -> float:
            passages[name].append(courses[name].passage(counts[name], *options))
            return passages[name][-1].rate

        return once

    interleaved({name: measure(name) for name in courses}, rounds)
    return passages


def wait_figures(row: str, passages: list[Passage], bar: float | None = None) -> Iterator[Figure]:
    """The milliseconds from received to alert, by round; the maximum is of all rounds."""
    if not passages:
        yield Figure("pipeline", row, "p50", [], note="too slow for that")
        return
    for column, found in {
        "p50": [passage.wait(0.5) for passage in passages],
        "p99": [passage.wait(0.99) for passage in passages],
        "maximum": [max(passage.wait(1) for passage in passages)],
    }.items():
        yield Figure(
            "pipeline",
            row,
            column,
            found,
            is_better="lower",
            bar=bar if column == "p99" else None,
            unit=" ms",
            is_checked=False,
        )
