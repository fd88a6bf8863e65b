"""A proxy before Kafka that reads the frames' headers, and does evil at one that is chosen.

It stands between all clients and a single broker; the broker advertises the proxy's port, so that
even what Kafka sends to itself (the markers that end transactions) comes by. A `Trap` says where
and what: the nth request of this kind, from this program, or the answer to it.
"""

import asyncio
import os
import struct
import threading
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import kafka.protocol.consumer
import kafka.protocol.metadata
import kafka.protocol.producer
from kafka.protocol.api_key import ApiKey

T = TypeVar("T")
Frame = bytes  # with the four bytes of its size
PROTOCOL = {
    name: one
    for part in (kafka.protocol.producer, kafka.protocol.consumer, kafka.protocol.metadata)
    for name, one in vars(part).items()
}


@dataclass(frozen=True)
class Point:
    """A place on the way of a request and its answer."""

    api: str  # as Kafka calls it: EndTxn
    side: Literal["request", "answer"]
    when: Literal["before", "after"]  # it is passed on
    milliseconds: int = 0  # after that

    def __str__(self) -> str:
        return f"{self.api}:{self.side}:{self.when}"


@dataclass(frozen=True)
class Strike:
    """Call this: it kills or suspends somebody. What was to be passed on goes with them."""

    victim: Callable[[], None]
    drops: bool = True  # what is not passed on yet


@dataclass(frozen=True)
class Cut:
    """Close the connection, on both sides."""


@dataclass(frozen=True)
class Delay:
    """Hold it back for so long, and what comes behind it on this connection."""

    seconds: float


@dataclass(frozen=True)
class Error:
    """Answer with this error: in the broker's place, or in the place of its answer."""

    code: int


Act = Strike | Cut | Delay | Error


@dataclass(eq=False)
class Request:
    """A request that was seen, to recognise its answer."""

    api: str
    version: int
    correlation_id: int
    frame: Frame

    def decoded(self) -> Any:
        """The request as kafka-python has it."""
        kind = PROTOCOL[f"{self.api}Request"][self.version]
        return kind.decode(self.frame, header=True, framed=True)


@dataclass(eq=False)
class Trap:
    """What is to happen, once, and where."""

    point: Point
    act: Act
    owner: str  # of the connection
    skip: int = 0  # so many first
    sprung: threading.Event = field(default_factory=threading.Event)  # and the act is done
    request: Request | None = None  # that it happened to
    fault: str = ""  # the proxy's own


@dataclass(eq=False)
class Connection:
    """A client's connection, and the one to the broker that was made for it."""

    owner: str
    client: asyncio.StreamWriter
    broker: asyncio.StreamWriter
    waiting: dict[int, Request] = field(default_factory=dict)  # for their answers

    def cut(self) -> None:
        """Close both."""
        self.client.close()
        self.broker.close()


