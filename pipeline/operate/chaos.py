"""Chaos: all that can die is killed while images flow, and then every image is accounted for.

    ./run_pipeline.sh --chaos [--seed N] [--count N]

Two copies of each stage, and receivers for two sources, run on an embedded Kafka in a directory of
their own, or below PIPELINE_DATA where that is a URL. Programs and Kafka get SIGKILL, copies are
frozen, messages come twice, rubbish comes to every topic, stored images are truncated. The truth is
known, since the images are made here: ends with 0 if nothing is lost and nothing is there twice.
"""

import dataclasses
import io
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from kafka import KafkaProducer, TopicPartition
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
from pipeline.pictures.mock import ORIGINAL, read_original
from pipeline.settings import REPOSITORY, Location, Parser, Settings, matching
from pipeline.stages import CONSUMING_STAGES
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
from pipeline.stream.groups import committed_offsets
from pipeline.stream.positions import RecordPosition, origin_of, position_of
from pipeline.stream.topic_reader import (
    TopicReader,
)
from pipeline.terminal import say

SOURCES = ("", "cam1")
STAGES = 2 * ("image_analysis", "image_event_alert")
LAST = 50  # images of a source that come in quiet, so that no outbox is left at the end
SETTLE_SECONDS = 180  # for what was received to go all the way
RUBBISH = (b"", b"rubbish", b"\xff\xfe\x00", b"{}", b"[" * 9999, b'{"image_id": "00003"}')


