"""The limit: three programs that only pass on the pipeline's messages, with its guarantees.

They read and write no file and no image, and check nothing, so the time that is left is that of
kafka-python and Kafka. Messages, batches and transactions are as in the pipeline.

    python -m benchmarks.limit receiving --count N [--interval SECONDS]
    python -m benchmarks.limit analysis
    python -m benchmarks.limit alert
"""

import argparse
import os
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec
from kafka import KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition

from pipeline.messages import Alert, ImageEvent, ReceivedImage, image_id

IMAGES, IMAGE_EVENTS, ALERTS = "limit-images", "limit-image-events", "limit-alerts"
BATCH = 500  # records at most; larger batches are no faster
SERVER = {"bootstrap_servers": os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "localhost:9092")}
SHA256 = "0" * 64


def transactional_producer(name: str) -> KafkaProducer:
    """A producer with the options that make kafka-python fastest."""
    producer = KafkaProducer(
        **SERVER,
        transactional_id=f"limit-{name}",
        compression_type="gzip",  # as the pipeline, whose messages any client can read
        retry_backoff_ms=5,  # of a transaction that waits for the end of the previous transaction
    )
    producer.init_transactions()
    return producer


def receiving(count: int, interval: float) -> None:
    """Publish the messages of images, a batch in each transaction; with an interval, one image."""
    producer = transactional_producer("receiving")
    size = 1 if interval else BATCH
    began = time.monotonic()
    for first in range(0, count, size):
        time.sleep(max(0, began + first * interval - time.monotonic()))
        producer.begin_transaction()
        for number in range(first, min(first + size, count)):
            image = ReceivedImage(
                image_id=f"{number:05d}",
                source="",
                number=number,
                path=f"image_database/{number:05d}.jpg",
                size=30000,
                sha256=SHA256,
                received=datetime.now(UTC),
            )
            producer.send(IMAGES, msgspec.json.encode(image), key=b"")
        marker = {TopicPartition(IMAGES, 0): OffsetAndMetadata(0, SHA256, -1)}
        producer.send_offsets_to_transaction(marker, "limit-receiving")
        producer.commit_transaction()


def pass_on(name: str, consumes: str, publishes: str) -> None:
    """Consume batches; publish what each causes in a transaction with its offsets."""
    producer = transactional_producer(name)
    consumer = KafkaConsumer(
        consumes,
        **SERVER,
        group_id=f"limit-{name}",
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    while True:
        polled = consumer.poll(timeout_ms=500, max_records=BATCH)
        if not polled:
            continue
        producer.begin_transaction()
        offsets = {}
        for partition, records in polled.items():
            offsets[partition] = OffsetAndMetadata(records[-1].offset + 1, "", -1)
            for value in caused(consumes, records):
                producer.send(publishes, value, key=b"", headers=[("cause", bytes(32))])
        producer.send_offsets_to_transaction(offsets, consumer.group_metadata())
        producer.commit_transaction()


def caused(topic: str, records: Iterable[Any]) -> Iterable[bytes]:
    """The event of every fourth image, or the alert of each event."""
    for record in records:
        if topic == IMAGE_EVENTS:
            event = msgspec.json.decode(record.value, type=ImageEvent)
            yield msgspec.json.encode(alert_of(event))
            continue
        image = msgspec.json.decode(record.value, type=ReceivedImage)
        if image.number % 4 == 3:
            yield msgspec.json.encode(event_of(image))


def event_of(image: ReceivedImage) -> ImageEvent:
    """A message of the length that an image event has."""
    return ImageEvent(
        event_id=image.image_id,
        image_id=image.image_id,
        previous_image_id=image_id(image.source, image.number - 1),
        path=f"image_event_database/image_event_{image.image_id}.txt",
        sha256=SHA256,
        difference_path=f"image_event_database/image_event_{image.image_id}.jpg",
        difference_sha256=SHA256,
        l2_norm=27786.123456789,
        rms=45.8123456789,
        changed_share=0.9991234,
        box=(0, 0, 350, 350),
        received=image.received,
    )


def alert_of(event: ImageEvent) -> Alert:
    """A message of the length that an alert has."""
    return Alert(
        event_id=event.event_id,
        image_id=event.image_id,
        path=f"image_event_alerts/image_event_alert_{event.event_id}.txt",
        sha256=SHA256,
        previous_image_id=event.previous_image_id,
        received=event.received,
    )


def main() -> None:
    """Run the program that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.limit", description=__doc__)
    parser.add_argument("program", choices=["receiving", "analysis", "alert"])
    parser.add_argument("--count", type=int, default=11)
    parser.add_argument("--interval", type=float, default=0)
    options = parser.parse_args()
    if options.program == "receiving":
        receiving(options.count, options.interval)
    elif options.program == "analysis":
        pass_on("analysis", IMAGES, IMAGE_EVENTS)
    else:
        pass_on("alert", IMAGE_EVENTS, ALERTS)


if __name__ == "__main__":
    main()
