"""The command `audit`: reads everything, checks it, repairs what is wrong if asked to."""

from collections.abc import Sequence
from contextlib import ExitStack

from kafka import KafkaProducer
from kafka.errors import KafkaError

from pipeline.comparison.measure import Rule
from pipeline.errors import FatalError
from pipeline.messages import IMAGES
from pipeline.operate.audit.alerts import check_alerts, check_alerts_of_deleted_events
from pipeline.operate.audit.events import EventCheck
from pipeline.operate.audit.findings import Findings
from pipeline.operate.audit.history import History
from pipeline.operate.audit.images import check_images, current_images, first_numbers
from pipeline.operate.audit.snapshot import Snapshot
from pipeline.operate.audit.unexplained import check_causes, check_files
from pipeline.options import add_rule, read_rule
from pipeline.own_kafka import find_kafka
from pipeline.settings import Parser
from pipeline.stop_signal import StopSignal
from pipeline.store.instance_lock import InstanceLock
from pipeline.stream.connection import Kafka
from pipeline.stream.hanging import all_hanging, describe, end_transaction
from pipeline.stream.topic_reader import TopicReader
from pipeline.stream.transactions import transact, transactional_producer, unchecked_producer
from pipeline.terminal import one_line, say


def main(arguments: Sequence[str]) -> None:
    """Audit, and repair if asked to. Raises `FatalError` unless everything agrees."""
    parser = Parser(
        "Prove that images, image events, alerts and their messages agree; name what doesn't.",
        "python -m pipeline audit",
    )
    parser.add_argument(
        "--repair",
        action="store_true",
        help="make lost files again from the images, send lost messages, end lost transactions",
    )
    add_rule(parser)
    options = parser.parse_args(arguments)
    settings = parser.settings(options)
    rule = read_rule(parser, options)
    settings = find_kafka(settings, "audit")
    ended_transactions = 0

    def connect(
        kafka: Kafka, closing: ExitStack
    ) -> tuple[Kafka, TopicReader, KafkaProducer | None]:
        nonlocal ended_transactions
        ended_transactions += end_hanging_transactions(kafka, options.repair)
        # The producer before the reader: an earlier audit can't send anything from here on.
        producer = transactional_producer(kafka, "audit", closing) if options.repair else None
        return kafka, TopicReader(kafka, closing), producer

    findings = Findings(options.repair)
    with Kafka(settings, StopSignal(status=1)).connect(connect) as (kafka, topics, producer):
        try:
            lock = InstanceLock("audit", settings) if options.repair else None
            check_all(Snapshot(settings, kafka, topics, lock), findings, rule)
            if producer and findings.outgoing:
                transact(producer, findings.outgoing)
        except KafkaError as error:
            raise FatalError(f"Kafka: {one_line(error)}; nothing was sent; run it again") from error
        except OSError as error:
            raise FatalError(
                f"cannot read {error.filename}: {error.strerror}; mend that and run it again"
            ) from error
    findings.say_all(ended_transactions)
    if any(findings.faults.values()):
        raise FatalError("audit: not all agrees, as the lines above say")


def check_all(snapshot: Snapshot, findings: Findings, rule: Rule) -> None:
    """Check images, events and alerts, each with its files and messages."""
    if not snapshot.files and snapshot.records[IMAGES] and not snapshot.cleaned:
        say("the directories are empty: the topics are from before a reset")
        return
    images = current_images(snapshot, findings)
    history = History(snapshot, first_numbers(snapshot, images))
    check_images(images, snapshot, findings, history)
    events = EventCheck(snapshot, findings, history, rule).check(images)
    check_alerts(events, snapshot, findings)
    check_alerts_of_deleted_events(snapshot, findings, history)
    check_causes(snapshot, findings, history)
    check_files(snapshot, findings, history)
    if findings.counts["other masks"]:
        say("other masks: images decided by a mask that isn't --mask's are not judged")


def end_hanging_transactions(kafka: Kafka, repair: bool) -> int:
    """End the transactions whose end Kafka has lost; how many. Raises `KafkaError`.

    Raises `FatalError` without `repair`, since what follows these transactions can't be read.
    """
    with kafka.admin() as admin, ExitStack() as closing:
        found = all_hanging(admin)
        for transaction in found:
            if repair:
                producer = unchecked_producer(kafka, transaction.transactional_id, closing)
                outcome = end_transaction(admin, producer, transaction)
                say(f"mended  {describe(transaction)}: {outcome}")
            else:
                say(f"lost    {describe(transaction)}")
    if found and not repair:
        raise FatalError("audit: what comes after these can't be read; end them with --repair")
    return len(found)
