"""Run the whole pipeline once: the three programs as processes, until each image went all the way.

    ./run_pipeline.sh [--view [PORT]] [--copies N] [options of the programs]
    ./run_pipeline.sh --chaos [--seed N] [--count N]    (kill everything, count everything)
    ./run_pipeline.sh COMMAND [options of the command]

--view     also runs the viewer, at http://localhost:8000 or another PORT; all stays until Ctrl-C,
           so that what you receive in another terminal is seen, too
--copies   how many of each stage; those that find no partition to take wait in reserve
--threshold, --scene-change, --mask  are for image_analysis.py; its --help says what they are
--recipients         is for image_event_alert.py
--bootstrap-servers, --data, --kafka-wait  are for all: where Kafka and the image_* directories are,
           and how many seconds to wait for a Kafka that isn't there
all others           are for image_receiving.py: --count 100, --sources 8, --from PATH, ...

COMMAND    audit, chaos, clean, dead-letters, lag, notifications, run, schema, view or why, which
           have a --help of their own; python -m pipeline --help says what each is for

Kafka is the one that KAFKA_BOOTSTRAP_SERVERS names; without it, an embedded one is started, which
keeps its topics in .kafka beside the image_* directories, or beside this program where these are in
an object store. A run beside another one uses the same Kafka, which ends with the last of them.
What an earlier run left is finished. Ends with 0 when nothing was lost or set aside. Ctrl-C stops
everything; the next run goes on.
"""

import dataclasses
import os
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from datetime import UTC, datetime

from kafka.errors import KafkaError

import embedded_kafka
from pipeline.notify.recipients import Recipient
from pipeline.operate import notifications
from pipeline.operate.child_programs import ChildProgram, end_all
from pipeline.operate.run_records import RunRecords
from pipeline.options import add_recipients, add_rule, read_rule, receiving_options, recipients_of
from pipeline.own_kafka import topics_of, use_own
from pipeline.settings import PORT, VARIABLES, Parser, Settings, matching
from pipeline.stages import CONSUMING_STAGES
from pipeline.stop_signal import StopSignal
from pipeline.stream.connection import Kafka
from pipeline.stream.topic_reader import TopicReader
from pipeline.terminal import say
from pipeline.wording import count_of

NOTIFY_SECONDS = 20  # for sending what is due to the recipients, after everything else is done


def main(arguments: list[str]) -> int:
    """Run the pipeline; returns the exit status."""
    if {"-h", "--help"} & set(arguments):
        say((__doc__ or "").strip())
        return 0
    if "--chaos" in arguments:
        # Its import takes a while, which a run without chaos need not wait for.
        from pipeline.operate import chaos  # noqa: PLC0415

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
    # The programs get these options from the environment.
    for option, variable in VARIABLES.items():
        value = getattr(options, option.strip("-").replace("-", "_"))
        if value and option != "--bootstrap-servers":  # known once Kafka has been started
            os.environ[variable] = value
    # Wrong options are rejected before anything starts.
    receiving_options(options.of_receiving)
    read_rule(parser, options)
    recipients = recipients_of(parser, options.recipients, settings.data)
    broker = None
    with ExitStack() as closing:
        if not settings.is_kafka_named:
            broker = use_own(settings, "run_pipeline", closing)
            settings = dataclasses.replace(settings, bootstrap_servers=broker.bootstrap_servers)
            runs = "" if broker.own else ", which runs already"
            where, topics = settings.bootstrap_servers, topics_of(settings.data)
            say(f"run_pipeline: embedded Kafka at {where}{runs}, topics in {topics}")
        os.environ["KAFKA_BOOTSTRAP_SERVERS"] = settings.bootstrap_servers
        return run(settings, options, recipients, broker.own if broker else None)


def run(
    settings: Settings,
    options: Namespace,
    recipients: Mapping[str, Recipient],
    broker: embedded_kafka.Broker | None,
) -> int:
    """Run the programs until every image went all the way, or a program fails; the exit status."""
    stop = StopSignal(status=130, seconds=20)
    with Kafka(settings, stop).connect(RunRecords) as records, ExitStack() as closing:
        programs: list[ChildProgram] = []
        closing.callback(end_all, programs)
        programs += start_programs(options)
        receiving = programs[-1]
        is_endless = "--watch" in options.of_receiving
        is_complete = False
        while not is_complete and not stop:
            if status := failure(programs, receiving, broker, settings):
                return status
            with suppress(KafkaError):  # the programs say that Kafka is away, and give up in time
                has_received = receiving.process.poll() == 0
                if has_received or not is_endless:  # an endless run's records would fill the memory
                    records.read()
                is_complete = has_received and records.is_complete()
        if not is_complete:
            say("run_pipeline: stopping; the next run goes on from here")
            return stop.status
        wait_for_notifications(records.topics, recipients, stop)
        records.read_to_end()  # a notification that was given up meanwhile is a dead letter
        if not options.view:
            end_all(programs)
        table, is_successful = records.summary()
        say(f"\n{table}\n")
        if not is_successful:
            say("run_pipeline: not everything went all the way; the lines above say what and why")
        if options.view:
            say(f"run_pipeline: the viewer is at http://localhost:{options.view}; Ctrl-C ends all")
        while options.view and not stop:
            if status := failure(programs, receiving, broker, settings):
                return status
            stop.wait(1)
    return 0 if is_successful else 1


def start_programs(options: Namespace) -> list[ChildProgram]:
    """Start the programs; receiving is the last."""
    count = int(options.copies)
    programs = [
        ChildProgram(stage.name, instance=number if count > 1 else None)
        for number in range(1, count + 1)
        for stage in reversed(CONSUMING_STAGES)
    ]
    if options.view:
        programs.append(ChildProgram("view", ["--port", options.view]))
    return [*programs, ChildProgram("image_receiving", options.of_receiving)]


def failure(
    programs: Sequence[ChildProgram],
    receiving: ChildProgram,
    broker: embedded_kafka.Broker | None,
    settings: Settings,
) -> int:
    """The exit status if a program or Kafka has ended that should run; 0 if all is well."""
    for program in programs:
        status = program.process.poll()
        if status or (status == 0 and program is not receiving):
            say(f"run_pipeline: {program.label} ended with status {status}; stopping")
            return status if status > 0 else 1
    if broker and broker.process.poll() is not None:
        say(f"run_pipeline: Kafka ended; {topics_of(settings.data)}/kafka.log may say why")
        return 1
    return 0


def wait_for_notifications(
    topics: TopicReader, recipients: Mapping[str, Recipient], stop: StopSignal
) -> None:
    """Wait until the recipients were sent what is due, but not for ever; say what waits then."""
    end = time.monotonic() + NOTIFY_SECONDS
    waiting, is_due = 0, bool(recipients)
    while is_due and not stop and time.monotonic() < end:
        with suppress(KafkaError):
            now = datetime.now(UTC)
            inboxes = {
                (partition, name): inbox
                for (partition, name), inbox in notifications.read(topics)[0].items()
                if inbox.pending and name in recipients
            }
            waiting = sum(len(inbox.pending) for inbox in inboxes.values())
            is_due = any(
                recipients[name].due(event.since, inbox.last_sent, now) <= now
                for (_, name), inbox in inboxes.items()
                for event in inbox.pending.values()
            )
        stop.wait(0.2)
    if waiting:
        say(
            f"run_pipeline: {count_of(waiting, 'notification')} still to send; the next run goes on"
        )
