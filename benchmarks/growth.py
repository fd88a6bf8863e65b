"""Growth: more sources and copies, more images, a topic with a million messages behind it.

Each as a ratio to the smallest case. More copies can do no more than the machine has cores, and
the three programs and Kafka keep two busy already: the table says how many there are.
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
PAST = 3600  # seconds over which the messages that are there already have come
PARTS = 10  # of a long run
RATIO = "over the smallest"


@dataclass(frozen=True)
class Mix:
    """So many sources, and copies of analysis."""

    sources: int
    copies: int

    def __str__(self) -> str:
        return f"{counted(self.sources, 'source')}, {counted(self.copies, 'copy', 'copies')}"


@dataclass(frozen=True)
class Extent:
    """How far to go."""

    mixes: Sequence[Mix]  # the first one is what the others are compared with
    mixed: int  # images in a round, of all sources
    images: Sequence[int]  # in a run; the last is the longest
    behind: int  # messages in the topic of images; each fourth is an event
    passing: int  # images in a round, with these behind


FULL = Extent(
    mixes=(Mix(1, 1), Mix(2, 1), Mix(8, 1), Mix(2, 2), Mix(4, 4), Mix(8, 2), Mix(8, 4)),
    mixed=1600,
    images=(1000, 10_000, 100_000),
    behind=1_000_000,
    passing=1000,
)


def figures(extent: Extent = FULL, rounds: int = ROUNDS) -> Iterator[Figure]:
    """All three kinds of growth."""
    yield from more_sources(extent, rounds)
    yield from more_images(extent)
    yield from more_behind(extent, rounds)


def more_sources(extent: Extent, rounds: int) -> Iterator[Figure]:
    """Images per second of more sources with more copies of analysis."""
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
    """Images per second with so many of each source."""
    with ExitStack() as closing:
        closing.callback(leave, server)
        way = replace(OURS, stages=(*[ANALYSIS] * mix.copies, ALERT))
        course = Course(way, server, data, closing)
        course.start()
        options = ("--sources", str(mix.sources))
        course.passage(4, *options, sources=mix.sources)
        while len(members(server)) < mix.copies:  # or they would share anew in the middle
            time.sleep(0.1)
        return course.passage(count, *options, sources=mix.sources).rate


def members(server: str) -> list[str]:
    """The names of the copies that share the images; none while they change."""
    admin = KafkaAdminClient(bootstrap_servers=server)
    try:
        group = admin.describe_groups(["image_analysis"])["image_analysis"]
    finally:
        admin.close()
    is_stable = group["group_state"] == "Stable"
    return [one["group_instance_id"] for one in group["members"]] if is_stable else []


def leave(server: str) -> None:
    """Let Kafka forget the copies that have ended, which it would wait for."""
    names = members(server)
    admin = KafkaAdminClient(bootstrap_servers=server)
    gone = [MemberToRemove(group_instance_id=name) for name in names]
    admin.remove_group_members("image_analysis", gone)
    admin.close()


def more_images(extent: Extent) -> Iterator[Figure]:
    """Images per second of longer runs, and how the longest goes on, with its memory."""
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
    """How it is after a tenth of a run."""

    when: float  # seconds, on a clock of its own
    memory: dict[str, float]  # MB, of each process


def memory(pid: int) -> float:
    """The resident memory of a process in MB; 0 if it has just ended."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
    return 0


def parts_figures(row: str, parts: Sequence[Part]) -> Iterator[Figure]:
    """The later parts of a run over its second: in its first, all starts."""
    row = f"{row}, parts 3 to {PARTS} of {PARTS} over the second"
    lengths = [later.when - earlier.when for earlier, later in pairwise(parts)]
    yield Figure("growth", row, RATIO, [lengths[0] / length for length in lengths[1:]])
    for name, second in parts[1].memory.items():
        used = [part.memory[name] for part in parts[2:] if part.memory.get(name)]
        before = [second] * len(used)
        yield from compared(f"{row}: memory of {name}", used, before, " MB", is_better="lower")


def more_behind(extent: Extent, rounds: int) -> Iterator[Figure]:
    """The stages' start and images per second where the topics are full, over an empty Kafka."""
    with ExitStack() as closing:
        courses = {}
        for name, messages in {"empty": 0, "full": extent.behind}.items():
            server = closing.enter_context(kafka()).bootstrap_servers
            fill(server, messages)
            courses[name] = Course(OURS, server, directory(SMALL, closing), closing)
        starts = interleaved({name: start_of(one) for name, one in courses.items()}, rounds)
        rates = interleaved({name: rate_of(one, extent) for name, one in courses.items()}, rounds)
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
    """What was found, and its ratio to the smallest case."""
    if smallest:
        yield Figure("growth", row, RATIO, over(found, smallest), is_better)
    yield Figure("growth", row, "measured", found, is_better, unit=unit, is_checked=False)


def start_of(course: Course) -> Measure:
    """A measure: seconds from the start of the stages to the alert of an image that waits there."""

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
    """Put so many messages of images into the topics, with their events and alerts, all taken.

    They are of eight other sources, and as if they had come during the last hour.
    """
    producer = KafkaProducer(
        bootstrap_servers=server, compression_type="lz4", linger_ms=100, batch_size=2**19
    )
    began = datetime.now(UTC).timestamp() - PAST
    for one in range(count):
        number, source = one // 8, f"past{one % 8}"
        name = image_id(source, number)
        seconds = began + PAST * one / count
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
        consumer.commit({one: OffsetAndMetadata(end, "", -1) for one, end in ends.items()})
        consumer.close(autocommit=False)


def counted(number: int, one: str, more: str = "") -> str:
    """`1 copy`, `2 copies`."""
    return f"{number} {one if number == 1 else more or one + 's'}"
