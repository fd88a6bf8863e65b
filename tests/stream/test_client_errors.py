"""No error of Kafka's client ends a stage with a traceback, whichever call raises it."""

import ssl
import struct
from collections.abc import Callable, Iterator
from itertools import count, islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kafka import TopicPartition, errors
from kafka.consumer.fetcher import ConsumerRecord
from kafka.coordinator.base import MemberState
from kafka.errors import KafkaError, TransactionalIdNotFoundError

from pipeline.errors import FatalError
from pipeline.messages import IMAGES, ReceivedImage, dump, parse
from pipeline.settings import Parser
from pipeline.stages import IMAGE_ANALYSIS
from pipeline.stop_signal import StopSignal
from pipeline.store.database import Database
from pipeline.store.instance_lock import InstanceLock
from pipeline.store.names import IMAGE_DATABASE
from pipeline.stream import connection, membership, outbox, stage, topic_reader, transactions
from pipeline.stream.availability import Availability
from pipeline.stream.create_topics import PARTITIONS
from pipeline.stream.kafka_python import _checked
from pipeline.stream.stage import Stage

PARTITION = TopicPartition(IMAGES, 3)
FAR = 10**9  # an offset


class Injection:
    """Raises an error at one call of one of the client's methods."""

    def __init__(self) -> None:
        self.at = ""
        self.error: Exception | None = None

    def pass_by(self, name: str) -> None:
        """Raise the error if this is the call that it is for."""
        if name == self.at and self.error:
            error, self.error = self.error, None
            raise error


INJECTION = Injection()


def topics(names: list[str]) -> list[dict[str, Any]]:
    """The topics as an admin client describes them."""
    partitions = [{"partition_index": number, "leader_id": 1} for number in range(PARTITIONS)]
    return [{"name": name, "topic_id": name, "partitions": partitions} for name in names]


def settings_of(asked: list[Any], **_: object) -> dict[str, Any]:
    """The settings of topics, all of which are to be mended."""
    return {"topic": {one.name: {"cleanup.policy": {"value": "compact"}} for one in asked}}


def unknown(_: object) -> None:
    """Answer as to a transactional id that was never used."""
    raise TransactionalIdNotFoundError


def record_at(offset: int) -> ConsumerRecord:
    """A message of the next image."""
    name = f"{offset:05d}"
    message = ReceivedImage(image_id=name, source="", number=offset, path=f"image_database/{name}")
    known = {"topic": IMAGES, "partition": 3, "offset": offset, "headers": [], "timestamp": 0}
    empty = dict.fromkeys(ConsumerRecord._fields)
    return ConsumerRecord(**{**empty, **known, "value": dump(message)})


def polled(*_: object, **options: object) -> dict[TopicPartition, list[ConsumerRecord]]:
    """A record with every other poll; the topic reader, which names its options, finds none."""
    if options.keys() == {"timeout_ms"} or next(POLLS) % 2:
        return {}
    return {PARTITION: [record_at(next(OFFSETS))]}


OFFSETS = count(1)
POLLS = count()
GENERATIONS = count()
ANSWERS: dict[str, Callable[..., Any]] = {
    # of an admin client
    "list_topics": list,
    "create_topics": lambda *_, **__: {"topics": []},
    "wait_for_topics": lambda _: None,
    "describe_topics": topics,
    "describe_configs": settings_of,
    "alter_configs": lambda asked, **_: {"topic": {asked[0].name: "OK"}},
    "describe_features": lambda: {"metadata.version": {"supported": (1, 28)}},
    "describe_transactions": unknown,
    "list_group_offsets": lambda _: {},
    "describe_groups": lambda names: {
        names[0]: {"members": [], "group_state": "Stable"},
    },
    "remove_group_members": lambda *_: None,
    # of a consumer
    "poll": polled,
    "group_metadata": lambda: SimpleNamespace(
        generation_id=next(GENERATIONS), state=MemberState.STABLE
    ),
    "assignment": set,
    "assign": lambda _: None,
    "seek": lambda *_: None,
    "position": lambda _: FAR,
    "partitions_for_topic": lambda _: set(range(PARTITIONS)),
    "beginning_offsets": lambda asked: dict.fromkeys(asked, 0),
    "end_offsets": lambda asked: dict.fromkeys(asked, FAR),
    "committed": lambda *_, **__: None,
    # of a producer
    "init_transactions": lambda: None,
    "begin_transaction": lambda: None,
    "send": lambda **_: SimpleNamespace(get=lambda: SimpleNamespace(timestamp=0)),
    "flush": lambda: None,
    "send_offsets_to_transaction": lambda *_: None,
    "commit_transaction": lambda: None,
    # of all
    "close": lambda *_, **__: None,
}


def fake(kind: str) -> Any:
    """A client that has nothing behind it."""

    def method(name: str) -> Callable[..., Any]:
        def call(_: object, *arguments: Any, **options: Any) -> Any:
            INJECTION.pass_by(name)
            return ANSWERS[name](*arguments, **options)

        return call

    def begin(_: object, *__: object, **___: object) -> None:
        INJECTION.pass_by(kind)

    return _checked(type(kind, (), {"__init__": begin, **{name: method(name) for name in ANSWERS}}))


