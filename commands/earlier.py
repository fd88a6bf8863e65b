"""What became of images whose messages aren't in Kafka: the evidence, and what it can't tell.

A message is gone because Kafka was replaced by an empty one, because retention deleted it after or
before it was read, or because it was lost, as when somebody deletes the topic. Decisions in the
other topics tell these apart, and the time at which an image's file was written.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from enum import Enum
from functools import cache

from kafka import TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.partitioner.default import murmur2

from pipeline import Unusable
from pipeline.messages import (
    ALERTS,
    DEAD_LETTERS,
    IMAGE_EVENTS,
    IMAGES,
    IMAGES_WITHOUT_EVENT,
    KINDS,
    OfImage,
    parse,
)
from pipeline.repeats import SLACK
from pipeline.topics import origin

DECISIONS = (IMAGE_EVENTS, IMAGES_WITHOUT_EVENT, DEAD_LETTERS)  # one for each image that was read
NEVER, ALWAYS = float("inf"), float("-inf")


class Fate(Enum):
    """Of an image whose message is not in `images`; the value says it of several, for people."""

    LOST = "lost"
    UNREAD = "expired"
    BEFORE = (
        "from before the first message of their source in this Kafka; had their messages been lost "
        "since then, nothing would tell"
    )
    READ = "whose messages Kafka deleted (retention), after they were decided"
    UNKNOWN = (
        "whose messages Kafka deleted (retention); whether they had been read can't be known any "
        "more, since decisions were deleted, too, or they are from before this Kafka"
    )


class Earlier:
    """What Kafka says of the images from before each source's first message in `images`."""

    def __init__(
        self,
        records: Mapping[str, Sequence[ConsumerRecord]],
        beginnings: Mapping[str, Mapping[TopicPartition, int]],
        first: Mapping[str, int],
    ) -> None:
        """All records by topic, where they begin, and the number of each source's first message."""
        self._beginnings = beginnings
        self._first = first
        self._partitions: dict[tuple[str, str], set[TopicPartition]] = defaultdict(set)
        self._oldest: dict[TopicPartition, float] = {}  # time of the first record that is left
        for topic, several in records.items():
            for record in several:
                partition, when = TopicPartition(topic, record.partition), record.timestamp / 1000
                self._oldest[partition] = min(when, self._oldest.get(partition, NEVER))
                self._partitions[topic, (record.key or b"").decode(errors="replace")].add(partition)
        self._since = min(self._oldest.values(), default=NEVER)  # when this Kafka began, or later
        self._decided: dict[str, dict[int, datetime | None]] = defaultdict(dict)
        for message in _decided(records):
            self._decided[message.source][message.number] = message.received
        self._first_event: dict[str, int] = {}
        for record in records[IMAGE_EVENTS]:
            with suppress(Unusable):
                event = parse(record.value, KINDS[IMAGE_EVENTS])
                least = self._first_event.get(event.source, event.number)
                self._first_event[event.source] = min(least, event.number)
        # Partitions of `images` in which Kafka deleted messages that had been decided.
        self._read = {
            partition
            for source, numbers in self._decided.items()
            if min(numbers) < first.get(source, NEVER)
            for partition in self.partitions(IMAGES, source)
        }
        for record in records[DEAD_LETTERS]:
            topic, number, offset = origin(record)
            partition = TopicPartition(topic, number)
            if topic == IMAGES and offset < beginnings[IMAGES].get(partition, 0):
                self._read.add(partition)
        self._written: dict[str, float] = {}  # by source: when its last looked-at file was written
        self.known_from = cache(self._known_from)

    def partitions(self, topic: str, source: str) -> set[TopicPartition]:
        """Where the source's messages are: Kafka's own hash of the key says it."""
        count = len(self._beginnings[topic])
        found = self._partitions[topic, source]
        if count:
            found.add(TopicPartition(topic, _hash(source) % count))
        return found

    def deleted(self, topic: str, source: str) -> int:
        """How many offsets Kafka deleted where the source's messages are; 0: it has them all."""
        beginnings = self._beginnings[topic]
        return sum(beginnings.get(one, 0) for one in self.partitions(topic, source))

    def is_decided(self, source: str, number: int) -> bool:
        """Whether a topic says what came of this image, or of one that had its name."""
        return number in self._decided[source]

    def fate(
        self, source: str, number: int, last: int, written: Callable[[], float], has_event: bool
    ) -> Fate:
        """Of an image before the first message of its source, `last` being its last file.

        Asked for a source's images from the highest number down: the lower ones are older, so the
        time at which they were written need not be asked of an object store one by one.
        """

        def is_younger(time: float) -> bool:
            youngest = self._written.get(source, NEVER)
            if youngest > time:
                youngest = self._written[source] = min(youngest, written())
            return youngest > time

        deleted = self.deleted(IMAGES, source)
        if not deleted:
            return self._fate_in_a_whole_topic(source, number, is_younger)
        if has_event or self.is_decided(source, number):
            return Fate.READ
        if self.is_sure(source, number):
            return Fate.UNREAD
        # As many messages as offsets were deleted, at most.
        if number < self._first.get(source, last + 1) - deleted:
            return Fate.BEFORE
        all_unread = self._read.isdisjoint(self.partitions(IMAGES, source))
        is_ours = all_unread or is_younger(self._since - SLACK)
        has_all_decisions = self._complete_since(source) == ALWAYS
        return Fate.UNREAD if is_ours and has_all_decisions else Fate.UNKNOWN

    def _fate_in_a_whole_topic(
        self, source: str, number: int, is_younger: Callable[[float], bool]
    ) -> Fate:
        """As `fate`, where Kafka deleted nothing."""
        is_decided = self.is_decided(source, number)
        # More partitions than there were may have moved the source away from what was deleted.
        if is_decided and any(self._beginnings[IMAGES].values()):
            return Fate.READ
        is_ours = is_decided or number > self.known_from(source)
        return Fate.LOST if is_ours or is_younger(self._since + SLACK) else Fate.BEFORE

    def is_sure(self, source: str, number: int) -> bool:
        """Whether a decision about this image would still be there, had there been one.

        A decision is made after its image was received, and that after the images with lower
        numbers. So if one of these came when all decisions since then are kept, this one would be.
        """
        return number > self.known_from(source, self._complete_since(source))

    def is_event_deleted(self, source: str, number: int) -> bool:
        """Whether an event's message, which isn't there, may be one that Kafka deleted."""
        is_oldest = number < self._first_event.get(source, NEVER)
        return is_oldest and self.deleted(IMAGE_EVENTS, source) > 0

    def _complete_since(self, source: str) -> float:
        """The time from which on Kafka has every decision about the source's images."""
        oldest = (
            self._oldest.get(partition, NEVER)
            for topic in DECISIONS
            for partition in self.partitions(topic, source)
            if self._beginnings[topic].get(partition)
        )
        return max(oldest, default=ALWAYS)

    def _known_from(self, source: str, time: float = ALWAYS) -> float:
        """The lowest number that was decided, of an image that was received since then."""
        decided = self._decided[source].items()
        received = {number: one.timestamp() if one else ALWAYS for number, one in decided}
        return min((number for number, one in received.items() if one >= time), default=NEVER)


@cache
def _hash(source: str) -> int:
    return int(murmur2(source.encode())) & 0x7FFFFFFF


def _decided(records: Mapping[str, Sequence[ConsumerRecord]]) -> Iterator[OfImage]:
    """The messages that say what came of an image, or are the image's own, set aside."""
    for topic in (IMAGE_EVENTS, IMAGES_WITHOUT_EVENT, ALERTS):
        for record in records[topic]:
            with suppress(Unusable):
                yield parse(record.value, KINDS[topic])
    for record in records[DEAD_LETTERS]:
        if origin(record)[0] == IMAGES:
            with suppress(Unusable):
                yield parse(record.value, KINDS[IMAGES])
