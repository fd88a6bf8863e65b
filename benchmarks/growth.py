"""Growth: more sources and copies, longer runs, and topics that hold a million messages already.

Each is measured as a ratio to the smallest case. More copies can be no faster than the machine's
cores allow, and the three programs and Kafka use two cores already: the table says how many cores
there are.
"""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Literal

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.admin import MemberToRemove

from benchmarks.images import Kind
from benchmarks.limit import SHA256, alert_of, event_of
from benchmarks.pipeline import ALERT, ANALYSIS, OURS, Course, directory, kafka
from benchmarks.rounds import ROUNDS, Figure, Measure, interleaved, over
from pipeline.messages import ALERTS, IMAGE_EVENTS, IMAGES, ReceivedImage, dump, image_id, moment

SMALL = Kind("350x350", 350, 350)
TINY = Kind("64x64", 64, 64)
PAST = 3600  # seconds within which the messages that are there already were published
PARTS = 10  # of a long run
RATIO = "over the smallest"


@dataclass(frozen=True)
class Mix:
    """A number of sources, and of copies of the analysis."""

    sources: int
    copies: int

    def __str__(self) -> str:
        return f"{counted(self.sources, 'source')}, {counted(self.copies, 'copy', 'copies')}"


@dataclass(frozen=True)
class Extent:
    """How much is measured."""

    mixes: Sequence[Mix]  # the others are compared with the first
    mixed: int  # images in a round, of all sources together
    images: Sequence[int]  # in a run, from the shortest to the longest
    behind: int  # messages that are in the topic of images already; every fourth has an event
    passing: int  # images in a round behind these messages


FULL = Extent(
    mixes=(Mix(1, 1), Mix(2, 1), Mix(8, 1), Mix(2, 2), Mix(4, 4), Mix(8, 2), Mix(8, 4)),
    mixed=1600,
    images=(1000, 10_000, 100_000),
    behind=1_000_000,
    passing=1000,
)


def figures(extent: Extent = FULL, rounds: int = ROUNDS) -> Iterator[Figure]:
    """The figures of all three kinds of growth."""
    yield from more_sources(extent, rounds)
    yield from more_images(extent)
    yield from more_behind(extent, rounds)


