"""Audit: prove that images, image events, alerts and their messages agree, and mend what can be.

What must be there is worked out anew: the messages in `images` say which images there are, and the
stages' own functions say what comes of them, by the threshold and mask that an event, or a line in
`images-without-event`, says it was decided by. It is safe beside running stages: what they haven't
taken yet is waiting, not lost.
"""

import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import Any

import msgspec
from kafka import KafkaProducer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import KafkaError

from pipeline.alerts import alert_of
from pipeline.comparison.rule import Rule
from pipeline.errors import FatalError, InvalidInput
from pipeline.image_events import NewEvent, decide
from pipeline.messages import (
    ALERTS,
    DEAD_LETTERS,
    IMAGE_EVENTS,
    IMAGE_ID,
    IMAGES,
    IMAGES_WITHOUT_EVENT,
    MESSAGE_TYPES,
    Alert,
    ImageEvent,
    ImageMessage,
    ImageWithoutEvent,
    Message,
    ReceivedImage,
    dump,
    image_id,
    moment,
    parse,
    parts_of,
)
from pipeline.operate.earlier import BEYOND, Earlier, Fate
from pipeline.options import add_rule, read_rule
from pipeline.pictures.previous_images import read_stored_image
from pipeline.settings import Parser, Settings
from pipeline.stages import IMAGE_ANALYSIS, IMAGE_EVENT_ALERT
from pipeline.stop_signal import StopSignal
from pipeline.store.database import Database
from pipeline.store.instance_lock import InstanceLock
from pipeline.store.names import (
    IMAGE,
    IMAGE_DATABASE,
    IMAGE_EVENT_ALERTS,
    IMAGE_EVENT_DATABASE,
    digest,
)
from pipeline.store.numbering import find_image, numbers_before
from pipeline.stream.connection import Kafka
from pipeline.stream.create_topics import TOPICS
from pipeline.stream.dead_letters import SENT_BACK
from pipeline.stream.deduplication import CAUSE, cause
from pipeline.stream.expired import WHAT_TO_DO, deleted_unread
from pipeline.stream.groups import committed_offsets
from pipeline.stream.hanging import all_hanging, mend, said
from pipeline.stream.positions import origin_of, position_of
from pipeline.stream.topic_reader import TopicReader
from pipeline.stream.transactions import (
    outgoing_message,
    transact,
    transactional_producer,
    unchecked_producer,
)
from pipeline.terminal import one_line, say

DIRECTORIES = (IMAGE_DATABASE, IMAGE_EVENT_DATABASE, IMAGE_EVENT_ALERTS)
EVENT_FILE = re.compile(rf"{IMAGE_EVENT_DATABASE}/image_event_({IMAGE_ID})\.(txt|jpg)")
ALERT_FILE = re.compile(rf"{IMAGE_EVENT_ALERTS}/image_event_alert_({IMAGE_ID})\.txt")
REPAIRED = "repaired"  # header of an image's message that audit has sent, behind later ones


@dataclass
class Item:
    """An image of the current count, and its message: the first, and the same again."""

    message: ReceivedImage
    records: list[ConsumerRecord]
    is_whole: bool = True  # its file is what the message says