class KillProxy:
    """Listens on `port` of this machine and passes on to the broker's, in a thread of its own."""

    def __init__(
        self, port: int, broker_port: int, programs: Callable[[], Mapping[str, int]]
    ) -> None:
        """`programs` are those whose connections are told apart, with their process ids."""
        self.port = port
        self._broker_port = broker_port
        self._programs = programs
        self._trap: Trap | None = None
        self._server: asyncio.Server | None = None
        self._connections: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def listen(self) -> None:
        """Take connections."""

        async def start() -> asyncio.Server:
            return await asyncio.start_server(self._serve, "127.0.0.1", self.port)

        self._server = self._run(start())

    def refuse(self) -> None:
        """Refuse connections, as the port of a broker that has ended does."""

        async def end() -> None:
            if self._server:
                self._server.close()
                self._server = None

        self._run(end())

    def arm(self, trap: Trap) -> None:
        """Lay this trap, in the place of the one before."""
        self._trap = trap

    def disarm(self) -> None:
        """Only pass on."""
        self._trap = None

    def close(self) -> None:
        """Cut all connections and end."""
        self.refuse()

        async def cut() -> None:
            for connection in self._connections:
                connection.cut()
            while self._connections:
                await asyncio.sleep(0.001)

        self._run(cut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client_port = writer.get_extra_info("peername")[1]
        owner = holder(client_port, self.port, self._programs())
        try:
            from_broker, to_broker = await asyncio.open_connection("127.0.0.1", self._broker_port)
        except OSError:
            writer.close()
            return
        connection = Connection(owner, writer, to_broker)
        self._connections.add(connection)
        try:
            await asyncio.gather(
                self._requests(connection, reader), self._answers(connection, from_broker)
            )
        finally:
            connection.cut()
            self._connections.remove(connection)

    async def _requests(self, connection: Connection, reader: asyncio.StreamReader) -> None:
        while frame := await read_frame(reader):
            key, version, correlation_id = struct.unpack_from(">hhi", frame, 4)
            request = Request(ApiKey(key).name, version, correlation_id, frame)
            connection.waiting[correlation_id] = request
            await self._pass(connection, request, "request", frame)
        connection.broker.close()

    async def _answers(self, connection: Connection, reader: asyncio.StreamReader) -> None:
        while frame := await read_frame(reader):
            (correlation_id,) = struct.unpack_from(">i", frame, 4)
            request = connection.waiting.pop(correlation_id)
            await self._pass(connection, request, "answer", frame)
        connection.client.close()

    async def _pass(
        self,
        connection: Connection,
        request: Request,
        side: Literal["request", "answer"],
        frame: Frame,
    ) -> None:
        """Pass it on, or do with it as the trap says."""
        trap = self._sprung(connection, request, side)
        if trap is None:
            await write(connection.broker if side == "request" else connection.client, frame)
            return
        trap.request = request
        try:
            await self._act(trap, connection, request, frame)
        except Exception as error:
            trap.fault = f"{type(error).__name__}: {error}"
            connection.cut()
            trap.sprung.set()

    def _sprung(self, connection: Connection, request: Request, side: str) -> Trap | None:
        trap = self._trap
        if trap is None or (request.api, side) != (trap.point.api, trap.point.side):
            return None
        if connection.owner != trap.owner:
            return None
        trap.skip -= 1
        if trap.skip >= 0:
            return None
        self._trap = None
        return trap

    async def _act(
        self, trap: Trap, connection: Connection, request: Request, frame: Frame
    ) -> None:
        point = trap.point
        onward = connection.broker if point.side == "request" else connection.client
        if point.when == "after":
            await write(onward, frame)
            # What comes behind it on the connection doesn't wait for that.
            task = asyncio.create_task(self._strike_later(trap, connection))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return
        match trap.act:
            case Strike(victim, drops):
                victim()
                if not drops:
                    await write(onward, frame)
            case Cut():
                connection.cut()
            case Delay(seconds):
                await asyncio.sleep(seconds)
                await write(onward, frame)
            case Error(code):
                if point.side == "request":
                    await self._answer_in_turn(connection, request, refusal(request, code))
                else:
                    await write(onward, with_error(request, frame, code))
        trap.sprung.set()

    async def _strike_later(self, trap: Trap, connection: Connection) -> None:
        await asyncio.sleep(trap.point.milliseconds / 1000)
        if isinstance(trap.act, Strike):
            trap.act.victim()
        else:
            connection.cut()
        trap.sprung.set()

    async def _answer_in_turn(
        self, connection: Connection, request: Request, answer: Frame
    ) -> None:
        """Answer in the broker's place; a client takes answers in the order of its requests."""
        while len(connection.waiting) > 1 and not connection.client.is_closing():
            await asyncio.sleep(0.001)
        del connection.waiting[request.correlation_id]
        await write(connection.client, answer)


async def read_frame(reader: asyncio.StreamReader) -> Frame:
    """The next frame whole; none if the other side has ended."""
    with suppress(OSError, asyncio.IncompleteReadError):
        size = await reader.readexactly(4)
        return size + await reader.readexactly(*struct.unpack(">i", size))
    return b""


async def write(writer: asyncio.StreamWriter, frame: Frame) -> None:
    """Pass on; if the other side has ended, whoever reads from it finds out."""
    with suppress(OSError):
        writer.write(frame)
        await writer.drain()


def holder(port: int, peer_port: int, programs: Mapping[str, int]) -> str:
    """Which of these programs holds the socket from `port` to `peer_port` of this machine."""
    for table in ("tcp", "tcp6"):  # Java's are in the second
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            _, here, there, *rest = line.split()
            ports = (int(address.rpartition(":")[2], 16) for address in (here, there))
            if tuple(ports) == (port, peer_port):
                link = f"socket:[{rest[6]}]"
                for name, pid in programs.items():
                    if link in links(pid):
                        return name
    return ""


def links(pid: int) -> set[str]:
    """What a process's open files are; none if it has ended."""
    found = set()
    with suppress(OSError):
        for file in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):  # closed in between
                found.add(os.readlink(file))
    return found


def with_error(request: Request, frame: Frame, code: int) -> Frame:
    """The broker's answer with this error in the place of each of its own."""
    kind = PROTOCOL[f"{request.api}Response"][request.version]
    answer = kind.decode(frame, header=True, framed=True)
    _set_errors(answer, code)
    return encoded(request, answer)


def _set_errors(part: Any, code: int) -> None:
    for name, schema in part.fields.items():
        if name.endswith("error_code"):
            setattr(part, name, code)
        elif schema.is_struct_array():
            for one in getattr(part, name) or ():
                _set_errors(one, code)


def refusal(request: Request, code: int) -> Frame:
    """The answer with this error to a request that the broker doesn't get."""
    asked = request.decoded()
    answer = PROTOCOL[f"{request.api}Response"](version=request.version)
    if request.api == "Produce":
        answer.responses = [
            answer.TopicProduceResponse(
                version=request.version,
                name=topic.name,
                topic_id=topic.topic_id,
                partition_responses=[
                    answer.TopicProduceResponse.PartitionProduceResponse(
                        version=request.version, index=one.index, base_offset=-1
                    )
                    for one in topic.partition_data
                ],
            )
            for topic in asked.topic_data
        ]
    elif request.api == "TxnOffsetCommit":
        topic_kind = answer.TxnOffsetCommitResponseTopic
        answer.topics = [
            topic_kind(
                version=request.version,
                name=topic.name,
                partitions=[
                    topic_kind.TxnOffsetCommitResponsePartition(
                        version=request.version, partition_index=one.partition_index
                    )
                    for one in topic.partitions
                ],
            )
            for topic in asked.topics
        ]
    elif request.api == "AddPartitionsToTxn":
        topic_kind = answer.AddPartitionsToTxnTopicResult
        answer.results_by_topic_v3_and_below = [
            topic_kind(
                version=request.version,
                name=topic.name,
                results_by_partition=[
                    topic_kind.AddPartitionsToTxnPartitionResult(
                        version=request.version, partition_index=number
                    )
                    for number in topic.partitions
                ],
            )
            for topic in asked.v3_and_below_topics
        ]
    _set_errors(answer, code)
    return encoded(request, answer)


def encoded(request: Request, answer: Any) -> Frame:
    """The answer to this request as it goes over the network."""
    answer.with_header(correlation_id=request.correlation_id)
    return bytes(answer.encode(header=True, framed=True))
