"""What lets `image_receiving.py` die between storing and publishing, and lose or double nothing.

No topic tells a new run where the one before it stopped. So a batch's messages are on disk, in the
outbox, before its images are; and the batch's name goes to Kafka in one transaction with them, as
the metadata of an offset that nobody reads from. Whenever we connect, Kafka itself says which batch
was the last to become true.
"""

import sys
from collections.abc import Sequence
from contextlib import ExitStack

import msgspec
from kafka import KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.errors import KafkaError

from pipeline import Unusable, say
from pipeline.connection import Kafka, Stop, text
from pipeline.messages import IMAGES, ReceivedImage
from pipeline.settings import Settings
from pipeline.store import IMAGE_DATABASE, Database, digest
from pipeline.stream import outgoing_message, transact, transactional_producer

MARKER = TopicPartition(IMAGES, 0)  # any partition would do


class Outbox:
    """The batch of images that is being stored and published, under a name of its source."""

    def __init__(self, settings: Settings, images: Database, name: str, stop: Stop) -> None:
        self._images = images
        self._name = name
        self._path = f"{IMAGE_DATABASE}/.{name}.json"
        self._kafka = Kafka(settings, stop)
        self._closing = ExitStack()
        self._producer: KafkaProducer
        self._last_batch: str
        self._connect()

    def left(self) -> list[ReceivedImage]:
        """What an interrupted run has stored and not published: in doubt until it is published."""
        try:
            content = self._images.read(self._path)
        except Unusable:
            return []
        try:
            messages = msgspec.json.decode(content, type=list[ReceivedImage])
        except msgspec.MsgspecError as error:
            sys.exit(f"{self._images.data / self._path} is damaged: {error}; remove it")
        is_published = self._last_batch == digest(content)
        return [] if is_published else [one for one in messages if self._is_stored(one)]

    def put(self, messages: Sequence[ReceivedImage]) -> None:
        """Remember the messages, before their images are put in place."""
        self._images.write(self._path, msgspec.json.encode(messages))

    def publish(self, messages: Sequence[ReceivedImage]) -> None:
        """Publish the messages in one transaction; return once Kafka has acknowledged them."""
        batch = digest(self._images.read(self._path))
        outgoing = [outgoing_message(IMAGES, one) for one in messages]
        pause = 0.125
        while self._last_batch != batch:
            try:
                marker = {MARKER: OffsetAndMetadata(0, batch, -1)}
                transact(self._producer, outgoing, marker, self._name)
                self._last_batch = batch
            except KafkaError as error:
                self._kafka.end_if_forbidden(error)
                say(f"Kafka did not commit: {text(error)}; trying again")
                self._kafka.stop.wait(pause)
                pause = min(2 * pause, 10)
                self._connect()

    def close(self) -> None:
        """Forget the batch, which has been published, and leave Kafka."""
        (self._images.data / self._path).unlink(missing_ok=True)
        self._closing.close()

    def _is_stored(self, message: ReceivedImage) -> bool:
        try:
            self._images.read(message.path, message.sha256)
        except Unusable:
            return False
        return True

    def _connect(self) -> None:
        self._closing.close()
        (self._producer, self._last_batch), self._closing = self._kafka.connect(self._make)

    def _make(self, closing: ExitStack) -> tuple[KafkaProducer, str]:
        # From here on nothing that had this name before can publish, so what is last stays so.
        producer = transactional_producer(self._kafka, self._name, closing)
        consumer = KafkaConsumer(**self._kafka.options, group_id=self._name)
        try:
            marker = consumer.committed(MARKER, metadata=True, timeout_ms=10_000)
        finally:
            consumer.close(autocommit=False, timeout_ms=1000)
        return producer, marker.metadata if marker else ""