class Audit:
    """What there is, what must be, and what was found to be wrong."""

    def __init__(
        self, settings: Settings, kafka: Kafka, topics: TopicReader, rule: Rule, repair: bool
    ) -> None:
        names = ("images", "true changes", "events", "alerts", "set aside", "waiting", "repeats")
        self.counts = dict.fromkeys((*names, "other masks", "not judged"), 0)
        kinds = ("lost", "expired", "twice", "wrong")
        self.faults: dict[str, list[str]] = {kind: [] for kind in kinds}
        self.mended: list[str] = []
        self.outgoing: list[dict[str, Any]] = []
        self._rule = rule  # of what nothing says how it was decided
        self._repair = repair
        copy = InstanceLock("audit", settings) if repair else None
        self._databases = [Database(settings.data, name, copy) for name in DIRECTORIES]
        self._images, self._events, self._alerts = self._databases
        # In this order, so that a file that is listed has its message in the topics or an outbox,
        # and that what was taken by then has its effects in the topics.
        self._listed = dict.fromkeys(
            f"{name}/{file}"
            for name, database in zip(DIRECTORIES, self._databases, strict=True)
            for file in database.names()
            if file != ".gitkeep"
        )
        self._in_outbox = {message.path for message in self._outbox()}
        self._taken: dict[str, dict[TopicPartition, int]] = {
            IMAGES: committed_offsets(kafka, IMAGE_ANALYSIS.name),
            IMAGE_EVENTS: committed_offsets(kafka, IMAGE_EVENT_ALERT.name),
        }
        self._beginnings = beginnings = {topic: topics.beginning_offsets(topic) for topic in TOPICS}
        # What is caused before what causes it, which goes on meanwhile.
        self._records = {
            topic: list(topics.read(beginnings[topic], topics.end_offsets(topic)))
            for topic in (ALERTS, IMAGE_EVENTS, IMAGES_WITHOUT_EVENT, IMAGES, DEAD_LETTERS)
        }
        self._set_aside = {origin_of(record) for record in self._records[DEAD_LETTERS]}
        self._oldest: dict[str, int] = {}  # by source: the first number that came to `images`
        self._earlier: Earlier
        self._known: set[str] = set()  # paths that have a reason to be there
        self._lost: set[bytes] = set()  # causes of alerts whose events are lost

    def run(self) -> None:
        """Look at everything."""
        if not self._listed and self._records[IMAGES]:
            say("the directories are empty: the topics are from before a reset")
            return
        count = self._current_count()
        for source, items in count.items():
            in_order = [number for number, one in items.items() if not _is_behind(one.records[0])]
            self._oldest[source] = min(in_order, default=BEYOND)
        self._earlier = Earlier(self._records, self._beginnings, self._oldest)
        self._check_images(count)
        events = [one for items in count.values() for one in self._check_events(items)]
        self._check_alerts(events)
        self._check_alerts_of_deleted_events()
        self._check_reasons()
        self._check_files()
        if self.counts["other masks"]:
            say("other masks: images decided by a mask that isn't --mask's are not judged")

    def _outbox(self) -> Iterator[ReceivedImage]:
        """What `image_receiving.py` has in hand."""
        for name in self._images.names(".image_receiving"):
            with suppress(InvalidInput, msgspec.MsgspecError):
                content = self._images.read(f"{IMAGE_DATABASE}/{name}")
                yield from msgspec.json.decode(content, type=list[ReceivedImage])

    def _current_count(self) -> dict[str, dict[int, Item]]:
        """The images since each source was counted from anew, as after a reset."""
        count: dict[str, dict[int, Item]] = defaultdict(dict)
        seen: dict[bytes, Item] = {}
        for record in self._records[IMAGES]:
            try:
                message = parse(record.value, ReceivedImage)
            except InvalidInput:
                self._must_be_set_aside(record)
                continue
            if record.value in seen:
                seen[record.value].records.append(record)
                self.counts["repeats"] += 1
                continue
            items = count[message.source]
            if not _is_behind(record):
                for number in [one for one in items if one >= message.number]:
                    del items[number]
            items[message.number] = seen[record.value] = Item(message, [record])
        return count

    def _check_images(self, count: dict[str, dict[int, Item]]) -> None:
        """Each image's file, and each file's image."""
        paths: dict[str | None, str] = {}  # by SHA-256: a file that has it
        damaged: list[tuple[Item, InvalidInput]] = []
        for items in count.values():
            for item in items.values():
                self.counts["images"] += 1
                self._known.add(item.message.path)
                try:
                    content = self._images.read(item.message.path, item.message.sha256)
                    paths[digest(content)] = item.message.path
                except InvalidInput as reason:
                    item.is_whole = False
                    if self._state(item.records) != "set aside":
                        damaged.append((item, reason))
        for item, why in damaged:
            twin = paths.get(item.message.sha256)
            self._fault("lost", str(why), self._copying(twin, item) if twin else None)
        self._check_images_without_message()

    def _check_images_without_message(self) -> None:
        """Files of images that aren't in `images`: lost, deleted by Kafka, or older than it."""
        found = []
        for path in self._listed:
            directory, _, name = path.partition("/")
            match = IMAGE.fullmatch(name)
            if match and directory == IMAGE_DATABASE:
                source, number = parts_of(match[1])
                self._oldest.setdefault(source, BEYOND)
                if path in self._in_outbox and path not in self._known:
                    self.counts["waiting"] += 1
                elif path not in self._known:
                    found.append((source, number, path))
                self._known.add(path)
        not_judged: dict[Fate, list[str]] = defaultdict(list)
        for source, number, path in sorted(found):
            has_event = _event_path(image_id(source, number)) in self._listed
            fate, is_sure = self._earlier.fate(source, number, has_event)
            # What may be from before this Kafka isn't sent: it would be told to people again.
            mend = self._sending_image(path, source, number) if is_sure else None
            why_not = (
                "" if is_sure else "; not sent: it may have been read, or come before this Kafka"
            )
            if fate == Fate.LOST:
                self._fault("lost", f"{IMAGES}: no message of {path}{why_not}", mend)
            elif fate == Fate.UNREAD:
                what = f"{IMAGES}: Kafka deleted the message of {path} before it was read{why_not}"
                self._fault("expired", what, mend)
            else:
                not_judged[fate].append(path)
        for fate, paths in not_judged.items():
            self.counts["not judged"] += len(paths)
            is_empty = "the topics are empty: " if not any(self._records.values()) else ""
            names = " to ".join(dict.fromkeys((paths[0], paths[-1])))
            say(f"not judged: {is_empty}{len(paths)} images, {names}, {fate.value}")
        if Fate.UNKNOWN in not_judged:
            self._check_offsets()

    def _check_offsets(self) -> None:
        """Name what the analysis will never read, where nothing says which images it was."""
        for partition, offset in self._taken[IMAGES].items():
            beginning = self._beginnings[IMAGES].get(partition, 0)
            line = deleted_unread(partition, offset, beginning, IMAGE_ANALYSIS.name)
            if line:
                what = line.removesuffix(f"; {WHAT_TO_DO}")
                self._fault("expired", f"{what}; nothing says of which images")

    def _check_events(self, items: dict[int, Item]) -> Iterator[tuple[ImageEvent, ConsumerRecord]]:
        """Each true change's event, in the order of a source; the events that there are."""
        published = self._by_cause(IMAGE_EVENTS)
        decided = self._by_cause(IMAGES_WITHOUT_EVENT)
        before: Item | None = None
        for number, item in sorted(items.items()):
            state = self._state(item.records)
            if state != "taken":
                self.counts[state] += 1
                self._known |= {
                    _event_path(item.message.image_id, kind)
                    for kind in ("txt", "jpg")
                    if state == "waiting"
                }
                before = before if state == "set aside" else item
                continue
            records = published.get(cause(item.records[0]), [])
            event = parse(records[0].value, ImageEvent) if records else None
            without = [
                parse(one.value, ImageWithoutEvent)
                for one in decided.get(cause(item.records[0]), [])[-1:]
            ]
            decision = event or next(iter(without), None)
            if before is None and self._oldest[item.message.source]:
                before = self._file_before(items, number, decision)
            changed = self._change(before, item, decision)
            before = item
            for record in records[1:]:
                self._fault("twice", f"{position_of(record)}: the event of {item.message.image_id}")
            if event and changed == ():
                self._fault("wrong", f"{position_of(records[0])}: no change explains it")
            elif event or changed:
                self.counts["true changes"] += 1
                self._check_event(item, event, *(changed or (None, {})))
            if event:
                self.counts["events"] += 1
                yield event, records[0]

    def _change(
        self, before: Item | None, item: Item, found: ImageEvent | ImageWithoutEvent | None
    ) -> tuple[ImageEvent, dict[str, bytes]] | tuple[()] | None:
        """The event that must be and its files; nothing if none must be; None if nobody knows."""
        if before is None:
            return None if self._oldest[item.message.source] else ()
        if found and found.previous_image_id != before.message.image_id:
            return None  # the one between was set aside then, and has come back since
        sums = {before.message.sha256, item.message.sha256}
        if len(sums) == 1 and None not in sums:
            return ()
        if not (before.is_whole and item.is_whole):
            return None
        return self._event(before, item, found)

    def _file_before(
        self,
        items: Mapping[int, Item],
        number: int,
        found: ImageEvent | ImageWithoutEvent | None,
    ) -> Item | None:
        """What the first image of `images` was compared with, if its file is there.

        No message says what the file was then. So a recorded decision that there was no change
        stands, and only an event, or a missing decision, is judged by it.
        """
        if isinstance(found, ImageWithoutEvent):
            return None
        source = items[number].message.source
        numbers = numbers_before(self._images, source, number)
        for one in [parts_of(found.previous_image_id)[1]] if found else numbers:
            name = image_id(source, one)
            message = ReceivedImage(
                image_id=name, source=source, number=one, path=find_image(self._images, name)
            )
            before = items.get(one) or Item(message, [])
            with suppress(InvalidInput):
                read_stored_image(self._images, before.message)
                return before
        return None

    def _event(
        self, before: Item, item: Item, found: ImageEvent | ImageWithoutEvent | None
    ) -> tuple[ImageEvent, dict[str, bytes]] | tuple[()] | None:
        """As `_change`, of two images that are there."""
        rule = self._rule
        if found:
            if found.mask_sha256 not in (None, rule.mask_sha256):
                self.counts["other masks"] += 1
                return None
            mask = rule.mask if found.mask_sha256 else None
            rule = Rule(found.threshold, mask, found.mask_sha256)
        try:
            previous, image = (
                read_stored_image(self._images, one.message) for one in (before, item)
            )
        except InvalidInput as reason:
            self._fault("wrong", f"{reason}, and was not set aside")
            return None
        when = item.message.received or moment(item.records[0].timestamp / 1000)
        decision = decide(previous, image, rule, when)
        return (decision.message, decision.files) if isinstance(decision, NewEvent) else ()

    def _check_event(
        self,
        item: Item,
        found: ImageEvent | None,
        expected: ImageEvent | None,
        files: Mapping[str, bytes],
    ) -> None:
        """A true change's message and files: as found, and as expected where that is known."""
        if expected and not found:
            alert_path = _alert_path(expected.event_id)
            mend = self._sending(IMAGE_EVENTS, expected, item.records[0])
            if not self._earlier.is_deleted(IMAGE_EVENTS, expected.source, expected.number):
                what = f"{IMAGE_EVENTS}: no message of the change at {expected.image_id}"
                self._fault("lost", what, mend)
            elif alert_path not in self._listed:
                what = (
                    f"{IMAGE_EVENTS}: Kafka deleted the event {expected.event_id} before its alert"
                )
                self._fault("expired", what, mend)
            # Its alert may be there all the same.
            self._lost.add(sha256(dump(expected)).digest())
            self._known.add(alert_path)
        event = found or expected
        if event:
            for path, sum_then in (
                (event.path, event.sha256),
                (event.difference_path, event.difference_sha256),
            ):
                if path:
                    self._known.add(path)
                    self._check_file(self._events, path, sum_then, files.get(path))

    def _check_alerts(self, events: list[tuple[ImageEvent, ConsumerRecord]]) -> None:
        """Each event's alert."""
        published = self._by_cause(ALERTS)
        for event, record in events:
            state = self._state([record])
            path = _alert_path(event.event_id)
            if state != "taken":
                self.counts[state] += 1
                self._known |= {path} if state == "waiting" else set()
                continue
            self._known.add(path)
            records = published.get(cause(record), [])
            self.counts["alerts"] += bool(records)
            for one in records[1:]:
                self._fault("twice", f"{position_of(one)}: the alert of {event.event_id}")
            alert, content = None, None
            with suppress(InvalidInput):  # for which the event's files are blamed
                alert, content = alert_of(event, self._events)
            if not records:
                mend = self._sending(ALERTS, alert, record) if alert else None
                self._fault("lost", f"{ALERTS}: no message of the event {event.event_id}", mend)
            found = parse(records[0].value, Alert) if records else alert
            if found:
                self._check_file(self._alerts, path, found.sha256, content)

    def _check_alerts_of_deleted_events(self) -> None:
        """Events whose messages Kafka deleted before their alerts were made."""
        answered = set()  # images whose event has an alert, or was set aside
        kinds: dict[str, type[ImageMessage]] = {ALERTS: Alert, DEAD_LETTERS: ImageEvent}
        for topic, kind in kinds.items():
            for record in self._records[topic]:
                with suppress(InvalidInput):
                    answered.add(parse(record.value, kind).image_id)
        described = {found[1] for found in map(EVENT_FILE.fullmatch, self._listed) if found}
        answered |= {found[1] for found in map(ALERT_FILE.fullmatch, self._listed) if found}
        # Without an alert of an earlier event nothing tells: somebody may delete the old ones.
        first = dict(sorted(map(parts_of, answered), reverse=True))  # by source, the lowest number
        for name in sorted(described - answered):
            source, number = parts_of(name)
            is_between = first.get(source, BEYOND) < number < self._oldest.get(source, BEYOND)
            if is_between and self._earlier.is_deleted(IMAGE_EVENTS, source, number):
                what = f"{IMAGE_EVENTS}: Kafka deleted the event {name} before its alert"
                self._fault("expired", what)

    def _check_reasons(self) -> None:
        """Messages that nothing has caused."""
        for topic, earlier in ((IMAGE_EVENTS, IMAGES), (ALERTS, IMAGE_EVENTS)):
            causes = {cause(record) for record in self._records[earlier]} | self._lost
            oldest = min((one.timestamp for one in self._records[earlier]), default=0)
            for record in self._records[topic]:
                if causes.isdisjoint(_causes(record)) and record.timestamp >= oldest:
                    try:
                        kind: type[ImageMessage] = ImageEvent if topic == IMAGE_EVENTS else Alert
                        message = parse(record.value, kind)
                    except InvalidInput:
                        if topic == IMAGE_EVENTS:
                            self._must_be_set_aside(record)
                    else:
                        is_before = self._is_before(message.source, message.number)
                        if not is_before and position_of(record) not in self._set_aside:
                            self._fault("wrong", f"{position_of(record)}: nothing explains it")

    def _check_files(self) -> None:
        """Files that have no reason to be there."""
        for path in self._listed:
            event = EVENT_FILE.fullmatch(path) or ALERT_FILE.fullmatch(path)
            if event and self._is_before(*parts_of(event[1])):
                continue
            is_outbox = path.startswith(f"{IMAGE_DATABASE}/.image_receiving")
            is_being_written = path.endswith(".part") and self._images.age(path) < 60
            is_explained = path in self._known or is_outbox or is_being_written
            if not is_explained and self._images.has(path):
                self._fault("wrong", f"{path}: nothing explains it; delete it if you don't")

    def _check_file(
        self, database: Database, path: str, sum_then: str | None, content: bytes | None
    ) -> None:
        """A file of ours, which can be made again if its content is what it was."""
        try:
            database.read(path, sum_then)
        except InvalidInput as reason:
            mend = None
            if content is not None and sum_then in (None, digest(content)):
                mend = partial(_put, database, path, content)
            self._fault("lost", str(reason), mend)

    def _is_before(self, source: str, number: int) -> bool:
        """Whether this is older than the source's first message: nobody can judge about it."""
        unknown = BEYOND if self._earlier.is_shortened(IMAGES) else 0
        return number < self._oldest.get(source, unknown)

    def _must_be_set_aside(self, record: ConsumerRecord) -> None:
        if self._state([record]) == "taken":
            self._fault("lost", f"{position_of(record)}: neither used nor set aside")

    def _state(self, records: Sequence[ConsumerRecord]) -> str:
        """What has become of a message that came so often: taken, set aside or waiting."""
        states = set()
        for record in records:
            next_offset = self._taken[record.topic].get(_partition(record), 0)
            is_aside = position_of(record) in self._set_aside
            states.add(
                "waiting" if record.offset >= next_offset else "set aside" if is_aside else "taken"
            )
        return next(one for one in ("taken", "waiting", "set aside") if one in states)

    def _by_cause(self, topic: str) -> dict[bytes, list[ConsumerRecord]]:
        found = defaultdict(list)
        for record in self._records[topic]:
            with suppress(InvalidInput):
                parse(record.value, MESSAGE_TYPES[topic])
                for one in _causes(record):
                    found[one].append(record)
        return found

    def _fault(self, kind: str, what: str, mend: Callable[[], None] | None = None) -> None:
        if self._repair and mend:
            mend()
            self.mended.append(what)
        else:
            self.faults[kind].append(what)

    def _sending(
        self, topic: str, message: Message, caused_by: ConsumerRecord
    ) -> Callable[[], None]:
        headers = [(CAUSE, cause(caused_by))]
        outgoing = {**outgoing_message(topic, message), "headers": headers}
        return lambda: self.outgoing.append(outgoing)

    def _sending_image(self, path: str, source: str, number: int) -> Callable[[], None] | None:
        try:
            content = self._images.read(path)
        except InvalidInput:
            return None
        message = ReceivedImage(
            image_id=image_id(source, number),
            source=source,
            number=number,
            path=path,
            size=len(content),
            sha256=digest(content),
            received=moment(time.time() - self._images.age(path)),
        )
        outgoing = {**outgoing_message(IMAGES, message), "headers": [(REPAIRED, b"")]}
        return lambda: self.outgoing.append(outgoing)

    def _copying(self, twin: str, item: Item) -> Callable[[], None]:
        def copy() -> None:
            content = self._images.read(twin, item.message.sha256)
            _put(self._images, item.message.path, content)
            item.is_whole = True

        return copy


