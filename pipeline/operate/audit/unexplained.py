"""Names the messages that nothing has caused, and the files that nothing explains."""

from pipeline.errors import InvalidInput
from pipeline.messages import ALERTS, IMAGE_EVENTS, IMAGES, MESSAGE_TYPES, parse, parts_of
from pipeline.operate.audit.findings import Findings
from pipeline.operate.audit.history import History
from pipeline.operate.audit.images import must_be_set_aside
from pipeline.operate.audit.snapshot import OUTBOX, Snapshot, causes_of
from pipeline.store.names import ALERT_PATH, EVENT_PATH, IMAGE_DATABASE
from pipeline.stream.deduplication import cause
from pipeline.stream.positions import position_of

PART_SECONDS = 60  # after which a file is not being written any more


def check_causes(snapshot: Snapshot, findings: Findings, history: History) -> None:
    """Note events and alerts that no message has caused."""
    for topic, consumed in ((IMAGE_EVENTS, IMAGES), (ALERTS, IMAGE_EVENTS)):
        causes = {cause(record) for record in snapshot.records[consumed]} | findings.lost_events
        # What is older than all its possible causes may have had one that Kafka has deleted.
        oldest = min((record.timestamp for record in snapshot.records[consumed]), default=0)
        for record in snapshot.records[topic]:
            if causes.isdisjoint(causes_of(record)) and record.timestamp >= oldest:
                try:
                    message = parse(record.value, MESSAGE_TYPES[topic])
                except InvalidInput:
                    if topic == IMAGE_EVENTS:
                        must_be_set_aside(record, snapshot, findings)
                    continue
                is_before = history.is_before(message.source, message.number)
                if not is_before and position_of(record) not in snapshot.set_aside:
                    findings.fault("wrong", f"{position_of(record)}: nothing explains it")


def check_files(snapshot: Snapshot, findings: Findings, history: History) -> None:
    """Note files that have no reason to exist."""
    for path in sorted(snapshot.files - findings.explained):
        found = EVENT_PATH.fullmatch(path) or ALERT_PATH.fullmatch(path)
        is_before = found and history.is_before(*parts_of(found[1]))
        is_outbox = path.startswith(f"{IMAGE_DATABASE}/{OUTBOX}")
        is_being_written = path.endswith(".part") and snapshot.images.age(path) < PART_SECONDS
        if not (is_before or is_outbox or is_being_written) and snapshot.images.has(path):
            findings.fault("wrong", f"{path}: nothing explains it; delete it if you don't")
