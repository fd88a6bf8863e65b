"""Checks that each change has its image event, and that each image event has its change."""

from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256

from kafka.consumer.fetcher import ConsumerRecord

from pipeline.comparison.measure import Rule
from pipeline.errors import InvalidInput
from pipeline.image_events import NewEvent, decide
from pipeline.messages import (
    IMAGE_EVENTS,
    IMAGES_WITHOUT_EVENT,
    ImageEvent,
    ImageWithoutEvent,
    dump,
    moment,
    parse,
    parts_of,
)
from pipeline.operate.audit.findings import Findings
from pipeline.operate.audit.history import History
from pipeline.operate.audit.images import AuditedImage, Images
from pipeline.operate.audit.snapshot import Snapshot, State
from pipeline.pictures.previous_images import message_of_file, read_stored_image
from pipeline.store.names import alert_path, event_path
from pipeline.store.numbering import numbers_before
from pipeline.stream.deduplication import CAUSE, cause
from pipeline.stream.positions import position_of

Decision = ImageEvent | ImageWithoutEvent | None  # what the topics say was decided of an image
EventAndFiles = tuple[ImageEvent, dict[str, bytes]]  # the contents of the files by their paths


class NotJudged(Exception):
    """It can't be known whether there must be an event."""


class EventCheck:
    """Works out which image events there must be, and compares them with those there are."""

    def __init__(
        self, snapshot: Snapshot, findings: Findings, history: History, rule: Rule
    ) -> None:
        """The `rule` is for images of which no message says by which rule they were decided."""
        self._snapshot = snapshot
        self._findings = findings
        self._history = history
        self._rule = rule
        self._published = snapshot.by_cause(IMAGE_EVENTS)
        self._decided = snapshot.by_cause(IMAGES_WITHOUT_EVENT)

    def check(self, images: Images) -> list[tuple[ImageEvent, ConsumerRecord]]:
        """Check the images of all sources; returns the events that were published."""
        published = []
        for of_source in images.values():
            previous: AuditedImage | None = None
            for _, image in sorted(of_source.items()):
                state = self._snapshot.state(image.records)
                if state is State.PROCESSED:
                    published += self._check_image(image, previous, of_source)
                else:
                    self._findings.counts[state.value] += 1
                if state is State.WAITING:
                    event_id = image.message.image_id
                    self._findings.explained |= {event_path(event_id), event_path(event_id, "jpg")}
                if state is not State.SET_ASIDE:
                    previous = image
        return published

    def _check_image(
        self,
        image: AuditedImage,
        previous: AuditedImage | None,
        of_source: Mapping[int, AuditedImage],
    ) -> list[tuple[ImageEvent, ConsumerRecord]]:
        """Check an image that the analysis has processed; returns its event, if there is one."""
        records = self._published.get(cause(image.records[0]), [])
        event = parse(records[0].value, ImageEvent) if records else None
        decision: Decision = event
        if not event:
            for record in self._decided.get(cause(image.records[0]), [])[-1:]:
                decision = parse(record.value, ImageWithoutEvent)
        expected, is_judged = None, True
        try:
            if previous is None and self._history.first_number(image.message.source):
                previous = self._previous_from_file(image, of_source, decision)
            expected = self._expected(previous, image, decision)
        except NotJudged:
            is_judged = False
        for record in records[1:]:
            text = f"{position_of(record)}: the event of {image.message.image_id}"
            self._findings.fault("twice", text)
        if event and is_judged and not expected:
            self._findings.fault("wrong", f"{position_of(records[0])}: no change explains it")
        elif event or expected:
            self._findings.counts["true changes"] += 1
            self._check_event(image, event, *(expected or (None, {})))
        self._findings.counts["events"] += bool(event)
        return [(event, records[0])] if event else []

    def _expected(
        self, previous: AuditedImage | None, image: AuditedImage, decision: Decision
    ) -> EventAndFiles | None:
        """The event that there must be, and its files; None if there must be none.

        Raises `NotJudged`.
        """
        if previous is None:
            if self._history.first_number(image.message.source):
                raise NotJudged
            return None
        if decision and decision.previous_image_id != previous.message.image_id:
            raise NotJudged  # the image between them was set aside then, and was sent back since
        if image.message.sha256 and image.message.sha256 == previous.message.sha256:
            return None
        if not (previous.is_intact and image.is_intact):
            raise NotJudged
        return self._compare(previous, image, decision)

    def _previous_from_file(
        self, image: AuditedImage, of_source: Mapping[int, AuditedImage], decision: Decision
    ) -> AuditedImage | None:
        """The image that the first one with a message was compared with, if its file exists.

        No message says what the file was then. So a recorded decision that there was no change
        stands, and only an event or a missing decision is judged by the file.
        """
        if isinstance(decision, ImageWithoutEvent):
            return None
        images, source = self._snapshot.images, image.message.source
        numbers = numbers_before(images, source, image.message.number)
        for number in [parts_of(decision.previous_image_id)[1]] if decision else numbers:
            previous = of_source.get(number) or AuditedImage(
                message_of_file(images, source, number), []
            )
            with suppress(InvalidInput):
                read_stored_image(images, previous.message)
                return previous
        return None

    def _compare(
        self, previous: AuditedImage, image: AuditedImage, decision: Decision
    ) -> EventAndFiles | None:
        """As `_expected`, of two images that are intact: compared as the analysis does."""
        rule = self._rule
        if decision:
            if decision.mask_sha256 not in (None, rule.mask_sha256):
                self._findings.counts["other masks"] += 1
                raise NotJudged
            mask = rule.mask if decision.mask_sha256 else None
            # Of an image without an event, no message says which change would be a changed scene.
            scene_change = (
                decision.scene_change if isinstance(decision, ImageEvent) else rule.scene_change
            )
            rule = Rule(decision.threshold, mask, decision.mask_sha256, scene_change)
        received = image.message.received or moment(image.records[0].timestamp / 1000)
        try:
            before, after = (
                read_stored_image(self._snapshot.images, audited.message)
                for audited in (previous, image)
            )
            decided = decide(before, after, rule, received)
        except InvalidInput as reason:
            self._findings.fault("wrong", f"{reason}, and was not set aside")
            raise NotJudged from reason
        return (decided.message, decided.files) if isinstance(decided, NewEvent) else None

    def _check_event(
        self,
        image: AuditedImage,
        found: ImageEvent | None,
        expected: ImageEvent | None,
        files: Mapping[str, bytes],
    ) -> None:
        """Check a change's message and files: at least one of `found` and `expected` exists."""
        if expected and not found:
            self._check_lost_event(image, expected)
        event = found or expected
        if event:
            for path, expected_hash in (
                (event.path, event.sha256),
                (event.difference_path, event.difference_sha256),
            ):
                if path:
                    self._findings.explained.add(path)
                    events = self._snapshot.events
                    self._findings.check_file(events, path, expected_hash, files.get(path))

    def _check_lost_event(self, image: AuditedImage, expected: ImageEvent) -> None:
        """Note that an event has no message, unless Kafka deleted it after its alert was made."""
        alert = alert_path(expected.event_id)
        repair = self._findings.send(IMAGE_EVENTS, expected, CAUSE, cause(image.records[0]))
        if not self._history.is_deleted(IMAGE_EVENTS, expected.source, expected.number):
            text = f"{IMAGE_EVENTS}: no message of the change at {expected.image_id}"
            self._findings.fault("lost", text, repair)
        elif alert not in self._snapshot.files:
            text = f"{IMAGE_EVENTS}: Kafka deleted the event {expected.event_id} before its alert"
            self._findings.fault("expired", text, repair)
        # Its alert may exist all the same.
        self._findings.lost_events.add(sha256(dump(expected)).digest())
        self._findings.explained.add(alert)
