"""Run the whole pipeline once: the three programs as processes, until each image went all the way.

    ./run_pipeline.sh [--view [PORT]] [--copies N] [options of the programs]
    ./run_pipeline.sh --chaos [--seed N] [--count N]    (kill everything, count everything)

--view     also runs the viewer, at http://localhost:8000 or another PORT; all stays until Ctrl-C,
           so that what you receive in another terminal is seen, too
--copies   how many of each stage; those that find no partition to take wait in reserve
--threshold, --mask  are for image_analysis.py, whose --help says what they are
--recipients         is for image_event_alert.py
all others           are for image_receiving.py: --count 100, --sources 8, --from PATH, ...

Kafka is the one that KAFKA_BOOTSTRAP_SERVERS names; without it, an embedded one is started, which
keeps its topics in .kafka beside the image_* directories, or beside this program where these are in
an object store. What an earlier run left is finished. Ends with 0 when nothing was lost or set
aside. Ctrl-C stops everything; the next run goes on.
"""

import dataclasses
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path

from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import CorruptRecordError, KafkaError

import embedded_kafka
from pipeline.errors import FatalError, InvalidInput, Stopped
from pipeline.messages import ALERTS, DEAD_LETTERS, IMAGE_EVENTS, IMAGES, Alert, ImageEvent, parse
from pipeline.notify.recipients import Recipient
from pipeline.operate import chaos, notifications
from pipeline.options import add_recipients, add_rule, read_rule, receiving_options, recipients_of
from pipeline.settings import PORT, REPOSITORY, VARIABLES, Location, Parser, Settings, matching
from pipeline.stages import CONSUMING_STAGES
from pipeline.stop_signal import StopSignal
from pipeline.store.names import digest
from pipeline.stream.connection import Kafka
from pipeline.stream.dead_letters import ABOUT
from pipeline.stream.groups import committed_offsets
from pipeline.stream.positions import origin_of, position_of
from pipeline.stream.topic_reader import TopicReader
from pipeline.terminal import say

COLOURS = {
    "image_receiving": 36,
    "image_analysis": 33,
    "image_event_alert": 35,
    "view": 32,
}
TELL_SECONDS = 10  # that recipients have, after all else is done


