"""Chaos: everything that can die is killed while images flow, then every image is accounted for.

    ./run_pipeline.sh --chaos [--seed N] [--count N]

Two instances of each stage, and receivers for two sources, run on an embedded Kafka in a directory
of their own, or below PIPELINE_DATA where that is a URL. Programs and Kafka get SIGKILL, stages are
frozen, messages come twice, rubbish comes to every topic, stored images are truncated. The images
are made here, so it is known what must come of them: ends with 0 if nothing is lost or there twice.
"""

import dataclasses
import io
import math
import os
import random
import shutil
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from kafka import KafkaProducer
from kafka.consumer.fetcher import ConsumerRecord
from PIL import Image

import embedded_kafka
from pipeline.errors import FatalError, InvalidInput, Stopped
from pipeline.messages import (
    ALERTS,
    DEAD_LETTERS,
    IMAGE_EVENTS,
    IMAGES,
    Alert,
    ImageEvent,
    ReceivedImage,
    image_id,
    parse,
)
from pipeline.operate.child_programs import ChildProgram, end_all, start_kafka
from pipeline.pictures.mock import ORIGINAL, read_original
from pipeline.settings import Location, Parser, Settings, matching
from pipeline.stages import CONSUMING_STAGES, STAGES
from pipeline.stop_signal import StopSignal
from pipeline.store.database import Database
from pipeline.store.instance_lock import InstanceLock
from pipeline.store.names import (
    IMAGE_DATABASE,
    IMAGE_EVENT_ALERTS,
    IMAGE_EVENT_DATABASE,
    IMAGE_ORIGINAL,
    digest,
)
from pipeline.store.numbering import last_image
from pipeline.stream.connection import Kafka
from pipeline.stream.create_topics import TOPICS
from pipeline.stream.dead_letters import DeadLetter
from pipeline.stream.groups import committed_offsets, is_committed
from pipeline.stream.positions import RecordPosition, position_of
from pipeline.stream.topic_reader import TopicReader
from pipeline.terminal import say
from pipeline.wording import count_of

SOURCES = ("", "cam1")
INSTANCES = 2  # of each stage
LAST = 50  # images of a source that are received undisturbed, so that no outbox is left at the end
SILENT_SECONDS = 4  # without a line, after which one says how far it is
SETTLE_SECONDS = 180  # in which all that was received must have gone all the way
CONSUMED = {stage.consumes for stage in CONSUMING_STAGES}  # topics
RUBBISH = (b"", b"rubbish", b"\xff\xfe\x00", b"{}", b"[" * 9999, b'{"image_id": "00003"}')


