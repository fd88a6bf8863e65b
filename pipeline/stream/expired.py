"""What a stage does when Kafka has deleted messages before the stage read them.

Kafka deletes them when their retention time is over, or when someone asks for it (DeleteRecords). A
consumer with `auto_offset_reset="earliest"` then goes on in silence with the oldest message that is
left. With `"none"` its poll raises one of `OFFSET_ERRORS`, so that the stage can say what is lost.
"""

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import LogTruncationError, NoOffsetForPartitionError, OffsetOutOfRangeError

from pipeline.stream.positions import partition_name
from pipeline.stream.topic_reader import TopicReader
from pipeline.terminal import say
from pipeline.wording import count_of

OFFSET_ERRORS = (OffsetOutOfRangeError, NoOffsetForPartitionError, LogTruncationError)
WHAT_TO_DO = "`python -m pipeline audit` names what is missing; a longer retention.ms keeps it"


class ExpiredMessages:
    """Says once of each gap which messages a stage will never read, and goes on behind the gap."""

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._said: set[str] = set()  # lines; after a rebalance the same gap may be found again

    def skip(self, consumer: KafkaConsumer, topics: TopicReader, error: Exception) -> None:
        """Send the consumer to the next messages that there are, after this error of its poll.

        Raises `KafkaError` if Kafka does not say where a partition begins, and the error itself if
        it names no partition.
        """
        next_offsets = _next_offsets(error)
        if not next_offsets:
            raise error
        beginnings = topics.beginning_offsets(next(iter(next_offsets)).topic)
        for partition in sorted(next_offsets.keys() & consumer.assignment()):
            offset, beginning = next_offsets[partition], beginnings.get(partition)
            if beginning is None:
                # The topic was created again with fewer partitions, and the group still assigns
                # the old ones. The consumer waits until this partition comes.
                consumer.seek_to_beginning(partition)
                continue
            # A truncated partition has lost its newest records, because its leader died before
            # others had them. It is read from its new end on; any other from its new beginning.
            is_truncated = isinstance(error, LogTruncationError) and (offset or 0) > beginning
            consumer.seek(partition, offset if is_truncated else beginning)
            line = deleted_unread(partition, offset, beginning, self._stage)
            if line and line not in self._said:
                self._said.add(line)
                say(line)


def deleted_unread(
    partition: TopicPartition, offset: int | None, beginning: int, stage: str
) -> str:
    """What to say of messages that Kafka deleted from `offset` on; empty if there are none."""
    where = partition_name(partition)
    # The last offset of a transaction is that of its end, so a single one is no message.
    if beginning - (offset or 0) < 2:
        return ""
    if offset is None:  # Kafka forgets a group's offsets a week after its last member has left.
        return (
            f"{where}: Kafka deleted the messages before offset {beginning} (retention), and does "
            f"not know whether {stage} had read them; {WHAT_TO_DO}"
        )
    return (
        f"{where}: Kafka deleted the offsets {offset} to {beginning - 1}, up to "
        f"{count_of(beginning - offset, 'message')}, before {stage} read them (retention); "
        f"{WHAT_TO_DO}"
    )


def _next_offsets(error: Exception) -> dict[TopicPartition, int | None]:
    """The partitions that the error is about, each with the offset to read next, if it is known."""
    if isinstance(error, LogTruncationError):
        found = error.divergent_offsets.items()
        return {partition: position.offset if position else None for partition, position in found}
    about = error.args[0] if error.args else ()
    found = about if isinstance(about, dict) else dict.fromkeys(about)
    return {name: offset for name, offset in found.items() if isinstance(name, TopicPartition)}
