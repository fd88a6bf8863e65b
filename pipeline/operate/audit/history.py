"""What can still be known of an image whose file exists and whose message isn't in `images`.

1. A message of an earlier image of its source exists:  lost; can be sent again
2. None deleted; this or an earlier one was decided:     lost, as with the whole topic; not sent
3. None deleted; neither was decided:                    from before this Kafka; not judged
4. Some deleted; this one was decided:                   deleted after it was read; not judged
5. Some deleted; its decision would still exist:         deleted before it was read; can be sent
6. Some deleted; its decision may be deleted as well:    unknown; not judged

"Deleted" is what Kafka deleted from `images`, as by retention: a partition begins above offset 0.
"Decided" is an image if a message in another topic says what came of it; "earlier" are lower
numbers of the same source. Kafka deletes the oldest messages first. So a decision would still exist
if each topic of decisions is complete, or still has one about an earlier image. An image without an
earlier one may be from before this Kafka: it is in row 5 only if all decisions are about images
whose messages still exist, as nothing that was deleted had been read then. Should it be from before
this Kafka all the same, it does no harm to send it again: an image that was an event has its files
and is in row 4, and any other is compared again, with the same outcome.
"""

from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from enum import Enum

from pipeline.errors import InvalidInput
from pipeline.messages import (
    ALERTS,
    DEAD_LETTERS,
    IMAGE_EVENTS,
    IMAGES,
    IMAGES_WITHOUT_EVENT,
    MESSAGE_TYPES,
    ReceivedImage,
    parse,
)
from pipeline.operate.audit.snapshot import Snapshot

NO_NUMBER = 10**9  # greater than any image's number
# The messages that say what came of an image, or that are its own message, set aside.
DECISIONS = {
    **{topic: MESSAGE_TYPES[topic] for topic in (IMAGE_EVENTS, IMAGES_WITHOUT_EVENT, ALERTS)},
    DEAD_LETTERS: ReceivedImage,
}


class Verdict(Enum):
    """What became of an image's message; the value says so of several images, for people."""

    LOST = "lost"
    DELETED_UNREAD = "expired"
    BEFORE_THIS_KAFKA = (
        "from before the first message of their source in this Kafka; had their messages been lost "
        "since then, nothing would tell"
    )
    DELETED_AFTER_READING = "whose messages Kafka deleted (retention), after they were decided"
    UNKNOWN = (
        "whose messages Kafka deleted (retention); whether they had been read can't be known any "
        "more, since decisions were deleted, too, or they are from before this Kafka"
    )


class History:
    """What the topics say of images whose messages don't exist any more."""

    def __init__(self, snapshot: Snapshot, first_numbers: Mapping[str, int]) -> None:
        """`first_numbers` has the number of the first message of each source."""
        self._first_numbers = first_numbers
        self._shortened = {
            topic for topic, offsets in snapshot.beginnings.items() if any(offsets.values())
        }
        self._decided: dict[str, set[int]] = defaultdict(set)  # by source
        self._first_decided: dict[tuple[str, str], int] = {}  # by topic and source
        for topic, kind in DECISIONS.items():
            for record in snapshot.records[topic]:
                with suppress(InvalidInput):
                    message = parse(record.value, kind)
                    self._decided[message.source].add(message.number)
                    self._first_decided.setdefault((topic, message.source), message.number)
        # Whether a message was read that isn't in `images` any more.
        self._was_read = any(
            min(numbers) < self.first_number(source) for source, numbers in self._decided.items()
        )

    def first_number(self, source: str, default: int = NO_NUMBER) -> int:
        """The number of the source's first message."""
        return self._first_numbers.get(source, default)

    def is_before(self, source: str, number: int) -> bool:
        """Whether the image is older than its source's first message, and so can't be judged."""
        default = NO_NUMBER if IMAGES in self._shortened else 0
        return number < self.first_number(source, default)

    def judge(self, source: str, number: int, has_event: bool) -> tuple[Verdict, bool]:
        """What the table above says of the image, and whether its message can be sent again."""
        if number > self.first_number(source):
            return Verdict.LOST, True
        is_from_this_kafka = any(
            number >= self._first_decided.get((topic, source), NO_NUMBER) for topic in DECISIONS
        )
        if IMAGES not in self._shortened:
            return Verdict.LOST if is_from_this_kafka else Verdict.BEFORE_THIS_KAFKA, False
        if has_event or number in self._decided[source]:
            return Verdict.DELETED_AFTER_READING, False
        # An image in `dead-letters` could not be read, and so no image was compared with it.
        has_decisions = not any(
            self.is_deleted(topic, source, number) for topic in (IMAGE_EVENTS, IMAGES_WITHOUT_EVENT)
        )
        if has_decisions and (is_from_this_kafka or not self._was_read):
            return Verdict.DELETED_UNREAD, True
        return Verdict.UNKNOWN, False

    def is_deleted(self, topic: str, source: str, number: int) -> bool:
        """Whether Kafka may have deleted the image's message from this topic."""
        is_before_first = number < self._first_decided.get((topic, source), NO_NUMBER)
        return topic in self._shortened and is_before_first
