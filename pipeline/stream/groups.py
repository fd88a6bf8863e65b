"""Consumer groups: how far each has read, who is in it, and what to do when one is stuck."""

from collections.abc import Mapping

from kafka import TopicPartition
from kafka.admin import MemberToRemove
from kafka.consumer.fetcher import ConsumerRecord

from pipeline.stream.connection import Kafka


def committed_offsets(kafka: Kafka, group: str) -> dict[TopicPartition, int]:
    """The offset of each partition from which the group goes on. Raises `KafkaError`."""
    with kafka.admin() as admin:
        offsets = admin.list_group_offsets([group]).get(group, {})
    return {
        partition: committed.offset
        for partition, committed in offsets.items()
        if committed.offset >= 0
    }


def member_count(kafka: Kafka, group: str) -> int:
    """How many members Kafka counts in the group. Raises `KafkaError`."""
    with kafka.admin() as admin:
        return len(admin.describe_groups([group])[group]["members"])


def leave_stuck_group(kafka: Kafka, group: str, topic: str, instance: str) -> bool:
    """Leave the group as this static member if the group is stuck; whether it was.

    A group is stuck if it is stable although no member has some partition of its topic. A Kafka
    that is killed while it assigns the partitions comes back like this, and members that join again
    under their old instance ids get the old assignment for good. So do those that join again after
    partitions were added. Once a member has left, Kafka assigns the partitions anew. Raises
    `KafkaError`.
    """
    with kafka.admin() as admin:
        described = admin.describe_groups([group])[group]
        assigned = {
            partition
            for member in described["members"]
            for topics in (member["member_assignment"] or {}).get("assigned_partitions", ())
            for partition in topics["partitions"]
        }
        partitions = admin.describe_topics([topic])[0]["partitions"]
        is_stuck = described["group_state"] == "Stable" and len(assigned) < len(partitions)
        if is_stuck:
            admin.remove_group_members(group, [MemberToRemove(group_instance_id=instance)])
    return is_stuck


def is_committed(record: ConsumerRecord, offsets: Mapping[TopicPartition, int]) -> bool:
    """Whether these committed offsets of a group are beyond the record."""
    return offsets.get(TopicPartition(record.topic, record.partition), 0) > int(record.offset)