class Program:
    """One of our programs, its lines on our terminal behind its name."""

    def __init__(self, name: str, arguments: Sequence[str] = (), copy: int | None = None) -> None:
        """`copy` is which of several."""
        self.name = name if copy is None else f"{name} {copy}"
        self._colour = COLOURS[name]
        program = ["-m", "pipeline", name] if name == "view" else [f"{REPOSITORY}/{name}.py"]
        self.process = subprocess.Popen(
            [sys.executable, "-u", *program, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            # A Ctrl-C at the terminal is for us, who end them all.
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        label = f"{self.name:18} |"
        if sys.stdout.isatty():
            label = f"\033[{self._colour}m{label}\033[0m"
        for line in self.process.stdout or ():
            try:
                say(f"{label} {line.rstrip()}")
            except Stopped:  # nobody reads any more: stop, but let the program not wait for us
                os.kill(os.getpid(), signal.SIGTERM)

    def end(self) -> None:
        """Wait until it has ended, by force if it doesn't, and has printed its last lines."""
        try:
            self.process.wait(6)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self._reader.join(1)


def stop_all(programs: Sequence[Program]) -> None:
    """End the programs, as Ctrl-C would."""
    for program in programs:
        program.process.terminate()
    for program in programs:
        program.end()


class RunRecords:
    """What went through the topics since the run began, and what was waiting in them then."""

    def __init__(self, kafka: Kafka, closing: ExitStack) -> None:
        self.records: dict[str, list[ConsumerRecord]] = {
            topic: [] for topic in (IMAGES, IMAGE_EVENTS, ALERTS, DEAD_LETTERS)
        }
        self._kafka = kafka
        self._topics = TopicReader(kafka, closing)
        self._consumer = KafkaConsumer(**kafka.options, isolation_level="read_committed")
        closing.callback(self._consumer.close)
        self.began: dict[TopicPartition, int] = {}
        start: dict[TopicPartition, int] = {}
        for topic in self.records:
            ends = self._topics.end_offsets(topic)
            self.began |= ends
            groups = [stage.name for stage in CONSUMING_STAGES if stage.consumes == topic]
            beginnings = self._topics.beginning_offsets(topic) if groups else ends
            committed = [committed_offsets(kafka, group) for group in groups]
            start |= {
                partition: min(
                    (offsets.get(partition, beginning) for offsets in committed), default=beginning
                )
                for partition, beginning in beginnings.items()
            }
        self._consumer.assign(list(self.began))
        for partition in self.began:
            self._consumer.seek(partition, start[partition])

    def read(self) -> None:
        """Take in what has come to the topics."""
        try:
            for partition, records in self._consumer.poll(timeout_ms=200).items():
                self.records[partition.topic].extend(records)
        except CorruptRecordError:
            self._topics.skip(self._consumer)

    def is_settled(self) -> bool:
        """Whether all that is in the topics has been taken, and what came of it read here."""
        for topic, records in self.records.items():
            ends = self._topics.end_offsets(topic)
            if any(self._consumer.position(partition) < end for partition, end in ends.items()):
                return False
            for stage in CONSUMING_STAGES:
                if stage.consumes != topic:
                    continue
                committed = committed_offsets(self._kafka, stage.name)
                for record in records:
                    partition = TopicPartition(record.topic, record.partition)
                    if committed.get(partition, 0) <= record.offset:
                        return False
        return True

    def wait_for(self, recipients: Mapping[str, Recipient], stop: StopSignal) -> None:
        """Give the recipients time to be told of what is due, and say what waits then."""
        end = time.monotonic() + TELL_SECONDS
        waiting, is_due = 0, bool(recipients)
        while is_due and not stop and time.monotonic() < end:
            with suppress(KafkaError):
                now = datetime.now(UTC)
                boxes = {
                    (partition, name): box
                    for (partition, name), box in notifications.read(self._topics)[0].items()
                    if box.pending and name in recipients
                }
                waiting = sum(len(box.pending) for box in boxes.values())
                is_due = any(
                    recipients[name].due(one.since, box.last_sent, now) <= now
                    for (_, name), box in boxes.items()
                    for one in box.pending.values()
                )
            stop.wait(0.2)
        if waiting:
            say(f"run_pipeline: {waiting} notifications wait; the next run goes on with them")

    def summary(self) -> tuple[str, bool]:
        """The table for people, and whether nothing of this run was lost or set aside."""
        images, events, alerts, dead = self.records.values()
        waiting = sum(self._was_waiting(*position_of(record)) for record in images)
        rows = {
            "images": f"{len(images)}" + (f" ({waiting} from a run before)" if waiting else ""),
            "image events": f"{len(events)}",
            "alerts": f"{len(alerts)}",
            "dead letters": f"{len(dead)}",
        }
        told = set()
        seconds = []
        for record in alerts:
            with suppress(InvalidInput):
                alert = parse(record.value, Alert)
                told.add(alert.event_id)
                if alert.received:
                    seconds.append(record.timestamp / 1000 - alert.received.timestamp())
        if seconds:
            middle, most = statistics.median(seconds), max(seconds)
            rows["received to alert"] = f"{middle:.3f} s median, {most:.3f} s at most"
        set_aside = [origin_of(record) for record in dead]
        lost = any((f"{ABOUT}stage", b"image_receiving") in record.headers for record in dead)
        for record in events:
            with suppress(InvalidInput):  # which the alert has set aside
                is_told = parse(record.value, ImageEvent).event_id in told
                lost |= not is_told and position_of(record) not in set_aside
        table = "\n".join(f"  {name:18} {value}" for name, value in rows.items())
        return table, not lost and all(self._was_waiting(*one) for one in set_aside)

    def _was_waiting(self, topic: str, partition: int, offset: int) -> bool:
        return bool(offset < self.began.get(TopicPartition(topic, partition), 0))


def main(arguments: list[str]) -> int:
    """Run the pipeline and end with its exit status."""
    if {"-h", "--help"} & set(arguments):
        print(__doc__)
        return 0
    if "--chaos" in arguments:
        chaos.main(arguments)
        return 0
    parser = Parser("Run the whole pipeline once.", "run_pipeline.sh")
    copies = matching("[1-9][0-9]?", "a whole number from 1 to 99")
    parser.add_argument("--copies", type=copies, default="1", help="of each stage; default: 1")
    port = matching(PORT, "a port")
    parser.add_argument("--view", type=port, nargs="?", const="8000", help="run the viewer along")
    add_rule(parser)
    add_recipients(parser)
    options, of_receiving = parser.parse_known_args(arguments)
    options.of_receiving = of_receiving
    settings = parser.settings(options)
    for option, variable in VARIABLES.items():
        value = getattr(options, option.strip("-").replace("-", "_"))
        if value and option != "--bootstrap-servers":  # not given, Kafka is our own
            os.environ[variable] = value
    # What is wrong is said before anything starts.
    receiving_options(options.of_receiving)
    read_rule(parser, options)
    recipients = recipients_of(parser, options.recipients, settings.data)
    is_told = any(argument.startswith("--bootstrap-servers") for argument in arguments)
    broker = None
    with ExitStack() as closing:
        if not is_told and not os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
            topics = topics_of(settings.data)
            try:
                broker = embedded_kafka.start(topics)
            except embedded_kafka.KafkaStartError as error:
                raise FatalError(f"run_pipeline: {error}") from error
            closing.callback(broker.stop)
            settings = dataclasses.replace(settings, bootstrap_servers=broker.bootstrap_servers)
            where = settings.bootstrap_servers
            say(f"run_pipeline: embedded Kafka at {where}, topics in {topics}")
        os.environ["KAFKA_BOOTSTRAP_SERVERS"] = settings.bootstrap_servers
        return run(settings, options, recipients, broker)


def topics_of(data: Location) -> Path:
    """The directory of an embedded Kafka's topics: one for each place of the data."""
    if data.directory:
        return data.directory / ".kafka"
    return REPOSITORY / f".kafka-{digest(str(data).encode())[:16]}"


def run(
    settings: Settings,
    options: Namespace,
    recipients: Mapping[str, Recipient],
    broker: embedded_kafka.Broker | None,
) -> int:
    """Run the programs until they are done or one fails; the exit status."""
    stop = StopSignal(status=130, seconds=20)
    kafka = Kafka(settings, stop)
    with kafka.connect(RunRecords) as ledger, ExitStack() as closing:
        programs: list[Program] = []
        closing.callback(stop_all, programs)
        programs += start(options)
        receiving = programs[-1]
        is_endless = "--watch" in options.of_receiving
        is_done = False
        while not is_done and not stop:
            if status := failure(programs, receiving, broker, settings):
                return status
            with suppress(KafkaError):  # the programs say when Kafka is away, and give up in time
                has_received = receiving.process.poll() == 0
                if has_received or not is_endless:  # or the ledger would grow for ever
                    ledger.read()
                is_done = has_received and ledger.is_settled()
        if not is_done:
            say("run_pipeline: stopping; the next run goes on from here")
            return stop.status
        ledger.wait_for(recipients, stop)
        if not options.view:
            stop_all(programs)
        table, is_complete = ledger.summary()
        say(f"\n{table}\n")
        if not is_complete:
            say("run_pipeline: not every image went all the way; the lines above say which and why")
        if options.view:
            say(f"run_pipeline: the viewer is at http://localhost:{options.view}; Ctrl-C ends all")
        while options.view and not stop:
            if status := failure(programs, receiving, broker, settings):
                return status
            stop.wait(1)
    return 0 if is_complete else 1


def start(options: Namespace) -> list[Program]:
    """The programs, which run; receiving is the last."""
    copies = int(options.copies)
    programs = [
        Program(name, copy=number if copies > 1 else None)
        for number in range(1, copies + 1)
        for name in ("image_event_alert", "image_analysis")
    ]
    if options.view:
        programs.append(Program("view", ["--port", options.view]))
    return [*programs, Program("image_receiving", options.of_receiving)]


def failure(
    programs: Sequence[Program],
    receiving: Program,
    broker: embedded_kafka.Broker | None,
    settings: Settings,
) -> int:
    """The exit status if one has ended that must not have; 0 if all is well."""
    for program in programs:
        status = program.process.poll()
        if status or (status == 0 and program is not receiving):
            say(f"run_pipeline: {program.name} ended with status {status}; stopping")
            return status if status > 0 else 1
    if broker and broker.process.poll() is not None:
        say(f"run_pipeline: Kafka ended; {topics_of(settings.data)}/kafka.log may say why")
        return 1
    return 0