def _event_path(name: str, kind: str = "txt") -> str:
    return f"{IMAGE_EVENT_DATABASE}/image_event_{name}.{kind}"


def _alert_path(name: str) -> str:
    return f"{IMAGE_EVENT_ALERTS}/image_event_alert_{name}.txt"


def _is_behind(record: ConsumerRecord) -> bool:
    """Whether an image's message was sent again, behind those of later images."""
    return any(name in (REPAIRED, SENT_BACK) for name, _ in record.headers)


def _put(database: Database, path: str, content: bytes) -> None:
    database.write(path, content)
    database.sync()


def _partition(record: ConsumerRecord) -> TopicPartition:
    return TopicPartition(record.topic, record.partition)


def _causes(record: ConsumerRecord) -> set[bytes]:
    return {value for name, value in record.headers if name == CAUSE}


def _mend_transactions(kafka: Kafka, repair: bool) -> Iterator[str]:
    """End the transactions whose end Kafka has lost; without `repair`, the audit ends there."""
    with kafka.admin() as admin, ExitStack() as closing:
        found = all_hanging(admin)
        for one in found:
            if repair:
                producer = unchecked_producer(kafka, one.transactional_id, closing)
                line = f"{said(one)}: {mend(admin, producer, one)}"
                say(f"mended  {line}")
                yield line
            else:
                say(f"lost    {said(one)}")
        if found and not repair:
            raise FatalError("audit: what comes after these can't be read; end them with --repair")


