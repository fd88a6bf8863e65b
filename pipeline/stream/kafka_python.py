"""Every work-around for a fault of kafka-python 3.0.12, in this one file.

Each says which issue of https://github.com/dpkp/kafka-python it is about, or, where we have found
none, where in the library's source the fault is.
"""

import inspect
import logging
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource
from kafka.cluster import ClusterMetadata
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import (
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    LeaderNotAvailableError,
    RetriableError,
    UnknownBrokerIdError,
)
from kafka.net import manager
from kafka.net.manager import KafkaConnectionManager
from kafka.net.transport import KafkaSSLTransport, KafkaTCPTransport

from pipeline.concurrently import run_in_thread
from pipeline.errors import PipelineError
from pipeline.stream.positions import partition_name

T = TypeVar("T")
C = TypeVar("C")
Receive = Callable[[KafkaTCPTransport], tuple[bytes, Exception | None]]

# Errors that pass by themselves. A partition without a leader is reported as the unknown broker -1,
# which `RetriableError` doesn't cover (`get_connection` in net/manager.py).
TRANSIENT = (RetriableError, UnknownBrokerIdError)

# A shorter poll interrupts a consumer that joins its group, and the join is lost for good
# (`join_group_async` in coordinator/base.py; issue 2692 is another effect of short polls).
POLL_MILLISECONDS = 500


# Connections


# Clients must not create the topics that they ask for, with the broker's defaults. Their option
# `allow_auto_create_topics`, which issue 2083 recommends, has no effect: net/manager.py doesn't
# hand it on to `ClusterMetadata`. So its default is changed.
ClusterMetadata.DEFAULT_CONFIG["allow_auto_create_topics"] = False


def read_before_the_end(receive: Receive) -> Receive:
    """Return the received bytes first, and the error behind them at the next read.

    What a broker says right before it closes the connection, such as why it refuses a login, is
    thrown away if both are read together (`_read_from_sock` in net/transport.py). The next read
    finds the end of the connection again.
    """

    def receive_before_the_end(transport: KafkaTCPTransport) -> tuple[bytes, Exception | None]:
        received, error = receive(transport)
        return (received, None) if received else (received, error)

    return receive_before_the_end


for _transport in (KafkaTCPTransport, KafkaSSLTransport):
    _transport._sock_recv = read_before_the_end(_transport._sock_recv)


def stop_thread_on_failure(bootstrap: Callable[..., None]) -> Callable[..., None]:
    """Stop a client's thread if the client can't connect when it is made.

    The constructors of clients start a thread, and raise without stopping it if Kafka is away
    (`__init__` in admin/client.py and consumer/group.py). While a stage waited for Kafka, each of
    its questions left a thread behind.
    """

    def bootstrap_or_stop(manager: KafkaConnectionManager, *arguments: Any, **options: Any) -> None:
        try:
            bootstrap(manager, *arguments, **options)
        except Exception:
            manager._net.stop()
            raise

    return bootstrap_or_stop


KafkaConnectionManager.bootstrap = stop_thread_on_failure(KafkaConnectionManager.bootstrap)


def name_the_address(connect: Callable[..., Any]) -> Callable[..., Any]:
    """Say in the error of a connection which host and port it was to.

    The library's error has neither (`create_connection` in net/inet.py). Without them, nobody sees
    that a broker has named a host for itself that can't be found.
    """

    async def connect_to(net: Any, host: str, port: int, *arguments: Any, **options: Any) -> Any:
        try:
            return await connect(net, host, port, *arguments, **options)
        except KafkaConnectionError as error:
            text = error.args[0] if error.args else "not connected"
            why = "this computer finds no host of this name" if "DNS" in text else text
            raise KafkaConnectionError(f"{host}:{port}: {why}") from error

    return connect_to


manager.create_connection = name_the_address(manager.create_connection)


class ConnectionFailures(logging.Handler):
    """Why connections failed, which nothing but the library's log says.

    `_do_bootstrap` in net/manager.py goes on trying instead of raising; pull request 2994 has it
    raise for some of the later connections.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reasons: deque[str] = deque(maxlen=100)  # the newest last
        logging.getLogger("kafka").addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the reason in a line of the log, if it has one."""
        found = re.search(r"^Bootstrap connection .*? failed: (.*) \(backoff", record.getMessage())
        if found:
            self.reasons.append(re.sub(r" \(_ssl.*?\)$", "", found[1]))


def is_forbidden(error: Exception) -> bool:
    """Whether Kafka's access rules are the reason of this error, which may be wrapped in another.

    A producer's transaction raises a `KafkaError` that only quotes its reason
    (`_maybe_fail_with_error` in producer/transaction_manager.py).
    """
    return "AuthorizationFailed" in str(error)


def is_time_refused(error: Exception) -> bool:
    """Whether Kafka refuses a message because its time is too far from Kafka's own.

    That is an `InvalidTimestampError`, or of some versions an `InvalidRecordError`, or a
    `KafkaError` that only quotes one of them.
    """
    return bool(re.search(r"InvalidTimestamp|InvalidRecordError: Timestamp", str(error)))


# Clients


