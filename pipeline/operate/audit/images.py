"""Checks that each message in `images` has its file, and each file of an image its message."""

import time
from collections import defaultdict
from dataclasses import dataclass

from kafka.consumer.fetcher import ConsumerRecord

from pipeline.errors import InvalidInput
from pipeline.messages import IMAGES, ReceivedImage, image_id, moment, parse, parts_of
from pipeline.operate.audit.findings import Findings, Repair, write_file
from pipeline.operate.audit.history import NO_NUMBER, History, Verdict
from pipeline.operate.audit.snapshot import Snapshot, State
from pipeline.pictures.picture import Picture, image_message
from pipeline.store.names import IMAGE, IMAGE_DATABASE, digest, event_path
from pipeline.stream.dead_letters import REPAIRED, SENT_AGAIN
from pipeline.stream.expired import WHAT_TO_DO, deleted_unread
from pipeline.stream.positions import position_of
from pipeline.terminal import say
from pipeline.wording import count_of


@dataclass
class AuditedImage:
    """An image, and the records of its message: more than one if it was sent again."""

    message: ReceivedImage
    records: list[ConsumerRecord]
    is_intact: bool = True  # its file is what the message says


Images = dict[str, dict[int, AuditedImage]]  # by source and number


def current_images(snapshot: Snapshot, findings: Findings) -> Images:
    """The images that have messages, but for those cleaned away or replaced by later images.

    After the directories were emptied, a source is counted from 0 again: where a number is not
    higher than those before it, it and all higher ones are replaced.
    """
    images: Images = defaultdict(dict)
    seen: dict[bytes, AuditedImage] = {}  # by the message
    cleaned = 0
    for record in snapshot.records[IMAGES]:
        try:
            message = parse(record.value, ReceivedImage)
        except InvalidInput:
            must_be_set_aside(record, snapshot, findings)
            continue
        if record.value in seen:
            seen[record.value].records.append(record)
            findings.counts["repeats"] += 1
            continue
        if snapshot.is_cleaned(message, record):
            cleaned += 1
            continue
        of_source = images[message.source]
        if not _was_sent_again(record):
            for number in [number for number in of_source if number >= message.number]:
                del of_source[number]
        of_source[message.number] = seen[record.value] = AuditedImage(message, [record])
    if cleaned:
        say(f"not missed: {count_of(cleaned, 'image')} deleted by clean_image_dirs.sh")
    return images


def first_numbers(snapshot: Snapshot, images: Images) -> dict[str, int]:
    """The number of the first message of each source that has messages or files."""
    first = {}
    for path in snapshot.files:
        if name := _image_in(path):
            first[parts_of(name)[0]] = NO_NUMBER
    for source, of_source in images.items():
        first[source] = min(
            (
                number
                for number, image in of_source.items()
                if not _was_sent_again(image.records[0])
            ),
            default=NO_NUMBER,
        )
    return first


def check_images(images: Images, snapshot: Snapshot, findings: Findings, history: History) -> None:
    """Check the files of images that have messages, then the files that have none."""
    paths: dict[str | None, str] = {}  # of intact files, by their SHA-256
    damaged: list[tuple[AuditedImage, InvalidInput]] = []
    for image in (image for of_source in images.values() for image in of_source.values()):
        findings.counts["images"] += 1
        findings.explained.add(image.message.path)
        try:
            content = snapshot.images.read(image.message.path, image.message.sha256)
            paths[digest(content)] = image.message.path
        except InvalidInput as reason:
            image.is_intact = False
            if snapshot.state(image.records) is not State.SET_ASIDE:
                damaged.append((image, reason))
    for image, fault in damaged:
        intact_path = paths.get(image.message.sha256)
        repair = _copy_of(intact_path, image, snapshot) if intact_path else None
        findings.fault("lost", str(fault), repair)
    _check_files_without_message(snapshot, findings, history)


def must_be_set_aside(record: ConsumerRecord, snapshot: Snapshot, findings: Findings) -> None:
    """Note a fault if the stage has read this invalid record and not set it aside."""
    if snapshot.state([record]) is State.PROCESSED:
        findings.fault("lost", f"{position_of(record)}: neither used nor set aside")


def _check_files_without_message(snapshot: Snapshot, findings: Findings, history: History) -> None:
    """Files of images whose messages were lost, were deleted by Kafka, or are older than it."""
    found = []
    for path in snapshot.files:
        name = _image_in(path)
        if name and path not in findings.explained:
            if path in snapshot.in_outbox:
                findings.counts["waiting"] += 1
            else:
                found.append((*parts_of(name), path))
            findings.explained.add(path)
    not_judged: dict[Verdict, list[str]] = defaultdict(list)
    for source, number, path in sorted(found):
        has_event = event_path(image_id(source, number)) in snapshot.files
        verdict, can_send = history.judge(source, number, has_event)
        # A message that may have been read is not sent: its event would be alerted again.
        repair = _send_image(path, source, number, snapshot, findings) if can_send else None
        hint = "" if can_send else "; not sent: it may have been read, or come before this Kafka"
        if verdict is Verdict.LOST:
            findings.fault("lost", f"{IMAGES}: no message of {path}{hint}", repair)
        elif verdict is Verdict.DELETED_UNREAD:
            text = f"{IMAGES}: Kafka deleted the message of {path} before it was read"
            findings.fault("expired", text, repair)
        else:
            not_judged[verdict].append(path)
    for verdict, paths in not_judged.items():
        findings.counts["not judged"] += len(paths)
        is_empty = "" if any(snapshot.records.values()) else "the topics are empty: "
        names = " to ".join(dict.fromkeys((paths[0], paths[-1])))
        say(f"not judged: {is_empty}{count_of(len(paths), 'image')}, {names}, {verdict.value}")
    if Verdict.UNKNOWN in not_judged:
        _check_offsets(snapshot, findings)


def _check_offsets(snapshot: Snapshot, findings: Findings) -> None:
    """Note which offsets the analysis will never read, where nothing says of which images."""
    for partition, offset in snapshot.committed[IMAGES].items():
        beginning = snapshot.beginnings[IMAGES].get(partition, 0)
        line = deleted_unread(partition, offset, beginning, "image_analysis")
        if line:
            text = line.removesuffix(f"; {WHAT_TO_DO}")
            findings.fault("expired", f"{text}; nothing says of which images")


def _image_in(path: str) -> str:
    """The id of the image that is in this file; empty if it is no image's file."""
    directory, _, name = path.partition("/")
    found = IMAGE.fullmatch(name)
    return found[1] if found and directory == IMAGE_DATABASE else ""


def _was_sent_again(record: ConsumerRecord) -> bool:
    """Whether an image's message was repaired or sent back, and so follows later images."""
    return not SENT_AGAIN.isdisjoint(name for name, _ in record.headers)


def _copy_of(intact_path: str, image: AuditedImage, snapshot: Snapshot) -> Repair:
    """A repair that copies a file with the same SHA-256."""

    def copy() -> None:
        content = snapshot.images.read(intact_path, image.message.sha256)
        write_file(snapshot.images, image.message.path, content)()
        image.is_intact = True

    return copy


def _send_image(
    path: str, source: str, number: int, snapshot: Snapshot, findings: Findings
) -> Repair | None:
    """A repair that sends the message of an image's file, if that can be read."""
    try:
        content = snapshot.images.read(path)
    except InvalidInput:
        return None
    received = moment(time.time() - snapshot.images.age(path))
    picture = Picture(content, path.rpartition(".")[2], received=received)
    return findings.send(IMAGES, image_message(picture, source, number), REPAIRED, b"")
