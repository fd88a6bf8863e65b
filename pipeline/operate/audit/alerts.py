"""Checks that each image event has its alert."""

from collections.abc import Sequence
from contextlib import suppress

from kafka.consumer.fetcher import ConsumerRecord

from pipeline.alerts import alert_of
from pipeline.errors import InvalidInput
from pipeline.messages import (
    ALERTS,
    DEAD_LETTERS,
    IMAGE_EVENTS,
    Alert,
    ImageEvent,
    ImageMessage,
    parse,
    parts_of,
)
from pipeline.operate.audit.findings import Findings
from pipeline.operate.audit.history import NO_NUMBER, History
from pipeline.operate.audit.snapshot import Snapshot, State
from pipeline.store.names import ALERT_PATH, EVENT_PATH, alert_path
from pipeline.stream.deduplication import CAUSE, cause
from pipeline.stream.positions import position_of


def check_alerts(
    events: Sequence[tuple[ImageEvent, ConsumerRecord]], snapshot: Snapshot, findings: Findings
) -> None:
    """Check the alert of each event that was published."""
    published = snapshot.by_cause(ALERTS)
    for event, event_record in events:
        state = snapshot.state([event_record])
        path = alert_path(event.event_id)
        if state is not State.SET_ASIDE:
            findings.explained.add(path)
        if state is not State.PROCESSED:
            findings.counts[state.value] += 1
            continue
        records = published.get(cause(event_record), [])
        findings.counts["alerts"] += bool(records)
        for record in records[1:]:
            findings.fault("twice", f"{position_of(record)}: the alert of {event.event_id}")
        alert, content = None, None
        with suppress(InvalidInput):  # a fault of the event's file, which is noted there
            alert, content = alert_of(event, snapshot.events)
        if records:
            alert = parse(records[0].value, Alert)
        else:
            repair = findings.send(ALERTS, alert, CAUSE, cause(event_record)) if alert else None
            findings.fault("lost", f"{ALERTS}: no message of the event {event.event_id}", repair)
        if alert:
            findings.check_file(snapshot.alerts, path, alert.sha256, content)


def check_alerts_of_deleted_events(
    snapshot: Snapshot, findings: Findings, history: History
) -> None:
    """Note events whose messages Kafka deleted before their alerts were made."""
    alerted = set()  # images whose event has an alert, or was set aside
    kinds: dict[str, type[ImageMessage]] = {ALERTS: Alert, DEAD_LETTERS: ImageEvent}
    for topic, kind in kinds.items():
        for record in snapshot.records[topic]:
            with suppress(InvalidInput):
                alerted.add(parse(record.value, kind).image_id)
    described = {found[1] for found in map(EVENT_PATH.fullmatch, snapshot.files) if found}
    alerted |= {found[1] for found in map(ALERT_PATH.fullmatch, snapshot.files) if found}
    # Events before a source's first alert are not judged: somebody may have deleted old alerts.
    first_alerts = dict(sorted(map(parts_of, alerted), reverse=True))  # lowest numbers by source
    for event_id in sorted(described - alerted):
        source, number = parts_of(event_id)
        first_alert = first_alerts.get(source, NO_NUMBER)
        is_between = first_alert < number < history.first_number(source)
        if is_between and history.is_deleted(IMAGE_EVENTS, source, number):
            text = f"{IMAGE_EVENTS}: Kafka deleted the event {event_id} before its alert"
            findings.fault("expired", text)
