"""Lag: what waits for each stage, for how long already, and how many copies work on it."""

import time
from collections.abc import Sequence

from pipeline.own_kafka import find_kafka
from pipeline.settings import Parser
from pipeline.stages import CONSUMING_STAGES, StageDefinition
from pipeline.stop_signal import StopSignal
from pipeline.stream.connection import Kafka
from pipeline.stream.expired import deleted_unread
from pipeline.stream.groups import committed_offsets, member_count
from pipeline.stream.topic_reader import TopicReader
from pipeline.terminal import say


def main(arguments: Sequence[str]) -> None:
    """Print a line for each stage, then a line for each gap in what it can still read."""
    parser = Parser("Show what waits for each stage.", "python -m pipeline lag")
    settings = find_kafka(parser.settings(parser.parse_args(arguments)), "lag")
    kafka = Kafka(settings, StopSignal(status=1))
    with kafka.connect(TopicReader) as topics:
        say(f"{'stage':19} {'copies':>6} {'waiting':>9}  oldest")
        for stage in CONSUMING_STAGES:
            waiting, since = _waiting(stage, topics, kafka)
            oldest = f"{max(0, time.time() - since):.1f} s" if waiting else "-"
            copies = member_count(kafka, stage.name)
            say(f"{stage.name:19} {copies:6} {waiting:9}  {oldest}")
        for stage in CONSUMING_STAGES:
            offsets = committed_offsets(kafka, stage.name)
            for partition, beginning in sorted(topics.beginning_offsets(stage.consumes).items()):
                line = deleted_unread(partition, offsets.get(partition), beginning, stage.name)
                if line:
                    say(line)


def _waiting(stage: StageDefinition, topics: TopicReader, kafka: Kafka) -> tuple[int, float]:
    """How many messages the stage has still to read, and when the oldest of them was sent.

    They are read, since offsets don't count them: each transaction takes an offset as well. What is
    in an open transaction doesn't wait yet.
    """
    next_offsets = topics.beginning_offsets(stage.consumes) | committed_offsets(kafka, stage.name)
    waiting, since = 0, time.time()
    for record in topics.read(next_offsets, topics.readable_end_offsets(stage.consumes)):
        waiting += 1
        since = min(since, record.timestamp / 1000)
    return waiting, since