def more_sources(extent: Extent, rounds: int) -> Iterator[Figure]:
    """Images per second with more sources and more copies of the analysis."""
    with ExitStack() as closing:
        server = closing.enter_context(kafka()).bootstrap_servers
        data = directory(SMALL, closing)

        def measure(mix: Mix) -> Measure:
            return lambda: mixed_rate(server, data, mix, extent.mixed // mix.sources)

        rates = interleaved({str(mix): measure(mix) for mix in extent.mixes}, rounds)
    first = str(extent.mixes[0])
    for name, found in rates.items():
        row = f"{name} of analysis, on {counted(os.cpu_count() or 1, 'core')}"
        yield from compared(row, found, rates[first] if name != first else [])


def mixed_rate(server: str, data: Path, mix: Mix, count: int) -> float:
    """Images per second with `count` images of each source."""
    with ExitStack() as closing:
        closing.callback(leave, server)
        way = replace(OURS, stages=(*[ANALYSIS] * mix.copies, ALERT))
        course = Course(way, server, data, closing)
        course.start()
        options = ("--sources", str(mix.sources))
        course.passage(4, *options, sources=mix.sources)
        while len(members(server)) < mix.copies:  # else the group would rebalance during the round
            time.sleep(0.1)
        return course.passage(count, *options, sources=mix.sources).rate


def members(server: str) -> list[str]:
    """The instance names in the analysis's consumer group; none while the group rebalances."""
    admin = KafkaAdminClient(bootstrap_servers=server)
    try:
        group = admin.describe_groups(["image_analysis"])["image_analysis"]
    finally:
        admin.close()
    is_stable = group["group_state"] == "Stable"
    return [member["group_instance_id"] for member in group["members"]] if is_stable else []


def leave(server: str) -> None:
    """Remove the copies that have ended from the group: Kafka would wait for their return."""
    names = members(server)
    admin = KafkaAdminClient(bootstrap_servers=server)
    gone = [MemberToRemove(group_instance_id=name) for name in names]
    admin.remove_group_members("image_analysis", gone)
    admin.close()


def more_images(extent: Extent) -> Iterator[Figure]:
    """Images per second of longer runs; of the longest also the speed and memory of its parts."""
    shortest, *longer = extent.images
    parts: list[Part] = []
    with ExitStack() as closing:
        broker = closing.enter_context(kafka())
        course = Course(OURS, broker.bootstrap_servers, directory(TINY, closing), closing)
        course.start()
        course.passage(4)

        def look(share: float) -> None:
            while share * PARTS >= len(parts) + 1:
                processes = {**course.programs, "Kafka": broker.process}
                used = {name: memory(process.pid) for name, process in processes.items()}
                parts.append(Part(time.monotonic(), used))

        for count in longer:
            parts.clear()
            around = [course.passage(shortest).rate]
            rate = course.passage(count, watch=look).rate
            around.append(course.passage(shortest).rate)
            row = f"{count:,} images of {TINY.name}, over {shortest:,}"
            yield from compared(row, [rate, rate], around)
    yield from parts_figures(f"{longer[-1]:,} images of {TINY.name}", parts)


@dataclass(frozen=True)
class Part:
    """The end of a part of a run."""

    when: float  # seconds, by the monotonic clock
    memory: dict[str, float]  # MB, by the name of the process


def memory(pid: int) -> float:
    """The resident memory of a process in MB; 0 if the process has just ended."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
    return 0


def parts_figures(row: str, parts: Sequence[Part]) -> Iterator[Figure]:
    """The later parts of a run over the second part; during the first, the programs start."""
    row = f"{row}, parts 3 to {PARTS} of {PARTS} over the second"
    lengths = [later.when - earlier.when for earlier, later in pairwise(parts)]
    yield Figure("growth", row, RATIO, [lengths[0] / length for length in lengths[1:]])
    for name, second in parts[1].memory.items():
        used = [part.memory[name] for part in parts[2:] if part.memory.get(name)]
        before = [second] * len(used)
        yield from compared(f"{row}: memory of {name}", used, before, " MB", is_better="lower")


def more_behind(extent: Extent, rounds: int) -> Iterator[Figure]:
    """The stages' start and images per second with full topics, over those with empty topics."""
    with ExitStack() as closing:
        courses = {}
        for name, messages in {"empty": 0, "full": extent.behind}.items():
            server = closing.enter_context(kafka()).bootstrap_servers
            fill(server, messages)
            courses[name] = Course(OURS, server, directory(SMALL, closing), closing)
        starts = interleaved({name: start_of(course) for name, course in courses.items()}, rounds)
        rates = interleaved(
            {name: rate_of(course, extent) for name, course in courses.items()}, rounds
        )
    row = f"{extent.behind:,} messages behind"
    yield from compared(row, rates["full"], rates["empty"])
    name = f"{row}: the stages' start"
    yield from compared(name, starts["full"], starts["empty"], " s", is_better="lower")


def compared(
    row: str,
    found: list[float],
    smallest: list[float],
    unit: str = " images/s",
    is_better: Literal["higher", "lower"] = "higher",
) -> Iterator[Figure]:
    """What was measured, and its ratio to the smallest case."""
    if smallest:
        yield Figure("growth", row, RATIO, over(found, smallest), is_better)
    yield Figure("growth", row, "measured", found, is_better, unit=unit, is_checked=False)


def start_of(course: Course) -> Measure:
    """A measure: seconds from the start of the stages to the alert of an image that is waiting."""

    def measure() -> float:
        course.stop()
        course.receive(4)
        course.programs["receiving"].wait()
        began = time.monotonic()
        course.start()
        course.alerts(1)
        return time.monotonic() - began

    return measure


def rate_of(course: Course, extent: Extent) -> Measure:
    """A measure: images per second."""
    return lambda: course.passage(extent.passing).rate


def fill(server: str, count: int) -> None:
    """Publish the messages of images, events and alerts, and commit their offsets as consumed.

    They are of eight other sources, and have timestamps within the last hour.
    """
    producer = KafkaProducer(
        bootstrap_servers=server, compression_type="lz4", linger_ms=100, batch_size=2**19
    )
    began = datetime.now(UTC).timestamp() - PAST
    for index in range(count):
        number, source = index // 8, f"past{index % 8}"
        name = image_id(source, number)
        seconds = began + PAST * index / count
        image = ReceivedImage(
            image_id=name,
            source=source,
            number=number,
            path=f"image_database/{name}.jpg",
            sha256=SHA256,
            received=moment(seconds),
        )
        messages = {IMAGES: dump(image)}
        if number % 4 == 3:
            event = event_of(image)
            messages |= {IMAGE_EVENTS: dump(event), ALERTS: dump(alert_of(event))}
        for topic, value in messages.items():
            producer.send(topic, value, source.encode(), timestamp_ms=int(seconds * 1000))
    producer.flush()
    producer.close()
    for group, topic in {"image_analysis": IMAGES, "image_event_alert": IMAGE_EVENTS}.items():
        consumer = KafkaConsumer(bootstrap_servers=server, group_id=group, enable_auto_commit=False)
        numbers = consumer.partitions_for_topic(topic)
        ends = consumer.end_offsets([TopicPartition(topic, number) for number in numbers])
        consumer.assign(list(ends))
        offsets = {partition: OffsetAndMetadata(end, "", -1) for partition, end in ends.items()}
        consumer.commit(offsets)
        consumer.close(autocommit=False)


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun, as in `1 copy` and `2 copies`."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"
