"""What a stage does when Kafka deleted messages before it read them (retention, DeleteRecords).

With `auto_offset_reset="earliest"` kafka-python goes on with the oldest message that is left, in
silence. With `"none"` it raises an error instead, and only then: so we can say what is missing, and
the usual poll costs nothing more.
"""

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import LogTruncationError, NoOffsetForPartitionError, OffsetOutOfRangeError

from pipeline.stream.positions import partition_name
from pipeline.stream.topic_reader import TopicReader
from pipeline.terminal import say

OFFSET_ERRORS = (OffsetOutOfRangeError, NoOffsetForPartitionError, LogTruncationError)
WHAT_TO_DO = "`python -m pipeline audit` names what is missing; a longer retention.ms keeps it"


class ExpiredMessages:
    """Says which messages a stage will never read, each gap once, and leads the consumer on."""

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._said: set[str] = set()  # a rebalance or a new connection finds the same gap again

    def skip(self, consumer: KafkaConsumer, topics: TopicReader, error: Exception) -> None:
        """Seek to the next offset that there is, after one of `OFFSET_ERRORS` from `poll()`.

        Raises `KafkaError` when Kafka does not say where a partition begins.
        """
        next_offsets = _next_offsets(error)
        beginnings = topics.beginning_offsets(next(iter(next_offsets)).topic)
        for partition in sorted(next_offsets.keys() & consumer.assignment()):
            offset, beginning = next_offsets[partition], beginnings.get(partition)
            if beginning is None:
                # A copy that starts again may get what it had of a topic that is another one now,
                # with fewer partitions. kafka-python waits for the missing ones to come.
                consumer.seek_to_beginning(partition)
                continue
            # A log that lost its end, to a leader with fewer records, is read from there on.
            is_left = isinstance(error, LogTruncationError) and (offset or 0) > beginning
            consumer.seek(partition, offset if is_left else beginning)
            line = deleted_unread(partition, offset, beginning, self._stage)
            if line and line not in self._said:
                self._said.add(line)
                say(line)


def deleted_unread(
    partition: TopicPartition, offset: int | None, beginning: int, stage: str
) -> str:
    """The line about messages that Kafka deleted from `offset` on; nothing if there are none."""
    where = partition_name(partition)
    # A transaction ends with a marker, which takes an offset: one alone is no message.
    if beginning - (offset or 0) < 2:
        return ""
    if offset is None:  # Kafka forgets a group's offsets a week after its last member has left
        return (
            f"{where}: Kafka deleted the messages before offset {beginning} (retention), and does "
            f"not know whether {stage} had read them; {WHAT_TO_DO}"
        )
    return (
        f"{where}: Kafka deleted the offsets {offset} to {beginning - 1}, up to "
        f"{beginning - offset} messages, before {stage} read them (retention); {WHAT_TO_DO}"
    )


def _next_offsets(error: Exception) -> dict[TopicPartition, int | None]:
    """The partitions that an error is about, and the offset that was to be read next, if any."""
    if isinstance(error, LogTruncationError):
        found = error.divergent_offsets.items()
        return {partition: one.offset if one else None for partition, one in found}
    (about,) = error.args
    return dict(about) if isinstance(about, dict) else dict.fromkeys(about)
