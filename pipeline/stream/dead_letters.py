"""Dead letters: records that could not be used, byte for byte, with the reason in headers."""

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from kafka.consumer.fetcher import ConsumerRecord

from pipeline.errors import InvalidInput
from pipeline.messages import DEAD_LETTERS, NOTIFICATIONS, ReceivedImage, moment, parse
from pipeline.stages import CONSUMING_STAGES, IMAGE_RECEIVING
from pipeline.stream.kafka_python import writable
from pipeline.stream.positions import RecordPosition
from pipeline.terminal import printable

SENT_BACK = "dead-letter"  # header of a record that was sent back: which dead letter it was
REPAIRED = "repaired"  # header of an image's message that the audit has sent
SENT_AGAIN = {SENT_BACK, REPAIRED}  # headers of messages that come behind later ones
# The topics whose records may become dead letters.
CONSUMED = {NOTIFICATIONS, *(stage.consumes for stage in CONSUMING_STAGES)}
LARGEST = 2**21 - 2**16  # bytes of a record that the topic of dead letters has room for
ABOUT = "__connect.errors."  # beginning of our headers' names, as in Kafka Connect


def dead_letter(
    record: ConsumerRecord, stage: str, reason: InvalidInput
) -> tuple[dict[str, Any], str]:
    """The record as a dead letter of the stage, and the reason, so that it can be printed."""
    key, value, headers = writable(record)
    parts = [key, key, value, *(part for header in headers for part in header)]
    size = sum(map(len, filter(None, parts)))  # the key counts twice: a header has it, too
    if size > LARGEST:
        reason = InvalidInput(f"it takes {size} bytes, too many to keep, and is left where it is")
        headers, key, value = [], None, b""
    origin = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
    headers += _headers(stage, reason, origin)
    if key is not None:
        headers.append((f"{ABOUT}key", key))
    letter = {"topic": DEAD_LETTERS, "key": key, "value": value, "headers": headers}
    return letter, printable(str(reason))  # which may quote the message


def dead_letter_of_file(path: str, source: str, reason: InvalidInput) -> dict[str, Any]:
    """The path of a file that `image_receiving.py` can't use, as a dead letter."""
    return {
        "topic": DEAD_LETTERS,
        "key": source.encode(),
        "value": path.encode(errors="backslashreplace"),
        "headers": _headers(IMAGE_RECEIVING.name, reason, {}),
    }


def _headers(
    stage: str, reason: InvalidInput, origin: Mapping[str, object]
) -> list[tuple[str, bytes]]:
    about = {
        **origin,
        "stage": stage,
        "exception.class.name": type(reason).__name__,
        "exception.message": printable(str(reason)),
        "time": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
    }
    return [(f"{ABOUT}{name}", str(value).encode()) for name, value in about.items()]


class DeadLetter:
    """A record of `dead-letters`, and what its headers say of where it came from."""

    def __init__(self, record: ConsumerRecord) -> None:
        self.record = record
        self.id = f"{record.partition}:{record.offset}"
        # The last header of a name is ours: a record that failed before may have an older one.
        self.origin = {
            name.removeprefix(ABOUT): printable((value or b"").decode(errors="backslashreplace"))
            for name, value in record.headers
            if name.startswith(ABOUT)
        }

    def __str__(self) -> str:
        sent = moment(self.record.timestamp / 1000)
        when = self.origin.get("time", f"{sent:%Y-%m-%dT%H:%M:%SZ}")
        if self.is_file:
            path = printable((self.record.value or b"").decode(errors="backslashreplace"))
            return f"{self.id}  {when}  {self.origin['stage']}  file {path}  {self.reason}"
        if not self.is_ours:
            return f"{self.id}  {when}  not from our stages"
        where = "{topic}[{partition}] {offset}".format(**self.origin)
        key = f"key {self.origin.get('key', '(none)')!r}"
        return f"{self.id}  {when}  {self.origin['stage']}  {where}  {key}  {self.reason}"

    @property
    def position(self) -> RecordPosition:
        """Where the record was; without a topic, or at the offset -1, if no header says so."""
        topic, *numbers = (self.origin.get(name, "") for name in ("topic", "partition", "offset"))
        partition, offset = (int(number) if number.isdecimal() else -1 for number in numbers)
        return RecordPosition(topic, partition, offset)

    @property
    def image_id(self) -> str:
        """The id of the image that its value is the message of; empty if it is no such message."""
        with suppress(InvalidInput):
            return parse(self.record.value, ReceivedImage).image_id
        return ""

    @property
    def reason(self) -> str:
        """Why it was set aside."""
        return self.origin.get("exception.message", "")

    @property
    def is_ours(self) -> bool:
        """Whether a stage of ours has set it aside, from a topic that our stages consume."""
        is_whole = {"partition", "offset", "stage"} <= self.origin.keys()
        return is_whole and self.origin.get("topic") in CONSUMED

    @property
    def is_file(self) -> bool:
        """Whether its value is the path of a file that `image_receiving.py` could not use."""
        return self.origin.get("stage") == IMAGE_RECEIVING.name and "topic" not in self.origin

    def outgoing(self) -> dict[str, Any]:
        """The original record as a producer sends it, marked as sent back."""
        headers = [
            (name, value)
            for name, value in self.record.headers
            if not name.startswith(ABOUT) and name != SENT_BACK
        ]
        return {
            "topic": self.origin["topic"],
            "key": self.record.key,
            "value": self.record.value,
            "headers": [*headers, (SENT_BACK, self.id.encode())],
        }
