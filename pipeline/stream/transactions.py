"""Transactions: messages and offsets that become true together, or not at all."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from kafka import (
    ConsumerGroupMetadata,
    KafkaProducer,
    OffsetAndMetadata,
    TopicPartition,
)

from pipeline.messages import Message, dump
from pipeline.stream.connection import Kafka
from pipeline.stream.hanging import end_if_hanging
from pipeline.stream.kafka_python import close_producer, send_all, within

TRANSACTION_SECONDS = 10  # until a transaction is given up; Kafka ends it a second later


def transact(
    producer: KafkaProducer,
    outgoing: Sequence[Mapping[str, Any]],
    offsets: Mapping[TopicPartition, OffsetAndMetadata] | None = None,
    group: ConsumerGroupMetadata | str = "",
) -> None:
    """Send the messages and commit the group's offsets, if any, in one transaction.

    It returns once Kafka has acknowledged every message, the offsets and the commit. Raises
    `KafkaError`; whether the transaction was committed then, only Kafka knows: a new producer of
    the same name ends it, and after that the committed offsets tell.
    """

    def run() -> None:
        producer.begin_transaction()
        send_all(producer, outgoing)
        if offsets:
            producer.send_offsets_to_transaction(offsets, group)
        producer.commit_transaction()

    within(TRANSACTION_SECONDS, run)


def outgoing_message(topic: str, message: Message) -> dict[str, Any]:
    """A message as a producer sends it; its key keeps each source in order."""
    return {"topic": topic, "key": message.key.encode(), "value": dump(message)}


def transactional_producer(kafka: Kafka, name: str, closing: ExitStack) -> KafkaProducer:
    """A producer for transactions; an earlier one of this name can't publish any more.

    Ends the program if Kafka has lost the end of the earlier one's last transaction.
    """
    # Before Kafka is made to forget how that transaction ended.
    end_if_hanging(kafka, name, leader_seconds=5)
    return unchecked_producer(kafka, name, closing)


def unchecked_producer(kafka: Kafka, name: str, closing: ExitStack) -> KafkaProducer:
    """The same for whoever has looked at the earlier one's last transaction already."""
    producer = KafkaProducer(
        **kafka.options,
        transactional_id=name,
        transaction_timeout_ms=(TRANSACTION_SECONDS + 1) * 1000,
        max_block_ms=10_000,
        # Without it, a message that came compressed may be too large to set aside.
        compression_type="zstd",
        # Kafka refuses a transaction's start while it still ends the one before, a few ms long;
        # the default is to ask again after 100.
        retry_backoff_ms=5,
        max_request_size=32 * 2**20,
    )
    closing.callback(close_producer, producer)
    producer.init_transactions()
    return producer
