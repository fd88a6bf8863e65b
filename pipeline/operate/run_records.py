"""What went through the topics during a run: whether it is complete, and its summary."""

import statistics
from contextlib import ExitStack, suppress

from kafka import TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import CorruptRecordError

from pipeline.errors import InvalidInput
from pipeline.messages import (
    ALERTS,
    DEAD_LETTERS,
    IMAGE_EVENTS,
    IMAGES,
    Alert,
    ImageEvent,
    ReceivedImage,
    parse,
)
from pipeline.stages import CONSUMING_STAGES
from pipeline.stream.connection import Kafka
from pipeline.stream.dead_letters import DeadLetter
from pipeline.stream.groups import committed_offsets, is_committed
from pipeline.stream.kafka_python import Consumer, close_consumer
from pipeline.stream.positions import RecordPosition, position_of
from pipeline.stream.topic_reader import TopicReader


class RunRecords:
    """The records that were published since the run began, or that no stage had processed then."""

    def __init__(self, kafka: Kafka, closing: ExitStack) -> None:
        """Begin where the stages go on. Raises `KafkaError`, as all methods that ask Kafka do."""
        # In the order in which the pipeline makes them.
        self._records: dict[str, list[ConsumerRecord]] = {
            topic: [] for topic in (IMAGES, IMAGE_EVENTS, ALERTS, DEAD_LETTERS)
        }
        self._kafka = kafka
        self.topics = TopicReader(kafka, closing)
        self._consumer = Consumer(**kafka.options, isolation_level="read_committed")
        closing.callback(close_consumer, self._consumer)
        self._ends_before: dict[TopicPartition, int] = {}  # the end offsets when the run began
        start: dict[TopicPartition, int] = {}
        # Effects before causes: the stages of another run go on meanwhile, and an event whose alert
        # came before the end of the alerts was looked at would seem to have none.
        for topic in reversed(self._records):
            ends = self.topics.end_offsets(topic)
            self._ends_before |= ends
            # Of this consumer, which reads committed records: before those of open transactions.
            start |= self._consumer.end_offsets(list(ends))
            for stage in CONSUMING_STAGES:
                if stage.consumes == topic:
                    offsets = committed_offsets(kafka, stage.name)
                    unread = self.topics.beginning_offsets(topic) | offsets
                    start |= {
                        partition: min(start[partition], unread[partition]) for partition in ends
                    }
        self._consumer.assign(list(start))
        for partition, offset in start.items():
            self._consumer.seek(partition, offset)

    def read(self) -> None:
        """Read what has been published."""
        try:
            for partition, records in self._consumer.poll(timeout_ms=200).items():
                self._records[partition.topic].extend(records)
        except CorruptRecordError:
            self.topics.skip(self._consumer)

    def read_to_end(self) -> None:
        """Read until all is read that the stages have published, or the program is to stop."""
        while not self._kafka.stop and not self.is_complete():
            self.read()

    def is_complete(self) -> bool:
        """Whether the stages have processed all messages, and all that they published is read."""
        # A topic's messages are all processed before the next topic is looked at: then whatever
        # they cause has been published there.
        for topic, records in self._records.items():
            ends = self.topics.end_offsets(topic)
            if added := ends.keys() - self._consumer.assignment():  # by somebody, meanwhile
                self._consumer.assign([*self._consumer.assignment(), *added])
                self._consumer.seek_to_beginning(*added)
            if any(self._consumer.position(partition) < end for partition, end in ends.items()):
                return False
            for stage in CONSUMING_STAGES:
                if stage.consumes == topic:
                    offsets = committed_offsets(self._kafka, stage.name)
                    if not all(is_committed(record, offsets) for record in records):
                        return False
        return True

    def summary(self) -> tuple[str, bool]:
        """The table for people, and whether nothing of this run was lost or set aside."""
        images, events, alerts, dead_letters = self._records.values()
        waiting = sum(self._was_waiting(position_of(record)) for record in images)
        rows = {
            "images": f"{len(images)}" + (f" ({waiting} from a run before)" if waiting else ""),
            "image events": f"{len(events)}",
            "alerts": f"{len(alerts)}",
            "dead letters": f"{len(dead_letters)}",
        }
        arrived = {}  # when the message of each image came to Kafka
        for record in images:
            with suppress(InvalidInput):
                arrived[parse(record.value, ReceivedImage).image_id] = record.timestamp
        alerted = set()
        seconds = []  # from received to alert, both by Kafka's clock
        for record in alerts:
            with suppress(InvalidInput):
                alert = parse(record.value, Alert)
                alerted.add(alert.event_id)
                if alert.image_id in arrived:
                    seconds.append((record.timestamp - arrived[alert.image_id]) / 1000)
        if seconds:
            median, most = statistics.median(seconds), max(seconds)
            rows["received to alert"] = f"{median:.3f} s median, {most:.3f} s at most"
        letters = [DeadLetter(record) for record in dead_letters]
        set_aside = [letter.position for letter in letters]
        is_lost = any(letter.is_file for letter in letters)
        for record in events:
            with suppress(InvalidInput):  # an invalid message, which was set aside
                is_alerted = parse(record.value, ImageEvent).event_id in alerted
                is_lost |= not is_alerted and position_of(record) not in set_aside
        table = "\n".join(f"  {name:18} {value}" for name, value in rows.items())
        return table, not is_lost and all(map(self._was_waiting, set_aside))

    def _was_waiting(self, position: RecordPosition) -> bool:
        """Whether the record was published before the run began."""
        partition = TopicPartition(position.topic, position.partition)
        return position.offset < self._ends_before.get(partition, 0)
