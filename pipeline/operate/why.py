"""Why: what was decided for an image, with the numbers that it was decided by."""

import re
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC

import msgspec
from kafka.consumer.fetcher import ConsumerRecord

from pipeline.errors import InvalidInput
from pipeline.messages import (
    DEAD_LETTERS,
    IMAGE_EVENTS,
    IMAGE_ID,
    IMAGES_WITHOUT_EVENT,
    ImageEvent,
    ImageWithoutEvent,
    moment,
    parse,
)
from pipeline.own_kafka import find_kafka
from pipeline.settings import Parser
from pipeline.stop_signal import StopSignal
from pipeline.stream.connection import Kafka
from pipeline.stream.dead_letters import DeadLetter
from pipeline.stream.topic_reader import TopicReader
from pipeline.terminal import say
from pipeline.wording import percent_of


def main(arguments: Sequence[str]) -> int:
    """Print each decision about these images, the oldest first; returns 1 if an image has none."""
    parser = Parser(
        "Say what was decided for images: an event or none, with which numbers, or set aside.",
        "python -m pipeline why",
    )
    parser.add_argument(
        "ids", nargs="+", metavar="IMAGE_ID", help="which images, as in 00003 or cam1-00003"
    )
    options = parser.parse_args(arguments)
    for name in options.ids:
        if not re.fullmatch(IMAGE_ID, name):
            parser.error(f"{name!r} is no image id, as 00003 and cam1-00003 are")
    kafka = Kafka(find_kafka(parser.settings(options), "why"), StopSignal(status=1))
    with kafka.connect(TopicReader) as topics:
        decisions = decisions_about(set(options.ids), topics)
    for name in dict.fromkeys(options.ids):
        for _, line in sorted(decisions.get(name, [])):
            say(f"{name}  {line}")
        if name not in decisions:
            say(f"{name}  nothing was decided yet, or Kafka has deleted what was")
    return 1 if set(options.ids) - decisions.keys() else 0


def decisions_about(names: set[str], topics: TopicReader) -> dict[str, list[tuple[int, str]]]:
    """The decisions about each image: the record's timestamp, and a line for people."""
    found: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for topic in (IMAGE_EVENTS, IMAGES_WITHOUT_EVENT, DEAD_LETTERS):
        for record in topics.read_all(topic):
            name = _image_of(record)
            if name in names:
                with suppress(InvalidInput):
                    when = f"{moment(record.timestamp / 1000):%Y-%m-%d %H:%M:%S} UTC"
                    found[name].append((record.timestamp, f"{when}  {_decision(record)}"))
    return found


def _image_of(record: ConsumerRecord) -> str:
    """The image's id in a message of any kind, valid or not; empty if there is none."""
    with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        value = msgspec.json.decode(record.value or b"")
        if isinstance(value, dict):
            return str(value.get("image_id"))
    return ""


def _decision(record: ConsumerRecord) -> str:
    """The line about a record. Raises `InvalidInput` if it is no message of our stages."""
    if record.topic == DEAD_LETTERS:
        letter = DeadLetter(record)
        return f"set aside by {letter.origin.get('stage', 'nobody knows whom')}: {letter.reason}"
    decision: ImageEvent | ImageWithoutEvent
    if record.topic == IMAGE_EVENTS:
        decision = parse(record.value, ImageEvent)
        parts = ["event" if decision.kind == "changed" else f"event: {decision.kind}"]
    else:
        decision = parse(record.value, ImageWithoutEvent)
        parts = [f"no event: {decision.reason}"]
    if decision.previous_image_id:
        parts.append(f"compared with {decision.previous_image_id}")
    if decision.block_difference is not None:
        parts.append(f"largest block difference {decision.block_difference:.6g}")
    if isinstance(decision, ImageEvent) and decision.rms is not None:
        parts.append(f"RMS difference {decision.rms:.6g}")
    if isinstance(decision, ImageEvent) and decision.changed_share is not None:
        parts.append(f"{percent_of(decision.changed_share)} of the pixels changed")
    parts.append(
        f"threshold {decision.threshold:.10g}" if decision.threshold else "any difference counts"
    )
    if isinstance(decision, ImageEvent) and decision.scene_change is not None:
        parts.append(f"scene changes over {100 * decision.scene_change:.10g} %")
    if decision.mask_sha256:
        parts.append(f"mask {decision.mask_sha256}")
    if decision.received:  # after the directories were emptied, another image has the same id
        received = decision.received.astimezone(UTC)
        parts.append(f"of the image received at {received:%Y-%m-%d %H:%M:%S} UTC")
    return ", ".join(parts)
