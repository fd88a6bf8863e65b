"""What became of an image whose file is there and whose message isn't in `images`.

1. An earlier image of its source is in `images`:    lost; sent again
2. None deleted, this or an earlier one decided:     lost, as with the topic; not sent
3. None deleted, neither decided:                    from before this Kafka: not judged
4. Some deleted, this one decided:                   deleted after it was read: not judged
5. Some deleted, its decision would be there:        deleted unread; sent if an earlier one decided
6. Some deleted, its decision may be deleted, too:   nobody knows: not judged

"Deleted" is what Kafka deleted of `images`, as by retention: a partition begins above offset 0.
"Decided" is an image of which another topic says what came of it; "earlier" has a lower number of
the same source. Kafka deletes the oldest messages first, so a decision would be there if each topic
of decisions is whole or still has one about an earlier image. And an image without an earlier one
may be from before this Kafka: it is in row 5 only if all decisions are about what `images` still
has, as then nothing that was deleted had been read.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from enum import Enum

from kafka import TopicPartition
from kafka.consumer.fetcher import ConsumerRecord

from pipeline.errors import InvalidInput
from pipeline.messages import (
    ALERTS,
    DEAD_LETTERS,
    IMAGE_EVENTS,
    IMAGES,
    IMAGES_WITHOUT_EVENT,
    Alert,
    ImageEvent,
    ImageMessage,
    ImageWithoutEvent,
    ReceivedImage,
    parse,
)

BEYOND = 10**9  # greater than any image's number
# The messages that say what came of an image, or are the image's own, set aside.
DECISIONS: dict[str, type[ImageMessage]] = {
    IMAGE_EVENTS: ImageEvent,
    IMAGES_WITHOUT_EVENT: ImageWithoutEvent,
    ALERTS: Alert,
    DEAD_LETTERS: ReceivedImage,
}


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
    """What the topics say of images whose messages aren't there."""

    def __init__(
        self,
        records: Mapping[str, Sequence[ConsumerRecord]],
        beginnings: Mapping[str, Mapping[TopicPartition, int]],
        first: Mapping[str, int],
    ) -> None:
        """All records by topic, where they begin, and the number of each source's first message."""
        self._first = first
        self._shortened = {topic for topic, offsets in beginnings.items() if any(offsets.values())}
        self._decided: dict[str, set[int]] = defaultdict(set)  # by source
        self._oldest: dict[tuple[str, str], int] = {}  # by topic and source: the first decision
        for topic, kind in DECISIONS.items():
            for record in records[topic]:
                with suppress(InvalidInput):
                    message = parse(record.value, kind)
                    self._decided[message.source].add(message.number)
                    self._oldest.setdefault((topic, message.source), message.number)
        self._was_read = any(  # something that isn't in `images` any more
            min(numbers) < first.get(source, BEYOND) for source, numbers in self._decided.items()
        )

    def is_shortened(self, topic: str) -> bool:
        """Whether Kafka has deleted messages of this topic."""
        return topic in self._shortened

    def fate(self, source: str, number: int, has_event: bool) -> tuple[Fate, bool]:
        """What the table says of the image, and whether its message can be sent."""
        if number > self._first.get(source, BEYOND):
            return Fate.LOST, True
        is_ours = any(number >= self._oldest.get((topic, source), BEYOND) for topic in DECISIONS)
        if not self.is_shortened(IMAGES):
            return Fate.LOST if is_ours else Fate.BEFORE, False
        if has_event or number in self._decided[source]:
            return Fate.READ, False
        # Not `dead-letters`: what was set aside there has been compared with nothing, either.
        is_kept = not any(
            self.is_deleted(topic, source, number) for topic in (IMAGE_EVENTS, IMAGES_WITHOUT_EVENT)
        )
        if is_kept and (is_ours or not self._was_read):
            return Fate.UNREAD, is_ours
        return Fate.UNKNOWN, False

    def is_deleted(self, topic: str, source: str, number: int) -> bool:
        """Whether the image's message in this topic, which isn't there, may have been deleted."""
        return self.is_shortened(topic) and number < self._oldest.get((topic, source), BEYOND)
