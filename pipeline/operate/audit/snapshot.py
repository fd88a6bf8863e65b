"""What there is: the files, the messages in the topics, and how far each stage has read them."""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from enum import Enum
from operator import itemgetter

from kafka.consumer.fetcher import ConsumerRecord

from pipeline.errors import FatalError, InvalidInput
from pipeline.messages import (
    ALERTS,
    DEAD_LETTERS,
    IMAGE_EVENTS,
    IMAGES,
    IMAGES_WITHOUT_EVENT,
    MESSAGE_TYPES,
    ReceivedImage,
    moment,
    parse,
)
from pipeline.settings import Settings
from pipeline.stages import CONSUMING_STAGES, IMAGE_RECEIVING
from pipeline.store.cleaning import CLEANED, CLEANED_PATH, read_marks
from pipeline.store.database import Database
from pipeline.store.instance_lock import InstanceLock
from pipeline.store.names import IMAGE_DATABASE, IMAGE_EVENT_ALERTS, IMAGE_EVENT_DATABASE
from pipeline.stream.connection import Kafka
from pipeline.stream.create_topics import TOPICS
from pipeline.stream.dead_letters import DeadLetter
from pipeline.stream.deduplication import CAUSE
from pipeline.stream.groups import committed_offsets, is_committed
from pipeline.stream.outbox_file import read_outbox
from pipeline.stream.positions import position_of
from pipeline.stream.topic_reader import TopicReader

OUTBOX = f".{IMAGE_RECEIVING.name}"  # how the names of the outboxes in the image database begin


class State(Enum):
    """What has become of a message."""

    PROCESSED = "processed"
    WAITING = "waiting"
    SET_ASIDE = "set aside"


class Snapshot:
    """The files and messages, read in an order in which a running pipeline shows no false faults.

    The files are listed first: each then has its message in an outbox or in a topic. The committed
    offsets come next: what a stage has read by then has its effects in the topics. Of the topics,
    effects are read before their causes: otherwise a new effect would seem to have no cause.
    """

    def __init__(
        self, settings: Settings, kafka: Kafka, topics: TopicReader, lock: InstanceLock | None
    ) -> None:
        """Read everything. Files can be written only with a `lock`. Raises `KafkaError`."""
        directories = (IMAGE_DATABASE, IMAGE_EVENT_DATABASE, IMAGE_EVENT_ALERTS)
        databases = [Database(settings.data, directory, lock) for directory in directories]
        self.images, self.events, self.alerts = databases
        self.files = {
            f"{database.name}/{name}"
            for database in databases
            for name in database.names()
            if name != ".gitkeep"
        }
        self.cleaned = self._read_marks(settings)  # until when, by source
        self.in_outbox = {message.path for message in self._outbox()}
        self.committed = {
            stage.consumes: committed_offsets(kafka, stage.name) for stage in CONSUMING_STAGES
        }
        self.beginnings = {topic: topics.beginning_offsets(topic) for topic in TOPICS}
        self.records = {
            topic: by_arrival(topics.read(self.beginnings[topic], topics.end_offsets(topic)))
            for topic in (ALERTS, IMAGE_EVENTS, IMAGES_WITHOUT_EVENT, IMAGES, DEAD_LETTERS)
        }
        self.set_aside = {DeadLetter(record).position for record in self.records[DEAD_LETTERS]}

    def state(self, records: Sequence[ConsumerRecord]) -> State:
        """What has become of a message, which has several records if it was sent several times."""
        states = {self._state_of(record) for record in records}
        return next(state for state in State if state in states)

    def is_cleaned(self, message: ReceivedImage, record: ConsumerRecord) -> bool:
        """Whether the image was deleted on purpose, and not put there again since."""
        until = self.cleaned.get(message.source)
        if until is None or (message.received or moment(record.timestamp / 1000)) > until:
            return False
        stored = moment(time.time() - self.images.age(message.path))
        return message.path not in self.files or stored > until

    def by_cause(self, topic: str) -> dict[bytes, list[ConsumerRecord]]:
        """The valid records of a topic by the message that caused them."""
        found = defaultdict(list)
        for record in self.records[topic]:
            with suppress(InvalidInput):
                parse(record.value, MESSAGE_TYPES[topic])
                for cause in causes_of(record):
                    found[cause].append(record)
        return found

    def _state_of(self, record: ConsumerRecord) -> State:
        if not is_committed(record, self.committed[record.topic]):
            return State.WAITING
        return State.SET_ASIDE if position_of(record) in self.set_aside else State.PROCESSED

    def _read_marks(self, settings: Settings) -> dict[str, datetime]:
        """Until when the images of each source were deleted on purpose."""
        marks = Database(settings.data, CLEANED)
        if not marks.has(CLEANED_PATH):
            return {}
        try:
            return read_marks(marks.read(CLEANED_PATH))
        except ValueError as error:
            raise FatalError(f"{settings.data}/{CLEANED_PATH}: {error}; remove it") from error

    def _outbox(self) -> Iterator[ReceivedImage]:
        """The messages that `image_receiving.py` has still to publish."""
        for name in self.images.names(OUTBOX):
            with suppress(FatalError):  # the file is damaged
                yield from read_outbox(self.images, f"{self.images.name}/{name}").unpublished


def by_arrival(records: Iterable[ConsumerRecord]) -> list[ConsumerRecord]:
    """The records of several partitions in the order of their times.

    A source is in two partitions if some were added. Within a partition the order stays, whatever
    the times say: those of an earlier version are of the clocks of several computers.
    """
    timed = []
    latest: dict[int, int] = defaultdict(int)  # time by partition
    for record in records:
        latest[record.partition] = max(latest[record.partition], record.timestamp)
        timed.append((latest[record.partition], record))
    return [record for _, record in sorted(timed, key=itemgetter(0))]


def causes_of(record: ConsumerRecord) -> set[bytes]:
    """The SHA-256 of the message that caused this one."""
    return {value for name, value in record.headers if name == CAUSE}
