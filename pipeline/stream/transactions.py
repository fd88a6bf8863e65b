"""Transactions: messages and offsets become visible together, or not at all."""

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from kafka import ConsumerGroupMetadata, KafkaProducer, OffsetAndMetadata, TopicPartition

from pipeline.messages import Message, Notification, Receipt, dump
from pipeline.stream.clock import CLOCK
from pipeline.stream.connection import Kafka
from pipeline.stream.hanging import end_if_hanging
from pipeline.stream.kafka_python import Producer, close_producer, send_all, within

TRANSACTION_SECONDS = 10  # until a transaction is given up; Kafka aborts it a second later


def transact(
    producer: KafkaProducer,
    outgoing: Sequence[Mapping[str, Any]],
    offsets: Mapping[TopicPartition, OffsetAndMetadata] | None = None,
    group: ConsumerGroupMetadata | str = "",
) -> None:
    """Send the messages and commit the group's offsets, if any, in one transaction.

    It returns once Kafka has acknowledged every message, the offsets and the commit. Raises
    `KafkaError`, after which only Kafka knows whether the transaction was committed: a new producer
    of the same name ends it, and then the committed offsets say whether it was.
    """

    def run() -> None:
        producer.begin_transaction()
        sent, began = time.time(), time.monotonic()
        there = send_all(producer, outgoing)
        if there is not None:
            CLOCK.compare(there, sent, sent + time.monotonic() - began)
        if offsets:
            producer.send_offsets_to_transaction(offsets, group)
        producer.commit_transaction()

    within(TRANSACTION_SECONDS, run)


def outgoing_message(topic: str, message: Message) -> dict[str, Any]:
    """A message as a producer sends it. Kafka keeps the order of messages with the same key."""
    key = message.recipient if isinstance(message, Notification | Receipt) else message.source
    return {"topic": topic, "key": key.encode(), "value": dump(message)}


def transactional_producer(kafka: Kafka, name: str, closing: ExitStack) -> KafkaProducer:
    """A producer for transactions; a producer that had this name before can't publish any more.

    Ends the program if Kafka has lost the end of the last transaction of this name.
    """
    # Before `init_transactions`, which makes Kafka forget how the last transaction ended.
    end_if_hanging(kafka, name, leader_seconds=5)
    return unchecked_producer(kafka, name, closing)


def unchecked_producer(kafka: Kafka, name: str, closing: ExitStack) -> KafkaProducer:
    """A producer for transactions, without a look at the last transaction of this name."""
    producer = Producer(
        **kafka.options,
        transactional_id=name,
        transaction_timeout_ms=(TRANSACTION_SECONDS + 1) * 1000,
        max_block_ms=10_000,
        # The only codec that a plain client of every language reads without an extra package. It
        # saves 60 % of the bytes for 8 microseconds a message, and a message that came compressed
        # may be too large for its topic without compression.
        compression_type="gzip",
        # For a few milliseconds, while Kafka ends a transaction, it refuses to begin the next one.
        # By default a producer asks again after 100 ms.
        retry_backoff_ms=5,
        max_request_size=32 * 2**20,
    )
    closing.callback(close_producer, producer)
    producer.init_transactions()
    return producer
