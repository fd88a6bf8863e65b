"""Transactions: messages and offsets that become true together, or not at all."""

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from typing import Any

from kafka import (
    ConsumerGroupMetadata,
    KafkaProducer,
    OffsetAndMetadata,
    TopicPartition,
)
from kafka.errors import KafkaError, KafkaTimeoutError

from pipeline.messages import Message, dump
from pipeline.stream.connection import Kafka
from pipeline.stream.hanging import end_if_hanging

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
    outcome: Future[None] = Future()

    def run() -> None:
        try:
            producer.begin_transaction()
            sent = [producer.send(**message) for message in outgoing]
            if offsets:
                producer.send_offsets_to_transaction(offsets, group)
            # kafka-python 3.0.12 forgets a transaction when Kafka answers a message with an error
            # such as 45 or 47 (bump_producer_id_and_epoch), and then commits nothing without a
            # word. So every message must be there before the commit is asked for.
            producer.flush()
            for message_sent in sent:
                message_sent.get()
            producer.commit_transaction()
            outcome.set_result(None)
        except Exception as error:
            outcome.set_exception(error)

    # kafka-python waits for ever when a broker dies at the wrong moment, even once it is back.
    threading.Thread(target=run, daemon=True).start()
    try:
        outcome.result(TRANSACTION_SECONDS)
    except TimeoutError:
        raise KafkaTimeoutError(f"no answer in {TRANSACTION_SECONDS} s") from None


def outgoing_message(topic: str, message: Message) -> dict[str, Any]:
    """A message as kafka-python sends it; the key keeps each source in order."""
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

    def close() -> None:
        try:
            producer.close(1)
        except KafkaError:  # as when Kafka is away; then close() leaves its thread behind
            producer._sender.force_close()

    closing.callback(close)
    producer.init_transactions()
    return producer
