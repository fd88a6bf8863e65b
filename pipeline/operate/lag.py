"""Lag: what waits for each stage, for how long already, and how many copies work on it."""

import time
from collections.abc import Sequence
from itertools import islice

from pipeline.settings import Parser
from pipeline.stages import CONSUMING_STAGES
from pipeline.stop_signal import StopSignal
from pipeline.stream.connection import Kafka
from pipeline.stream.expired import deleted_unread
from pipeline.stream.groups import committed_offsets, member_count
from pipeline.stream.topic_reader import TopicReader
from pipeline.terminal import say


def main(arguments: Sequence[str]) -> None:
    """Print a line for each stage."""
    parser = Parser("Show what waits for each stage.", "python -m pipeline lag")
    kafka = Kafka(parser.settings(parser.parse_args(arguments)), StopSignal(status=1))
    with kafka.connect(TopicReader) as topics:
        say(f"{'stage':19} {'copies':>6} {'waiting':>9}  oldest")
        for stage in CONSUMING_STAGES:
            waiting, since = waiting_in(topics, stage.consumes, kafka, stage.name)
            oldest = f"{max(0, time.time() - since):.1f} s" if waiting else "-"
            members = member_count(kafka, stage.name)
            say(f"{stage.name:19} {members:6} {waiting:9}  {oldest}")
        for stage in CONSUMING_STAGES:
            for line in deleted_from(topics, stage.consumes, kafka, stage.name):
                say(line)


def waiting_in(topics: TopicReader, topic: str, kafka: Kafka, group: str) -> tuple[int, float]:
    """How many messages the group has still to take, and when the oldest of them was sent.

    Counted by offsets, of which each transaction takes one, too: so it is at most as many.
    """
    ends = topics.end_offsets(topic)
    start = topics.beginning_offsets(topic) | committed_offsets(kafka, group)
    waiting, since = 0, time.time()
    for partition, end in ends.items():
        only = {partition: start[partition]}
        for first in islice(topics.read(only, ends), 1):
            waiting += end - first.offset
            since = min(since, first.timestamp / 1000)
    return waiting, since


def deleted_from(topics: TopicReader, topic: str, kafka: Kafka, group: str) -> list[str]:
    """What Kafka deleted before the group took it, which therefore doesn't wait any more."""
    offsets = committed_offsets(kafka, group)
    lines = (
        deleted_unread(partition, offsets.get(partition), beginning, group)
        for partition, beginning in sorted(topics.beginning_offsets(topic).items())
    )
    return [line for line in lines if line]
