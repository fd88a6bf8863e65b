"""What lets `image_receiving.py` die between storing and publishing, and lose or double nothing.

No topic tells a new run where the one before it stopped. So a batch's messages are on disk, in the
outbox, before its images are; and Kafka gets the batch's mark in one transaction with them, as the
metadata of an offset that nobody reads from. Whenever we connect, Kafka itself says which message
was the last to become true.

One batch is on its way to Kafka while the next one is being stored: the outbox has both.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from itertools import takewhile
from typing import Any

import msgspec
from kafka import KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.errors import KafkaError

from pipeline.errors import FatalError, InvalidInput
from pipeline.messages import DEAD_LETTERS, IMAGES, ReceivedImage, dump
from pipeline.store.database import Database
from pipeline.store.names import IMAGE_DATABASE, digest
from pipeline.stream.connection import Kafka
from pipeline.stream.dead_letters import ABOUT
from pipeline.stream.transactions import outgoing_message, transact, transactional_producer
from pipeline.terminal import one_line, printable, say

MARKER = TopicPartition(IMAGES, 0)  # any partition would do
Messages = Sequence[ReceivedImage]


class Outbox:
    """The images of one source that are being stored and published, under a name of its own."""

    def __init__(self, kafka: Kafka, images: Database, name: str) -> None:
        self.stop = kafka.stop
        self.name = name
        self._images = images
        self._path = f"{IMAGE_DATABASE}/.{name}.json"
        self._kafka = kafka
        self._closing = ExitStack()
        self._producer: KafkaProducer
        self._thread = ThreadPoolExecutor(1)
        self._sending: Future[Messages] | None = None
        self._sent: Messages = ()  # on its way, or the last that was
        self._put: Messages = ()
        self._marked: str
        self.known: int  # the number after the last one that Kafka has, if it remembers any
        self._connect()

    def left(self) -> list[ReceivedImage]:
        """What an interrupted run has stored and not published."""
        try:
            content = self._images.read(self._path)
        except InvalidInput:
            return []
        try:
            messages = msgspec.json.decode(content, type=list[ReceivedImage])
        except msgspec.MsgspecError as error:
            raise FatalError(
                f"{self._path} in {self._images.where} is damaged: {error}; remove it"
            ) from error
        published = [_mark(one) == self._marked for one in messages]
        unpublished = messages[published.index(True) + 1 :] if any(published) else messages
        stored = list(takewhile(lambda one: self._images.has(one.path), unpublished))
        # Images are put in place side by side. Those beyond the first that is missing would leave
        # a gap in the numbers; nobody was told of them, and they are received anew.
        for message in unpublished[len(stored) :]:
            if self._is_stored(message):
                self._images.remove(message.path)
        return [one for one in stored if self._is_stored(one)]

    def put(self, messages: Messages) -> None:
        """Remember a batch, before its images are put in place."""
        self._put = messages
        self._images.write(self._path, msgspec.json.encode([*self._sent, *messages]))
        self._images.sync()

    def publish(self) -> Messages:
        """Send the batch that was put, if any; return the one before it, which Kafka now has."""
        if not self._put:
            return ()
        published = self.settle()
        self._sent, self._put = self._put, ()
        self._sending = self._thread.submit(self._send, self._sent)
        return published

    def settle(self) -> Messages:
        """The batch that was on its way, once Kafka has acknowledged it."""
        sending, self._sending = self._sending, None
        return sending.result() if sending else ()

    def set_aside(self, source: str, path: str, reason: InvalidInput) -> None:
        """Send a dead letter of a file that can't be used; return once Kafka has it."""
        letter = {
            "topic": DEAD_LETTERS,
            "key": source.encode(),
            "value": path.encode(errors="backslashreplace"),
            "headers": [
                (f"{ABOUT}stage", b"image_receiving"),
                (f"{ABOUT}exception.class.name", type(reason).__name__.encode()),
                (f"{ABOUT}exception.message", printable(str(reason)).encode()),
                (f"{ABOUT}time", f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}".encode()),
            ],
        }
        # Behind the batch that is on its way. A try that Kafka has, and didn't tell us of, is twice
        # there: of a file that was set aside, that does no harm.
        self._thread.submit(self._send_letter, letter).result()

    def forget(self) -> None:
        """Forget what has been published, which by now is all."""
        if self._sent:
            self._images.remove(self._path)
        self._sent = ()

    def close(self) -> None:
        """Leave Kafka."""
        self.forget()
        self._closing.close()

    def _send(self, messages: Messages) -> Messages:
        """Publish a batch in one transaction."""
        mark = _mark(messages[-1])
        marker = {MARKER: OffsetAndMetadata(messages[-1].number + 1, mark, -1)}
        outgoing = [outgoing_message(IMAGES, one) for one in messages]
        marked_before = self._marked
        pause = 0.125
        while self._marked != mark:
            if self._marked not in (marked_before, ""):  # Kafka forgets it after an idle week
                raise FatalError(
                    f"another {self.name} publishes, on another machine; this one ends"
                )
            try:
                transact(self._producer, outgoing, marker, self.name)
                self._marked = mark
            except KafkaError as error:
                pause = self._connect_again(error, pause)
        return messages

    def _send_letter(self, letter: Mapping[str, Any]) -> None:
        pause = 0.125
        while True:
            try:
                return transact(self._producer, [letter])
            except KafkaError as error:
                pause = self._connect_again(error, pause)

    def _connect_again(self, error: KafkaError, pause: float) -> float:
        """After so many seconds; returns how many it is to be the next time."""
        self._kafka.end_if_forbidden(error)
        say(f"Kafka did not confirm the commit: {one_line(error)}; trying again")
        self.stop.wait(pause)
        self._connect()
        return min(2 * pause, 10)

    def _is_stored(self, message: ReceivedImage) -> bool:
        try:
            self._images.read(message.path, message.sha256)
        except InvalidInput:
            return False
        return True

    def _connect(self) -> None:
        self._closing.close()
        made = self._closing.enter_context(self._kafka.connect(self._make))
        self._producer, self.known, self._marked = made

    def _make(self, kafka: Kafka, closing: ExitStack) -> tuple[KafkaProducer, int, str]:
        kafka.check()
        # From here on nothing that had this name before can publish, so what is last stays so.
        producer = transactional_producer(kafka, self.name, closing)
        consumer = KafkaConsumer(
            **kafka.options,
            group_id=self.name,
            # Otherwise it would read the marker before one that is just being committed.
            isolation_level="read_committed",
        )
        try:
            marker = consumer.committed(MARKER, metadata=True, timeout_ms=10_000)
        finally:
            consumer.close(autocommit=False, timeout_ms=1000)
        return (producer, marker.offset, marker.metadata) if marker else (producer, 0, "")


def _mark(message: ReceivedImage) -> str:
    return digest(dump(message))