class Chaos:
    """A pipeline under fire."""

    def __init__(self, settings: Settings, directory: Path, seed: int, closing: ExitStack) -> None:
        self.databases = {
            name: Database(settings.data, name, InstanceLock("chaos", settings))
            for name in (IMAGE_DATABASE, IMAGE_EVENT_DATABASE, IMAGE_EVENT_ALERTS)
        }
        self.kills: Counter[str] = Counter()
        self.sent: set[RecordPosition] = set()  # by us, not by the pipeline
        self.rubbish: set[RecordPosition] = set()
        self.truncated: set[str] = set()
        self.faults: list[str] = []  # of programs
        self._directory = directory  # of Kafka's topics and the programs' lines
        self._settings = settings
        self._random = random.Random(seed)  # noqa: S311 (that it comes again is the point)
        self._stop = StopSignal(status=130)
        self._began = time.monotonic()
        self._frozen: dict[int, float] = {}  # stages, and when each is thawed
        self._receivers: dict[str, subprocess.Popen[bytes]] = {}
        self._broker = self._start_kafka()
        self._stages = [self._start(name) for name in STAGES]
        closing.callback(self._end)
        self._kafka = Kafka(settings, self._stop)

    def run(self, count: int) -> None:
        """Receive so many images of each source, while one act follows the other."""
        acts = self._acts(count * len(SOURCES))
        while acts:
            for source in SOURCES:
                left = count - LAST - self._stored(source)
                self._receive(source, math.ceil(left / len(acts)))
            self._pause(1)
            self._thaw(time.monotonic())
            acts.pop()()
        self._thaw(math.inf)
        self._said("quiet, until all went all the way")
        for receiver in self._receivers.values():
            receiver.wait()
        for source in SOURCES:
            self._receive(source, count - self._stored(source))
            self._receivers[source].wait()
        end = time.monotonic() + SETTLE_SECONDS
        while not self._is_settled() and time.monotonic() < end:
            self._stop.wait(1)

    def records(self, topic: str) -> list[ConsumerRecord]:
        """All that readers of committed messages find in a topic."""
        with self._kafka.connect(TopicReader) as topics:
            return list(topics.read(topics.beginning_offsets(topic), topics.end_offsets(topic)))

    def _acts(self, images: int) -> list[Callable[[], None]]:
        """What is done while so many images are received, in an order that the seed decides."""
        acts = [
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
        self._random.shuffle(acts)
        return acts

    def _kill_a_stage(self) -> None:
        self._kill([self._random.randrange(len(STAGES))])

    def _kill(self, numbers: Iterable[int]) -> None:
        """Kill these stages at once, and start them again a little later."""
        for number in numbers:
            self._must_run(number)
            self._stages[number].kill()
            self._frozen.pop(number, None)
            self.kills["programs"] += 1
            self._said(f"SIGKILL for {STAGES[number]}")
        self._pause(1.5)
        for number in numbers:
            self._stages[number].wait()
            self._stages[number] = self._start(STAGES[number])

    def _kill_a_receiver(self) -> None:
        self._pause(0.5)
        receiver = self._receivers.get(self._random.choice(SOURCES))
        if receiver and receiver.poll() is None:
            receiver.kill()
            self.kills["programs"] += 1
            self._said("SIGKILL for image_receiving")

    def _kill_all_programs(self) -> None:
        for receiver in self._receivers.values():
            self.kills["programs"] += receiver.poll() is None
            receiver.kill()
        self._kill(range(len(STAGES)))

    def _kill_kafka(self) -> None:
        self._said("SIGKILL for Kafka")
        self._broker.process.kill()
        self._broker.process.wait()
        self.kills["Kafka"] += 1
        self._pause(2)
        self._broker = self._start_kafka()

    def _restart_kafka(self) -> None:
        self._said("restart of Kafka")
        self._broker.stop()
        self.kills["Kafka"] += 1
        self._broker = self._start_kafka()

    def _freeze_a_stage(self) -> None:
        number = self._random.randrange(len(STAGES))
        seconds = self._random.uniform(1, 20)  # Kafka waits 10 s for it
        self._stages[number].send_signal(signal.SIGSTOP)
        self._frozen[number] = time.monotonic() + seconds
        self._said(f"SIGSTOP for {STAGES[number]}, for {seconds:.0f} s")

    def _thaw(self, now: float) -> None:
        for number in [one for one, end in self._frozen.items() if end <= now]:
            self._stages[number].send_signal(signal.SIGCONT)
            del self._frozen[number]

    def _send_again(self) -> None:
        for topic in {stage.consumes: None for stage in CONSUMING_STAGES}:
            records = [one for one in self.records(topic) if position_of(one) not in self.sent]
            for record in self._random.sample(records, min(len(records), 5)):
                self._send(topic, record.value, record.key, record.headers)
        self._said("messages come twice")

    def _send_rubbish(self) -> None:
        for topic in TOPICS:
            for value in self._random.sample(RUBBISH, 2):
                self.rubbish.add(self._send(topic, value, self._random.choice((b"", b"\xff")), ()))
        self._said("rubbish comes to every topic")

    def _truncate_an_image(self) -> None:
        """One that is like those before and after it, so that the true changes stay the same."""
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
            self._said(f"{path} is truncated")

    def _start(self, program: str, *arguments: str) -> "subprocess.Popen[bytes]":
        settings = {
            "KAFKA_BOOTSTRAP_SERVERS": self._settings.bootstrap_servers,
            "PIPELINE_DATA": str(self._settings.data),
        }
        with (self._directory / f"{program}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, REPOSITORY / f"{program}.py", *arguments],
                env=os.environ | settings,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _start_kafka(self) -> embedded_kafka.Broker:
        port = int(self._settings.bootstrap_servers.rpartition(":")[2])
        return embedded_kafka.start(self._directory / ".kafka", port)

    def _receive(self, source: str, count: int) -> None:
        """Start a receiver, unless one runs or there is nothing to receive."""
        running = self._receivers.get(source)
        if count > 0 and (running is None or running.poll() is not None):
            arguments = ("--count", str(count), "--source", source)
            self._receivers[source] = self._start("image_receiving", *arguments)

    def _stored(self, source: str) -> int:
        """How many images of the source are stored."""
        return last_image(self.databases[IMAGE_DATABASE], source, known=0)[0] + 1

    def _send(
        self, topic: str, value: bytes | None, key: bytes | None, headers: Any
    ) -> RecordPosition:
        producer = KafkaProducer(bootstrap_servers=self._settings.bootstrap_servers)
        sent = producer.send(topic, value, key, list(headers)).get(30)
        producer.close()
        position = RecordPosition(topic, sent.partition, sent.offset)
        self.sent.add(position)
        return position

    def _is_settled(self) -> bool:
        """Whether the stages have taken all that there is."""
        for stage in CONSUMING_STAGES:
            offsets = committed_offsets(self._kafka, stage.name)
            for record in self.records(stage.consumes):
                if record.offset >= offsets.get(
                    TopicPartition(stage.consumes, record.partition), 0
                ):
                    return False
        return True

    def _pause(self, most: float) -> None:
        self._stop.wait(self._random.uniform(0, most))
        if self._stop:
            raise Stopped(self._stop.status)

    def _said(self, what: str) -> None:
        say(f"{time.monotonic() - self._began:6.1f} s  {what}")

    def _must_run(self, number: int) -> None:
        status = self._stages[number].poll()
        if status is not None:
            self.faults.append(f"{STAGES[number]} ended by itself with status {status}")

    def _end(self) -> None:
        """End all programs, as Ctrl-C does, and see whether they were well."""
        self._thaw(math.inf)
        for number in range(len(STAGES)):
            self._must_run(number)
        programs = [*self._stages, *self._receivers.values()]
        for program in programs:
            program.terminate()
        for program in programs:
            try:
                program.wait(6)
            except subprocess.TimeoutExpired:
                program.kill()
                self.faults.append(f"does not stop: {program.args!r}")
        self._broker.stop()
        for log in self._directory.glob("*.log"):
            if "Traceback" in log.read_text():
                self.faults.append(f"{log} has a traceback")


class Discrepancies:
    """What is there after all this, against what must be."""

    def __init__(self) -> None:
        self.lost: list[str] = []
        self.twice: list[str] = []  # or there without a reason

    def expect(self, where: str, found: Iterable[str], expected: Iterable[str]) -> None:
        """Note what is missing, and what is there too often."""
        has, needs = Counter(found), Counter(expected)
        self.lost += [f"{where}: {one}" for one in (needs - has).elements()]
        self.twice += [f"{where}: {one}" for one in (has - needs).elements()]


def account(chaos: Chaos, count: int) -> tuple[Discrepancies, dict[str, object]]:
    """What was found, and the table for people."""
    names = [image_id(source, number) for source in SOURCES for number in range(count)]
    changes = [image_id(source, number) for source in SOURCES for number in range(3, count, 4)]
    came = {
        topic: [one for one in chaos.records(topic) if position_of(one) not in chaos.sent]
        for topic in TOPICS
    }
    images = [parse(one.value, ReceivedImage) for one in came[IMAGES]]
    events = [parse(one.value, ImageEvent) for one in came[IMAGE_EVENTS]]
    alerts = [parse(one.value, Alert) for one in came[ALERTS]]
    ledger = Discrepancies()
    ledger.expect(IMAGES, [one.image_id for one in images], names)
    ledger.expect(IMAGE_EVENTS, [one.image_id for one in events], changes)
    ledger.expect(ALERTS, [one.image_id for one in alerts], changes)

    stored = chaos.databases[IMAGE_DATABASE].names()
    ledger.expect(IMAGE_DATABASE, stored, [f"{name}.jpg" for name in names])
    sums = {one.path: one.sha256 for one in events}
    sums |= {str(one.difference_path): one.difference_sha256 for one in events}
    sums |= {one.path: one.sha256 for one in alerts}
    for directory in (IMAGE_EVENT_DATABASE, IMAGE_EVENT_ALERTS):
        database = chaos.databases[directory]
        paths = [f"{directory}/{name}" for name in database.names()]
        whole = [one for one in paths if digest(database.read(one)) == sums.get(one)]
        ledger.expect(directory, paths, whole)
        ledger.expect(directory, whole, [one for one in sums if one.startswith(directory)])

    # Rubbish is set aside once each, and a truncated image once for each message, if at all.
    of_images = [origin_of(one) for one in came[DEAD_LETTERS] if _image(one) in chaos.truncated]
    of_rubbish = [
        origin_of(one) for one in came[DEAD_LETTERS] if _image(one) not in chaos.truncated
    ]
    ledger.expect(DEAD_LETTERS, map(str, of_images), map(str, set(of_images)))
    consumed = {stage.consumes for stage in CONSUMING_STAGES}
    rubbish = [one for one in chaos.rubbish if one.topic in consumed]
    ledger.expect(DEAD_LETTERS, map(str, of_rubbish), map(str, rubbish))
    kills = ", ".join(f"{number} of {what}" for what, number in chaos.kills.items())
    return ledger, {
        "images": len(images),
        "true changes": len(changes),
        "events": len(events),
        "alerts": len(alerts),
        "dead letters": f"{len(of_rubbish)} of rubbish, {len(of_images)} of truncated images",
        "sent twice": len(chaos.sent - chaos.rubbish),
        "kills": kills,
        "lost": len(ledger.lost),
        "twice": len(ledger.twice),
    }


def _image(letter: ConsumerRecord) -> str:
    """The image that a dead letter is about, if that can be told."""
    with suppress(InvalidInput):
        return parse(letter.value, ReceivedImage).image_id
    return ""


def main(arguments: list[str]) -> None:
    """Run the pipeline under fire, and end with 0 if it held."""
    parser = Parser("Kill what can die while images flow, and account for each.", "run_pipeline.sh")
    number = matching("[0-9]{1,9}", "a whole number")
    count = matching("[2-9][0-9]{2}|[1-9][0-9]{3,5}", "a whole number from 200 to 999999")
    parser.add_argument("--chaos", action="store_true")
    parser.add_argument("--seed", type=number, default="0", help="which order; default: 0")
    parser.add_argument("--count", type=count, default="400", help="images; default: 400")
    options = parser.parse_args(arguments)
    settings = parser.settings(options)
    directory = Path(tempfile.mkdtemp(prefix="image-pipeline-chaos-"))
    is_local = settings.data.directory is not None
    data = Location(str(directory) if is_local else f"{settings.data}/{directory.name}")
    picture = small_image(read_original(settings))
    server = f"localhost:{embedded_kafka.free_port()}"
    settings = dataclasses.replace(settings, bootstrap_servers=server, security={}, data=data)
    original = Database(data, IMAGE_ORIGINAL, InstanceLock("chaos", settings))
    original.write(ORIGINAL, picture)
    original.sync()
    say(f"chaos: seed {options.seed}, in {directory}{'' if is_local else f' and {data}'}")
    with ExitStack() as closing:
        chaos = Chaos(settings, directory, int(options.seed), closing)
        chaos.run(int(options.count) // len(SOURCES))
        ledger, rows = account(chaos, int(options.count) // len(SOURCES))
    table = "\n".join(f"  {name:14} {value}" for name, value in rows.items())
    say(f"\n{table}\n")
    for fault in (
        *(f"lost: {one}" for one in ledger.lost),
        *(f"twice, or for no reason: {one}" for one in ledger.twice),
        *chaos.faults,
    ):
        say(fault)
    if ledger.lost or ledger.twice or chaos.faults:
        raise FatalError(
            f"chaos: it did not hold; all that there is to see is in {directory}, {data}"
        )
    for database in (original, *chaos.databases.values()):
        for name in database.names():
            database.remove(f"{database.name}/{name}")
    shutil.rmtree(directory)


def small_image(content: bytes) -> bytes:
    """The picture, small: here it isn't about pixels."""
    small = io.BytesIO()
    with Image.open(io.BytesIO(content)) as image:
        image.thumbnail((256, 256))
        image.save(small, "JPEG")
    return small.getvalue()
