"""Transactions that Kafka acknowledged and did not end: found, said, and ended after all."""

import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from conftest import HERE, Pipeline, Program, delete_topics, until
from kafka import (
    ConsumerGroupMetadata,
    KafkaAdminClient,
    KafkaConsumer,
    KafkaProducer,
    OffsetAndMetadata,
    TopicPartition,
)
from kafka.errors import KafkaTimeoutError, RetriableError
from kafka.producer.transaction_manager import TransactionalRequestResult, TxnOffsetCommitHandler

import embedded_kafka
from pipeline.stream import hanging as module
from pipeline.stream.hanging import OFFSETS, Hanging, all_hanging, end_transaction, hanging

STAGE = "image_analysis"
ID = f"{STAGE}-host-0"
INPUT = TopicPartition("images", 0)
HANGS = TopicPartition("dead-letters", 3)
ENDS = TopicPartition("dead-letters", 5)
GROUP_OFFSETS = TopicPartition(OFFSETS, 0)  # the embedded Kafka has no other partition of it


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Kafka that lets records into a transaction whose coordinator doesn't know their partition.

    So it never sends it the marker, as Kafka 4.3 and 4.4 don't when they are killed.
    """
    directory = tmp_path_factory.mktemp("kafka")
    more = ["transaction.partition.verification.enable=false"]
    broker = embedded_kafka.start(directory, embedded_kafka.free_port(), more)
    yield broker.bootstrap_servers
    broker.stop()


@pytest.fixture
def pipeline(data: Path, broker: str) -> Iterator[Pipeline]:
    """The pipeline on that Kafka, with one image in its topics."""
    delete_topics(broker)
    pipeline = Pipeline(data, broker)
    pipeline.receive("--count", "1")
    yield pipeline
    pipeline.close()


@pytest.fixture
def closing() -> Iterator[ExitStack]:
    """What closes clients at the end."""
    with ExitStack() as closing:
        yield closing


@pytest.fixture
def admin(pipeline: Pipeline, closing: ExitStack) -> KafkaAdminClient:
    admin = KafkaAdminClient(bootstrap_servers=pipeline.bootstrap_servers)
    closing.callback(admin.close)

    def is_ready() -> bool:
        """Topics that were just made have no leaders yet."""
        try:
            return not all_hanging(admin)
        except RetriableError:
            return False

    until(is_ready, "leaders of all partitions")
    return admin


@pytest.fixture
def producer(pipeline: Pipeline, closing: ExitStack) -> KafkaProducer:
    """The producer of a stage's first copy."""
    return start_producer(pipeline, closing)


def start_producer(pipeline: Pipeline, closing: ExitStack, name: str = ID) -> KafkaProducer:
    """Another one of this transactional id; the one before it can't go on."""
    producer = KafkaProducer(bootstrap_servers=pipeline.bootstrap_servers, transactional_id=name)
    closing.callback(producer.close, 1)
    producer.init_transactions()
    return producer


def send(producer: KafkaProducer, *partitions: TopicPartition) -> None:
    for one in partitions:
        producer.send(one.topic, str(one.partition).encode(), partition=one.partition)
    producer.flush()


def begin(producer: KafkaProducer) -> None:
    """Begin a transaction that will hang in `HANGS` and in the group's offsets, not in `ENDS`."""
    transactions = producer._transaction_manager
    producer.begin_transaction()
    transactions._partitions_in_transaction.add(HANGS)  # so that the coordinator isn't told
    send(producer, ENDS, HANGS)
    offsets = {INPUT: OffsetAndMetadata(1, "", -1)}
    transactions._pending_txn_offset_commits.update(offsets)
    group, done = ConsumerGroupMetadata(STAGE), TransactionalRequestResult()
    transactions._enqueue_request(TxnOffsetCommitHandler(transactions, group, offsets, done))
    producer._sender.wakeup()
    assert done.wait(10_000)


def look(admin: KafkaAdminClient) -> Hanging | None:
    return hanging(admin, ID, [HANGS, ENDS], STAGE)


def seen(pipeline: Pipeline) -> list[str]:
    """The values that readers of committed messages see in the topic, sorted."""
    return sorted(record.value.decode() for record in pipeline.records(HANGS.topic))


def committed(pipeline: Pipeline) -> int | None:
    """The group's offset. Raises `KafkaTimeoutError` while a transaction of it isn't ended."""
    consumer = KafkaConsumer(
        bootstrap_servers=pipeline.bootstrap_servers,
        group_id=STAGE,
        isolation_level="read_committed",
    )
    try:
        return consumer.committed(INPUT, timeout_ms=2000)  # type: ignore[no-any-return]
    finally:
        consumer.close(autocommit=False)


def audit(pipeline: Pipeline, *arguments: str) -> Program:
    return pipeline.command("audit", *arguments)


@pytest.mark.slow
def test_a_committed_one(
    pipeline: Pipeline, admin: KafkaAdminClient, producer: KafkaProducer, closing: ExitStack
) -> None:
    """It is found; until it is mended nobody sees what is in it, and then all of it is true."""
    begin(producer)
    producer.commit_transaction()
    assert seen(pipeline) == ["5"]
    with pytest.raises(KafkaTimeoutError):
        committed(pipeline)
    found = look(admin)
    assert found
    assert (found.end, found.partitions) == ("commit", (GROUP_OFFSETS, HANGS))
    assert all_hanging(admin) == [found]
    assert end_transaction(admin, start_producer(pipeline, closing), found) == "committed"
    assert seen(pipeline) == ["3", "5"]
    assert committed(pipeline) == 1
    assert not look(admin)
    assert not all_hanging(admin)