class Chaos:
    """A pipeline, and what is done to it."""

    def __init__(self, settings: Settings, directory: Path, seed: int, closing: ExitStack) -> None:
        """Start Kafka and the stages; `closing` ends them and everything that is started later."""
        self.databases = {
            stage.writes: Database(settings.data, stage.writes, InstanceLock("chaos", settings))
            for stage in STAGES
        }
        self.kills: Counter[str] = Counter()
        self.sent: set[RecordPosition] = set()  # by us, not by the pipeline
        self.rubbish: set[RecordPosition] = set()
        self.truncated: set[str] = set()  # ids of images
        self.faults: list[str] = []  # of programs
        self._directory = directory  # of Kafka's topics and the programs' output
        self._settings = settings
        self._random = random.Random(seed)  # noqa: S311 (the same seed must give the same order)
        self._stop = StopSignal(status=130)
        self._began = self._last_line = time.monotonic()
        self._thaw_times: dict[ChildProgram, float] = {}  # of frozen stages
        self._receivers: dict[str, ChildProgram] = {}  # by source
        ended = threading.Event()
        closing.callback(ended.set)
        threading.Thread(target=self._say_progress, args=(ended,), daemon=True).start()
        self._say("Kafka starts, then two instances of each stage")
        self._broker = self._start_kafka()
        self._stages = [
            self._start(stage.name) for _ in range(INSTANCES) for stage in CONSUMING_STAGES
        ]
        closing.callback(self._end)
        self._kafka = Kafka(settings, self._stop)

    def run(self, count: int) -> None:
        """Receive so many images of each source, and do one thing after the other meanwhile."""
        attacks = self._attacks(count * len(SOURCES))
        while attacks:
            for source in SOURCES:
                left = count - LAST - self._stored(source)
                self._receive(source, math.ceil(left / len(attacks)))
            self._pause(1)
            self._thaw(time.monotonic())
            attacks.pop()()
        self._thaw(math.inf)
        self._say("no more attacks: the rest is received, and goes all the way")
        for receiver in self._receivers.values():
            receiver.process.wait()
        for source in SOURCES:
            self._receive(source, count - self._stored(source))
            self._receivers[source].process.wait()
        end = time.monotonic() + SETTLE_SECONDS
        while not self._is_processed() and time.monotonic() < end:
            self._stop.wait(1)

    def records(self, topic: str) -> list[ConsumerRecord]:
        """All committed records of a topic."""
        with self._kafka.connect(TopicReader) as topics:
            return list(topics.read_all(topic))

    def _attacks(self, images: int) -> list[Callable[[], None]]:
        """What is done while so many images are received, in an order that the seed decides."""
        attacks = [
            *[self._kill_a_stage] * (3 + images // 80),
            *[self._kill_a_receiver] * (2 + images // 130),
            *[self._kill_all_programs] * (1 + images // 700),
            *[self._kill_kafka] * (1 + images // 1000),
            *[self._restart_kafka] * (1 + images // 2000),
            *[self._freeze_a_stage] * (1 + images // 500),
            *[self._send_again] * (2 + images // 200),
            *[self._send_rubbish] * (2 + images // 200),
            *[self._truncate_an_image] * (1 + images // 500),
        ]
        self._random.shuffle(attacks)
        return attacks

    def _kill_a_stage(self) -> None:
        self._kill([self._random.randrange(len(self._stages))])

    def _kill(self, numbers: Iterable[int]) -> None:
        """Kill the stages with these numbers, and start them again a little later."""
        for number in numbers:
            stage = self._stages[number]
            self._check_running(stage)
            stage.process.kill()
            self._thaw_times.pop(stage, None)
            self.kills["programs"] += 1
            self._say(f"SIGKILL for {stage.name}")
        self._pause(1.5)
        for number in numbers:
            self._stages[number].process.wait()
            self._stages[number] = self._start(self._stages[number].name)

    def _kill_a_receiver(self) -> None:
        self._pause(0.5)
        receiver = self._receivers.get(self._random.choice(SOURCES))
        if receiver and receiver.is_running:
            receiver.process.kill()
            self.kills["programs"] += 1
            self._say("SIGKILL for image_receiving")

    def _kill_all_programs(self) -> None:
        for receiver in self._receivers.values():
            self.kills["programs"] += receiver.is_running
            receiver.process.kill()
        self._kill(range(len(self._stages)))

    def _kill_kafka(self) -> None:
        self._say("SIGKILL for Kafka")
        self._broker.process.kill()
        self._broker.process.wait()
        self.kills["Kafka"] += 1
        self._pause(2)
        self._broker = self._start_kafka()

    def _restart_kafka(self) -> None:
        self._say("restart of Kafka")
        self._broker.stop()
        self.kills["Kafka"] += 1
        self._broker = self._start_kafka()

    def _freeze_a_stage(self) -> None:
        stage = self._random.choice(self._stages)
        seconds = self._random.uniform(1, 20)  # Kafka gives its partitions to others after 10 s
        stage.process.send_signal(signal.SIGSTOP)
        self._thaw_times[stage] = time.monotonic() + seconds
        self._say(f"SIGSTOP for {stage.name}, for {seconds:.0f} s")

    def _thaw(self, now: float) -> None:
        for stage in [stage for stage, end in self._thaw_times.items() if end <= now]:
            stage.process.send_signal(signal.SIGCONT)
            del self._thaw_times[stage]

    def _send_again(self) -> None:
        for stage in CONSUMING_STAGES:
            topic = stage.consumes
            records = [rec for rec in self.records(topic) if position_of(rec) not in self.sent]
            for record in self._random.sample(records, min(len(records), 5)):
                self._send(topic, record.value, record.key, record.headers)
        self._say("messages come twice")

    def _send_rubbish(self) -> None:
        for topic in TOPICS:
            for value in self._random.sample(RUBBISH, 2):
                self.rubbish.add(self._send(topic, value, self._random.choice((b"", b"\xff")), ()))
        self._say("rubbish comes to every topic")

    def _truncate_an_image(self) -> None:
        """Truncate an image that equals those before and after it, so that no change is missed."""
        names = []
        for record in self.records(IMAGES):
            with suppress(InvalidInput):
                message = parse(record.value, ReceivedImage)
                if message.number % 4 < 2 and message.number + 1 < self._stored(message.source):
                    names.append(message.path)
        if names:
            images, path = self.databases[IMAGE_DATABASE], self._random.choice(names)
            content = images.read(path)
            images.write(path, content[: self._random.randrange(max(1, len(content)))])
            images.sync()
            self.truncated.add(Path(path).stem)
            self._say(f"{path} is truncated")

    def _start(self, program: str, *arguments: str) -> ChildProgram:
        return ChildProgram(program, arguments, log=self._directory / f"{program}.log")

    def _start_kafka(self) -> embedded_kafka.Broker:
        port = int(self._settings.bootstrap_servers.rpartition(":")[2])
        return start_kafka(self._directory / ".kafka", port)

    def _receive(self, source: str, count: int) -> None:
        """Start a receiver, unless one runs or there is nothing to receive."""
        running = self._receivers.get(source)
        if count > 0 and not (running and running.is_running):
            arguments = ("--count", str(count), "--source", source)
            self._receivers[source] = self._start("image_receiving", *arguments)

    def _stored(self, source: str) -> int:
        """How many images of the source are stored."""
        return last_image(self.databases[IMAGE_DATABASE], source, known=0)[0] + 1

    def _send(
        self, topic: str, value: bytes | None, key: bytes | None, headers: Iterable[Any]
    ) -> RecordPosition:
        producer = KafkaProducer(bootstrap_servers=self._settings.bootstrap_servers)
        sent = producer.send(topic, value, key, list(headers)).get(30)
        producer.close()
        position = RecordPosition(topic, sent.partition, sent.offset)
        self.sent.add(position)
        return position

    def _is_processed(self) -> bool:
        """Whether the stages have processed all messages."""
        for stage in CONSUMING_STAGES:
            offsets = committed_offsets(self._kafka, stage.name)
            if not all(is_committed(record, offsets) for record in self.records(stage.consumes)):
                return False
        return True

    def _pause(self, most: float) -> None:
        self._stop.wait(self._random.uniform(0, most))
        if self._stop:
            raise Stopped(self._stop.status)

    def _say(self, line: str) -> None:
        self._last_line = time.monotonic()
        say(f"{self._last_line - self._began:6.1f} s  {line}")

    def _say_progress(self, ended: threading.Event) -> None:
        """Say how far it is whenever nothing was said for a while, as while Kafka starts."""
        while not ended.wait(0.5):
            if time.monotonic() - self._last_line >= SILENT_SECONDS:
                images = sum(self._stored(source) for source in SOURCES)
                alerts = len(self.databases[IMAGE_EVENT_ALERTS].names("image_event_alert_"))
                self._say(f"so far {count_of(images, 'image')} and {count_of(alerts, 'alert')}")

    def _check_running(self, stage: ChildProgram) -> None:
        if not stage.is_running:
            status = stage.process.returncode
            self.faults.append(f"{stage.name} ended by itself with status {status}")

    def _end(self) -> None:
        """End all programs, as Ctrl-C does, and note those that were not well."""
        self._thaw(math.inf)
        for stage in self._stages:
            self._check_running(stage)
        for program in end_all([*self._stages, *self._receivers.values()]):
            self.faults.append(f"does not stop: {program.process.args!r}")
        self._broker.stop()
        for log in self._directory.glob("*.log"):
            if "Traceback" in log.read_text():
                self.faults.append(f"{log} has a traceback")


class Discrepancies:
    """How what there is differs from what there must be."""

    def __init__(self) -> None:
        self.lost: list[str] = []
        self.twice: list[str] = []  # or there without a reason

    def expect(self, where: str, found: Iterable[str], expected: Iterable[str]) -> None:
        """Note what is missing, and what is there too often."""
        there, needed = Counter(found), Counter(expected)
        self.lost += [f"{where}: {name}" for name in (needed - there).elements()]
        self.twice += [f"{where}: {name}" for name in (there - needed).elements()]


def account(chaos: Chaos, count: int) -> tuple[Discrepancies, dict[str, object]]:
    """Compare messages and files with what there must be; returns the table for people, too."""
    names = [image_id(source, number) for source in SOURCES for number in range(count)]
    changes = [image_id(source, number) for source in SOURCES for number in range(3, count, 4)]
    records = {
        topic: [record for record in chaos.records(topic) if position_of(record) not in chaos.sent]
        for topic in TOPICS
    }
    images = [parse(record.value, ReceivedImage) for record in records[IMAGES]]
    events = [parse(record.value, ImageEvent) for record in records[IMAGE_EVENTS]]
    alerts = [parse(record.value, Alert) for record in records[ALERTS]]
    found = Discrepancies()
    found.expect(IMAGES, [image.image_id for image in images], names)
    found.expect(IMAGE_EVENTS, [event.image_id for event in events], changes)
    found.expect(ALERTS, [alert.image_id for alert in alerts], changes)

    stored = chaos.databases[IMAGE_DATABASE].names()
    found.expect(IMAGE_DATABASE, stored, [f"{name}.jpg" for name in names])
    sums = {event.path: event.sha256 for event in events}
    sums |= {str(event.difference_path): event.difference_sha256 for event in events}
    sums |= {alert.path: alert.sha256 for alert in alerts}
    for directory in (IMAGE_EVENT_DATABASE, IMAGE_EVENT_ALERTS):
        database = chaos.databases[directory]
        paths = [f"{directory}/{name}" for name in database.names()]
        intact = [path for path in paths if digest(database.read(path)) == sums.get(path)]
        found.expect(directory, paths, intact)
        found.expect(directory, intact, [path for path in sums if path.startswith(directory)])

    # All rubbish is set aside once, and a truncated image at most once for each of its messages.
    truncated: list[str] = []
    others: list[str] = []
    for letter in map(DeadLetter, records[DEAD_LETTERS]):
        letters = truncated if letter.image_id in chaos.truncated else others
        letters.append(str(letter.position))
    found.expect(DEAD_LETTERS, truncated, set(truncated))
    rubbish = [str(position) for position in chaos.rubbish if position.topic in CONSUMED]
    found.expect(DEAD_LETTERS, others, rubbish)
    return found, {
        "images": len(images),
        "true changes": len(changes),
        "events": len(events),
        "alerts": len(alerts),
        "dead letters": f"{len(others)} of rubbish, {len(truncated)} of truncated images",
        "sent twice": len(chaos.sent - chaos.rubbish),
        "kills": ", ".join(f"{number} of {killed}" for killed, number in chaos.kills.items()),
        "lost": len(found.lost),
        "twice": len(found.twice),
    }


def main(arguments: Sequence[str]) -> None:
    """Run the pipeline under attack. Raises `FatalError` if anything is lost or there twice."""
    parser = Parser("Kill what can die while images flow, and account for each.", "run_pipeline.sh")
    number = matching("[0-9]{1,9}", "a whole number")
    count = matching("[2-9][0-9]{2}|[1-9][0-9]{3,5}", "a whole number from 200 to 999999")
    parser.add_argument("--chaos", action="store_true", help="as run_pipeline.sh takes it")
    about = "the same number attacks in the same order; default: 0"
    parser.add_argument("--seed", metavar="N", type=number, default="0", help=about)
    about = "how many images to receive meanwhile, of two sources; default: 400"
    parser.add_argument("--count", metavar="N", type=count, default="400", help=about)
    options = parser.parse_args(arguments)
    settings = parser.settings(options)
    directory = Path(tempfile.mkdtemp(prefix="image-pipeline-chaos-"))
    is_local = settings.data.directory is not None
    data = Location(str(directory) if is_local else f"{settings.data}/{directory.name}")
    picture = small_image(read_original(settings))
    server = f"localhost:{embedded_kafka.free_port()}"
    settings = dataclasses.replace(settings, bootstrap_servers=server, security={}, data=data)
    # The programs get these settings from the environment.
    os.environ |= {"KAFKA_BOOTSTRAP_SERVERS": server, "PIPELINE_DATA": str(data)}
    original = Database(data, IMAGE_ORIGINAL, InstanceLock("chaos", settings))
    original.write(ORIGINAL, picture)
    original.sync()
    say(f"chaos: seed {options.seed}, in {directory}{'' if is_local else f' and {data}'}")
    with ExitStack() as closing:
        chaos = Chaos(settings, directory, int(options.seed), closing)
        chaos.run(int(options.count) // len(SOURCES))
        found, rows = account(chaos, int(options.count) // len(SOURCES))
    table = "\n".join(f"  {name:14} {value}" for name, value in rows.items())
    say(f"\n{table}\n")
    faults = [f"lost: {lost}" for lost in found.lost]
    faults += [f"twice, or for no reason: {twice}" for twice in found.twice]
    faults += chaos.faults
    for fault in faults:
        say(fault)
    if faults:
        raise FatalError(
            f"chaos: it did not hold; all that there is to see is in {directory}, {data}"
        )
    for database in (original, *chaos.databases.values()):
        for name in database.names():
            database.remove(f"{database.name}/{name}")
    shutil.rmtree(directory)


def small_image(content: bytes) -> bytes:
    """The picture, made small: the attacks need many images, not many pixels."""
    small = io.BytesIO()
    with Image.open(io.BytesIO(content)) as image:
        image.thumbnail((256, 256))
        image.save(small, "JPEG")
    return small.getvalue()
