"""The outbox: however `image_receiving.py` is killed, no image is lost and none is published twice.

A stage that reads a topic finds in Kafka how far it has come. Receiving reads no topic, so two
things say how far it has come:

* The outbox's file has the messages of each batch before the first image of the batch is stored. It
  is deleted once all of them are published.
* The transaction that publishes a batch also commits a marker: the digest of the batch's last
  message, as the metadata of an offset that nobody reads from.

The next run reads both. The file's messages up to the marked one are published. Those behind it are
not, and the run publishes them if their images are stored.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from itertools import takewhile

from kafka import KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.errors import KafkaError
from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_exponential

from pipeline.errors import FatalError, InvalidInput
from pipeline.messages import IMAGES, ReceivedImage, dump
from pipeline.pictures.seen_files import SET_ASIDE, SeenFiles
from pipeline.stages import IMAGE_RECEIVING
from pipeline.store.database import Database
from pipeline.store.names import digest
from pipeline.stream.connection import Kafka
from pipeline.stream.dead_letters import dead_letter_of_file
from pipeline.stream.kafka_python import Consumer, close_consumer
from pipeline.stream.outbox_file import OutboxContent, OutboxFile
from pipeline.stream.transactions import outgoing_message, transact, transactional_producer
from pipeline.terminal import one_line, printable, say

MARKER = TopicPartition(IMAGES, 0)  # any partition would do
Messages = Sequence[ReceivedImage]


def receiver_name(source: str) -> str:
    """The name of a source's receiver: its transactional id, its group and its outbox's file."""
    return f"{IMAGE_RECEIVING.name}-{source}".rstrip("-")


class Outbox:
    """The images of one source on their way into the image database and to Kafka.

    For each batch: `remember` it, write its images, `publish` it.
    """

    def __init__(self, kafka: Kafka, images: Database, source: str) -> None:
        """Connect to Kafka. From then on, no earlier receiver of the source can publish."""
        self.set_aside_count = 0
        self.seen = SeenFiles({})
        self.published_count: int  # how many images Kafka has messages of, by the last one's number
        self._kafka = kafka
        self._images = images
        self._source = source
        self._name = receiver_name(source)
        self._file = OutboxFile(images, self._name)
        self._unpublished: Messages = ()
        self._lock = threading.Lock()  # of `_unpublished` and the file
        self._thread = ThreadPoolExecutor(1)  # in which everything is sent, one after the other
        self._storing: Future[None] | None = None  # of the batch that is to be published
        self._publishing: Future[None] | None = None
        self._producer: KafkaProducer
        self._marker: str  # the last message that Kafka has, by its digest
        self._closing = ExitStack()
        self._connect()

    def recover(self) -> None:
        """Publish what an interrupted run stored and did not publish, and say so.

        Images of one batch are stored side by side. Those behind the first one that is missing
        would leave a gap in the numbers: they are deleted, since nobody was told of them.
        """
        self._file.convert()
        content = self._file.read()
        self.seen = SeenFiles(content.seen)
        is_marked = [_digest(message) == self._marker for message in content.unpublished]
        begin = is_marked.index(True) + 1 if any(is_marked) else 0
        unpublished = content.unpublished[begin:]
        stored = list(takewhile(lambda message: self._images.has(message.path), unpublished))
        for message in unpublished[len(stored) :]:
            if self._is_stored(message):
                self._images.remove(message.path)
        self._unpublished = list(filter(self._is_stored, stored))
        self._write_file()
        if self._unpublished:
            what = "received by the run before, which was interrupted"
            lines = [f"{message.image_id}  {what}" for message in self._unpublished]
            self.publish(self._unpublished, lines)
            self._finish_publishing()

    def remember(self, messages: Messages, fingerprints: Sequence[str]) -> None:
        """Write a batch to the outbox's file, before its images are written.

        The fingerprints are those of the files that the images come from.
        """
        if self._storing:
            self._storing.result()  # two threads may not use the database at the same time
        with self._lock:
            for message, fingerprint in zip(messages, fingerprints, strict=True):
                self.seen.add(fingerprint, message.number)
            self._unpublished = [*self._unpublished, *messages]
            self._write_file()

    def publish(self, messages: Messages, say_when_published: Sequence[str]) -> None:
        """Publish a batch as soon as all of its images are stored, then say the lines.

        This happens in the background, so that the next batch can be received meanwhile. Waits
        until the batch before is published.
        """
        self._finish_publishing()
        self._storing = self._thread.submit(self._images.sync)
        self._publishing = self._thread.submit(
            self._publish, self._storing, messages, say_when_published
        )

    def set_aside(self, path: str, reason: InvalidInput, fingerprint: str = "") -> None:
        """Publish a dead letter of a file that can't be used, and say so.

        A watched file's fingerprint is remembered. After a kill, there may be a second letter of
        the same file, which does no harm.
        """
        letter = dead_letter_of_file(path, self._source, reason)
        self._thread.submit(
            self._until_confirmed, lambda: transact(self._producer, [letter])
        ).result()
        self.set_aside_count += 1
        say(f"set aside  {printable(path)}: {printable(str(reason))}")
        if fingerprint:
            with self._lock:
                self.seen.add(fingerprint, SET_ASIDE)
                self._write_file()

    def close(self) -> None:
        """Wait until Kafka has everything, and disconnect."""
        self._finish_publishing()
        self._closing.close()

    def _finish_publishing(self) -> None:
        if self._publishing:
            self._publishing.result()

    def _publish(self, storing: "Future[None]", messages: Messages, lines: Sequence[str]) -> None:
        """Publish a batch with its marker, in the outbox's thread."""
        storing.result()  # raises the error if an image could not be stored
        last = _digest(messages[-1])
        marker = {MARKER: OffsetAndMetadata(messages[-1].number + 1, last, -1)}
        outgoing = [outgoing_message(IMAGES, message) for message in messages]
        marker_before = self._marker

        def send() -> None:
            if self._marker == last:  # the try before was committed, and its answer was lost
                return
            if self._marker not in (marker_before, ""):  # Kafka forgets it after an idle week
                raise FatalError(
                    f"another {self._name} publishes, on another machine; this one ends"
                )
            transact(self._producer, outgoing, marker, self._name)
            self._marker = last

        self._until_confirmed(send)
        for line in lines:
            say(line)
        with self._lock:
            self._unpublished = self._unpublished[len(messages) :]
            if not self._unpublished:  # otherwise the next batch rewrites the file anyway
                self._write_file()

    def _until_confirmed(self, send: Callable[[], None]) -> None:
        """Try until Kafka has confirmed a transaction, each time with a new connection."""
        Retrying(
            retry=retry_if_exception_type(KafkaError),
            wait=wait_exponential(0.125, max=10),
            before_sleep=self._say_unconfirmed,
            sleep=self._connect_again,
        )(send)

    def _say_unconfirmed(self, attempt: RetryCallState) -> None:
        error = attempt.outcome and attempt.outcome.exception()
        if isinstance(error, KafkaError):
            self._kafka.end_if_forbidden(error)
            say(f"Kafka did not confirm the commit: {one_line(error)}; trying again")

    def _connect_again(self, seconds: float) -> None:
        self._kafka.stop.wait(seconds)
        self._connect()

    def _connect(self) -> None:
        self._closing.close()
        made = self._closing.enter_context(self._kafka.connect(self._make))
        self._producer, self.published_count, self._marker = made

    def _make(self, kafka: Kafka, closing: ExitStack) -> tuple[KafkaProducer, int, str]:
        """A producer, and what the marker says once no other producer of the name can change it."""
        kafka.check()
        producer = transactional_producer(kafka, self._name, closing)
        consumer = Consumer(
            **kafka.options,
            group_id=self._name,
            # Otherwise it would not wait for a marker whose transaction is just being committed.
            isolation_level="read_committed",
        )
        try:
            marker = consumer.committed(MARKER, metadata=True, timeout_ms=10_000)
        finally:
            close_consumer(consumer)
        return (producer, marker.offset, marker.metadata) if marker else (producer, 0, "")

    def _is_stored(self, message: ReceivedImage) -> bool:
        """Whether the message's image is in place, with the bytes that the message says."""
        try:
            self._images.read(message.path, message.sha256)
        except InvalidInput:
            return False
        return True

    def _write_file(self) -> None:
        self._file.write(OutboxContent(list(self._unpublished), self.seen.directories))


def _digest(message: ReceivedImage) -> str:
    return digest(dump(message))