@contextmanager
def only_kafka_errors() -> Iterator[None]:
    """Turn whatever else the client raises into a `KafkaError`, so that it is tried again.

    The client lets errors of sockets, of SSL and of its own code through. A partition without a
    leader is a `KeyError` (`beginning_or_end_offset` in consumer/fetcher.py; issue 2611 is the same
    elsewhere).
    """
    try:
        yield
    except (KafkaError, PipelineError):
        raise
    except Exception as error:
        if isinstance(error, KeyError) and isinstance(error.args[0], TopicPartition):
            where = partition_name(error.args[0])
            raise LeaderNotAvailableError(f"{where} has no broker that leads it") from error
        raise KafkaError(f"the client failed: {type(error).__name__}: {error}") from error


def _checked(client: type[C]) -> type[C]:
    """A client whose public methods raise no other errors than `KafkaError`."""

    def method(name: str) -> Callable[..., Any]:
        def call(self: C, *arguments: Any, **options: Any) -> Any:
            with only_kafka_errors():
                return getattr(client, name)(self, *arguments, **options)

        return call

    functions = inspect.getmembers_static(client, inspect.isfunction)
    names = [name for name, _ in functions if name == "__init__" or not name.startswith("_")]
    return type(client.__name__, (client,), {name: method(name) for name in names})


Admin = _checked(KafkaAdminClient)
Consumer = _checked(KafkaConsumer)
Producer = _checked(KafkaProducer)


# Questions to Kafka


def topic_configs(
    admin: KafkaAdminClient, asked: Sequence[ConfigResource]
) -> dict[str, dict[str, str]]:
    """The settings of topics, by name; a topic whose settings this user may not see has none.

    The error that says so is dropped (`_describe_configs_process_responses` in admin/_configs.py).
    Raises `KafkaError`.
    """
    topics = admin.describe_configs(asked, config_filter="all").get("topic", {})
    return {
        name: {key: setting["value"] for key, setting in settings.items()}
        for name, settings in topics.items()
    }


# Consumers


def close_consumer(consumer: KafkaConsumer) -> None:
    """Close a consumer without committing offsets, whether Kafka is there or not."""
    with suppress(KafkaError):
        consumer.close(autocommit=False, timeout_ms=1000)


def forget_fetched(consumer: KafkaConsumer) -> None:
    """Make a consumer drop what it has fetched, and what it is assigned.

    A record that can't be read, such as one with a header whose name isn't UTF-8, stays with the
    consumer after the `CorruptRecordError`, and asked for more, the consumer loops for ever
    (`PartitionRecords` in consumer/fetcher.py is not drained).
    """
    consumer.assign([])
    consumer.poll(timeout_ms=0)


# Producers


def within(seconds: float, call: Callable[[], T]) -> T:
    """The result of a call that may never return. Raises `KafkaTimeoutError` after so long.

    A transaction waits for ever if its broker dies at the wrong moment, even when the broker is
    back (`wait` in producer/transaction_manager.py gets no limit from producer/kafka.py).
    """
    try:
        return run_in_thread(call).result(seconds)
    except TimeoutError:
        raise KafkaTimeoutError(f"no answer in {seconds:g} s") from None


def send_all(producer: KafkaProducer, messages: Iterable[Mapping[str, Any]]) -> float | None:
    """Send messages in a transaction; return once Kafka has them all. Raises `KafkaError`.

    Returns the last message's time as its topic counts it, in seconds; None without messages.

    When Kafka answers a message with an error such as 45 or 47, the library forgets the open
    transaction, and would then confirm a commit of nothing (`bump_producer_id_and_epoch` in
    producer/transaction_manager.py). So every message is awaited before the commit.
    """
    futures = [producer.send(**message) for message in messages]
    producer.flush()
    with only_kafka_errors():
        times = [future.get().timestamp / 1000 for future in futures]
    return times[-1] if times else None


def close_producer(producer: KafkaProducer) -> None:
    """Close a producer, whether Kafka is there or not.

    If Kafka is away, `close` raises from its first step, `flush`, and leaves the producer's thread
    behind (producer/kafka.py; pull request 3108 is about the same).
    """
    try:
        producer.close(1)
    except KafkaError:
        producer._sender.force_close()


def writable(record: ConsumerRecord) -> tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]:
    """The key, value and headers of a record as a producer can send them.

    A record may have nulls that a consumer reads and a producer refuses: as the value of a header,
    and as both key and value (`send` in producer/kafka.py).
    """
    headers = [(name, value or b"") for name, value in record.headers]
    if record.key is None and record.value is None:
        return None, b"", headers
    return record.key, record.value, headers


def end_empty_transaction(
    producer: KafkaProducer,
    partitions: Sequence[TopicPartition],
    group: str,
    *,
    is_commit: bool,
    seconds: float,
) -> None:
    """Commit or abort a transaction without records over partitions and a group's offsets, if any.

    No public call adds a partition to a transaction without sending a record to it. Raises
    `KafkaError`.
    """
    transactions = producer._transaction_manager
    with only_kafka_errors():
        transactions.begin_transaction()
        steps = []
        if partitions:
            with transactions._lock:
                transactions._new_partitions_in_transaction.update(partitions)
                adding = transactions._add_partitions_to_transaction_handler()
                transactions._enqueue_request(adding)
            steps.append(adding.result)
        if group:
            steps.append(transactions.send_offsets_to_transaction({}, group))
        _wait_for(producer, steps, seconds)
        end = transactions.begin_commit if is_commit else transactions.begin_abort
        _wait_for(producer, [end()], seconds)


def _wait_for(producer: KafkaProducer, steps: Iterable[Any], seconds: float) -> None:
    producer._sender.wakeup()
    for step in steps:
        if not step.wait(seconds * 1000):
            raise KafkaTimeoutError(f"no answer in {seconds:g} s")