CLIENTS = ["Admin", "Consumer", "Producer"]
# The assignment is asked for only after an error of a poll, and what is committed by receiving.
CALLS = [*CLIENTS, *(call for call in ANSWERS if call not in ("assignment", "committed"))]
RECEIVING_CALLS = [
    *CLIENTS,
    *("list_topics", "create_topics", "describe_topics", "describe_configs", "alter_configs"),
    *("describe_transactions", "init_transactions", "begin_transaction", "send", "flush"),
    *("send_offsets_to_transaction", "commit_transaction", "committed", "close"),
]


def family(error: type[KafkaError]) -> Iterator[type[KafkaError]]:
    """An error's class and all classes below it."""
    yield error
    for below in error.__subclasses__():
        yield from family(below)


def every_error() -> Iterator[Exception]:
    """One of each error that the client may raise."""
    for kind in dict.fromkeys(family(KafkaError)):
        yield errors.LogTruncationError({}) if kind is errors.LogTruncationError else kind("why")
    for offsets in ({PARTITION: 1}, [PARTITION]):
        yield errors.OffsetOutOfRangeError(offsets)
        yield errors.NoOffsetForPartitionError(offsets)
    yield from (KeyError(PARTITION), KeyError("why"), ValueError("why"), IndexError("why"))
    yield from (AttributeError("why"), TypeError("why"), RuntimeError("why"), AssertionError())
    yield from (OSError(9, "why"), ConnectionResetError("why"), ssl.SSLError("why"))
    yield from (ssl.SSLCertVerificationError("why"), struct.error("why"), TimeoutError("why"))
    yield UnicodeDecodeError("utf-8", b"\xff", 0, 1, "why")


class NoPause(StopSignal):
    """Nobody stops the stage, and it pauses no time."""

    def __init__(self, *_: object, **__: object) -> None:
        self.status = 0
        self._asked = False

    def wait(self, seconds: float) -> None:
        """Go on at once."""


@pytest.fixture
def analysis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """A stage whose clients have no Kafka behind them, and which looks whether all is well."""
    monkeypatch.setattr(Availability, "listening_server", lambda _: ("localhost", 1))
    monkeypatch.setattr(stage, "StopSignal", NoPause)
    monkeypatch.setattr(membership, "CHECK_SECONDS", -1)
    monkeypatch.setattr(connection, "Admin", fake("Admin"))
    for room in (membership, topic_reader, outbox):
        monkeypatch.setattr(room, "Consumer", fake("Consumer"))
    monkeypatch.setattr(transactions, "Producer", fake("Producer"))
    parser = Parser("")
    options = parser.parse_args(["--data", str(tmp_path), "--kafka-wait", "9999"])
    return Stage(parser.settings(options), IMAGE_ANALYSIS)


def work(analysis: Stage) -> None:
    """Process batches until the error was raised, and a batch is committed after that."""
    for batch in islice(analysis.batches(), 10):
        is_raised = INJECTION.error is None
        with batch:
            for record in batch:
                message = parse(record.value, ReceivedImage)
                batch.is_repeated(record, message)
                batch.publish(record, message, IMAGES)
            batch.commit()
        if is_raised and batch.is_committed:
            return


def end_of(run: Callable[[], None]) -> str:
    """The line with which something ends, or that it goes on."""
    try:
        run()
    except FatalError as fatal:
        return str(fatal)
    return "it goes on"


@pytest.mark.parametrize("call", CALLS)
def test_an_error_of_the_client(
    analysis: Stage, call: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """After each error at each call, the stage goes on or ends with one line; it is never silent.

    Where it goes on, it has joined again, or asks again.
    """
    INJECTION.at = call
    for error in every_error():
        INJECTION.error = error
        assert len(end_of(lambda: work(analysis)).splitlines()) == 1, error
        assert INJECTION.error is None, f"{call} is never called"
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("call", RECEIVING_CALLS)
def test_an_error_of_the_client_in_receiving(
    analysis: Stage, call: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """So does receiving: a batch is published after the error, or it ends with one line."""
    settings = analysis.kafka.settings
    assert settings.data.directory
    (settings.data.directory / IMAGE_DATABASE).mkdir()
    lock = InstanceLock(f"errors-{call}", settings)
    images = Database(settings.data, IMAGE_DATABASE, lock)
    message = parse(record_at(0).value, ReceivedImage)

    def receive() -> None:
        box = outbox.Outbox(analysis.kafka, images, "")
        box.publish([message], ["published"])
        box.close()
        assert "published" in capsys.readouterr().out

    INJECTION.at = call
    for error in every_error():
        INJECTION.error = error
        assert len(end_of(receive).splitlines()) == 1, error
        assert INJECTION.error is None, f"{call} is never called"
    assert "Traceback" not in capsys.readouterr().err