def main(arguments: Sequence[str]) -> None:
    """Audit, and end with 0 if all agrees."""
    parser = Parser(
        "Prove that images, image events, alerts and their messages agree; name what doesn't.",
        "python -m pipeline audit",
    )
    parser.add_argument(
        "--repair",
        action="store_true",
        help="make lost files again from the images, send lost messages, end lost transactions",
    )
    add_rule(parser)
    options = parser.parse_args(arguments)
    settings = parser.settings(options)
    rule = read_rule(parser, options)
    kafka = Kafka(settings, StopSignal(status=1))

    ends: list[str] = []  # of transactions, which were lost

    def make(kafka: Kafka, closing: ExitStack) -> tuple[TopicReader, KafkaProducer | None]:
        ends.extend(_mend_transactions(kafka, options.repair))
        # The producer first: an audit that was repairing can't send any more.
        producer = transactional_producer(kafka, "audit", closing) if options.repair else None
        return TopicReader(kafka, closing), producer

    with kafka.connect(make) as (topics, producer):
        try:
            audit = Audit(settings, kafka, topics, rule, options.repair)
            audit.run()
            if producer and audit.outgoing:
                transact(producer, audit.outgoing)
        except KafkaError as error:
            raise FatalError(f"Kafka: {one_line(error)}; nothing was sent; run it again") from error
        except OSError as error:
            raise FatalError(
                f"cannot read {error.filename}: {error.strerror}; mend that and run it again"
            ) from error
    for what in audit.mended:
        say(f"mended  {what}")
    for kind, faults in audit.faults.items():
        for what in faults:
            say(f"{kind:6}  {what}")
    rows = {**audit.counts, **{kind: len(faults) for kind, faults in audit.faults.items()}}
    rows |= {"mended": len(audit.mended) + len(ends)} if options.repair else {}
    say("")
    for name, number in rows.items():
        say(f"  {name:14} {number}")
    if any(audit.faults.values()):
        raise FatalError("audit: not all agrees, as the lines above say")
