"""Why: what was decided for an image, with the numbers that decided."""

import re
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress

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
from pipeline.settings import Parser
from pipeline.stop_signal import StopSignal
from pipeline.stream.connection import Kafka
from pipeline.stream.dead_letters import Letter
from pipeline.stream.topic_reader import TopicReader
from pipeline.terminal import say


def main(arguments: Sequence[str]) -> int:
    """Print each decision about these images, the oldest first."""
    parser = Parser(
        "Say what was decided for images: an event or none, with which numbers, or set aside.",
        "python -m pipeline why",
    )
    parser.add_argument("ids", nargs="+", metavar="IMAGE_ID", help="as in 00003 or cam1-00003")
    options = parser.parse_args(arguments)
    for name in options.ids:
        if not re.fullmatch(IMAGE_ID, name):
            parser.error(f"{name!r} is no image id, as 00003 and cam1-00003 are")
    kafka = Kafka(parser.settings(options), StopSignal(status=1))
    with kafka.connect(TopicReader) as topics:
        decisions = decisions_about(set(options.ids), topics)
    for name in dict.fromkeys(options.ids):
        for _, line in sorted(decisions.get(name, [])):
            say(f"{name}  {line}")
        if name not in decisions:
            say(f"{name}  nothing was decided yet, or Kafka has deleted what was")
    return 1 if set(options.ids) - decisions.keys() else 0


def decisions_about(names: set[str], topics: TopicReader) -> dict[str, list[tuple[int, str]]]:
    """What the topics say of these images: when, in Kafka's milliseconds, and a line for people."""
    found: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for topic in (IMAGE_EVENTS, IMAGES_WITHOUT_EVENT, DEAD_LETTERS):
        for record in topics.read(topics.beginning_offsets(topic), topics.end_offsets(topic)):
            name = _image_of(record)
            if name in names:
                with suppress(InvalidInput):
                    when = f"{moment(record.timestamp / 1000):%Y-%m-%d %H:%M:%S}"
                    found[name].append((record.timestamp, f"{when}  {_decision(record)}"))
    return found


def _image_of(record: ConsumerRecord) -> str:
    """The id in a message of whatever kind, usable or not."""
    with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        value = msgspec.json.decode(record.value or b"")
        if isinstance(value, dict):
            return str(value.get("image_id"))
    return ""


def _decision(record: ConsumerRecord) -> str:
    """The line about an image. Raises `Unusable` of what isn't from our stages."""
    if record.topic == DEAD_LETTERS:
        letter = Letter(record)
        return f"set aside by {letter.about.get('stage', 'nobody knows whom')}: {letter.reason}"
    decided: ImageEvent | ImageWithoutEvent
    if record.topic == IMAGE_EVENTS:
        decided = parse(record.value, ImageEvent)
        words = ["event"]
    else:
        decided = parse(record.value, ImageWithoutEvent)
        words = [f"no event: {decided.reason}"]
    if decided.previous_image_id:
        words.append(f"compared with {decided.previous_image_id}")
    if decided.block_difference is not None:
        words.append(f"largest block difference {decided.block_difference:.6g}")
    if isinstance(decided, ImageEvent) and decided.rms is not None:
        words.append(f"RMS difference {decided.rms:.6g}")
    if isinstance(decided, ImageEvent) and decided.changed_share is not None:
        words.append(f"{100 * decided.changed_share:.3g} % of the pixels changed")
    words.append(
        f"threshold {decided.threshold:.10g}" if decided.threshold else "any difference counts"
    )
    if decided.mask_sha256:
        words.append(f"mask {decided.mask_sha256}")
    return ", ".join(words)