@pytest.mark.slow
def test_an_aborted_one(
    pipeline: Pipeline, admin: KafkaAdminClient, producer: KafkaProducer, closing: ExitStack
) -> None:
    """It is found, and mended it is aborted; what comes after it is seen."""
    begin(producer)
    producer.abort_transaction()
    found = look(admin)
    assert found
    assert (found.end, found.partitions) == ("abort", (GROUP_OFFSETS, HANGS))
    after = start_producer(pipeline, closing)
    assert end_transaction(admin, after, found) == "aborted"
    after.begin_transaction()
    send(after, HANGS)
    after.commit_transaction()
    assert seen(pipeline) == ["3"]
    assert committed(pipeline) is None


@pytest.mark.slow
def test_a_program_that_has_started_again(
    pipeline: Pipeline, admin: KafkaAdminClient, producer: KafkaProducer, closing: ExitStack
) -> None:
    """It makes Kafka forget the end, whatever it commits elsewhere; in doubt, the end is abort."""
    begin(producer)
    producer.commit_transaction()
    again = start_producer(pipeline, closing)
    found = look(admin)
    assert found
    assert (found.end, found.partitions) == ("unknown", (GROUP_OFFSETS, HANGS))
    again.begin_transaction()
    send(again, ENDS)
    again.commit_transaction()
    assert look(admin) == found
    assert end_transaction(admin, start_producer(pipeline, closing), found) == "aborted"
    assert seen(pipeline) == ["5", "5"]
    assert committed(pipeline) is None
    assert not look(admin)


@pytest.mark.slow
def test_no_wrong_alarm(
    admin: KafkaAdminClient, producer: KafkaProducer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Transactions that are begun, ended and begun again all the time aren't taken for lost."""
    monkeypatch.setattr(module, "SECOND_LOOK", 0)
    assert not hanging(
        admin, "image_analysis-elsewhere-0", [HANGS], STAGE
    )  # Kafka never heard of it
    stop = threading.Event()

    ended: list[int] = []

    def work() -> None:
        while not stop.is_set():
            producer.begin_transaction()
            send(producer, HANGS)
            producer.send_offsets_to_transaction({INPUT: OffsetAndMetadata(1, "", -1)}, STAGE)
            producer.commit_transaction()
            ended.append(1)

    working = threading.Thread(target=work)
    working.start()
    try:
        for _ in range(200):
            assert not look(admin)
            assert not all_hanging(admin)
    finally:
        before = len(ended)
        until(lambda: len(ended) > before, "transactions that go on")
        stop.set()
        working.join()
    producer.begin_transaction()
    send(producer, HANGS)
    assert not look(admin)
    producer.commit_transaction()
    assert not look(admin)


def test_a_program_ends_and_the_audit_mends(pipeline: Pipeline, producer: KafkaProducer) -> None:
    """A program that would have to wait for ever ends with what to do, and then all is well."""
    begin(producer)
    producer.commit_transaction()
    program = pipeline.end_if_hanging(ID)
    lost = f"a transaction of {ID} and then lost its end in {OFFSETS}[0] and 1 more"
    line = program.says(f"^Kafka acknowledged {lost}".replace("[", r"\["))
    assert "python -m pipeline audit --repair" in line
    assert program.ends() == 1

    found = audit(pipeline)
    assert found.ends() == 1
    assert found.says("^lost .*KAFKA-20734")
    assert seen(pipeline) == ["5"]
    mended = audit(pipeline, "--repair")
    assert mended.ends() == 0, mended
    assert mended.says("^mended .*KAFKA-20734.*committed")
    assert seen(pipeline) == ["3", "5"]
    assert audit(pipeline).ends() == 0


# image_analysis.py on a Kafka that sends the partitions of image-events no markers.
FAULTY = """
import runpy, sys
from kafka.producer.transaction_manager import TransactionManager as Transactions
add = Transactions.maybe_add_partition_to_transaction
def add_in_silence(self, partition):
    is_left_out = partition.topic == "image-events"
    self._partitions_in_transaction.add(partition) if is_left_out else add(self, partition)
Transactions.maybe_add_partition_to_transaction = add_in_silence
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
@pytest.mark.parametrize("is_known", [True, False])
def test_nothing_is_lost_or_double(
    pipeline: Pipeline, admin: KafkaAdminClient, closing: ExitStack, is_known: bool
) -> None:
    """An event that hung is there once, whether Kafka knows it to be committed or has forgotten."""
    program = str(HERE / "image_analysis.py")
    analysis = pipeline.start(sys.executable, "-c", FAULTY, program, PYTHONPATH=str(HERE))
    pipeline.receive("--count", "5")  # numbers 1 to 5
    analysis.says("00005  unchanged")
    analysis.stop()
    assert pipeline.ids("image-events") == []
    (found,) = all_hanging(admin)
    assert (found.end, found.group) == ("commit", STAGE)
    if not is_known:
        start_producer(pipeline, closing, found.transactional_id)
    mended = audit(pipeline, "--repair")
    assert mended.ends() == 0, mended
    assert mended.says("committed$" if is_known else "aborted$")
    assert ("no message of the change at 00003" in mended.output) is not is_known
    assert pipeline.ids("image-events") == ["00003"]
    pipeline.start("image_event_alert.py").says("00003  ALERT")
    pipeline.start("image_analysis.py")
    pipeline.receive("--count", "2")
    pipeline.waits_for("alerts", 2)
    assert pipeline.ids("alerts") == ["00003", "00007"]
    assert audit(pipeline).ends() == 0
