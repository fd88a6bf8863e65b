"""Creates the topics of the pipeline, and checks those that another program has created.

A broker may create a topic by itself as soon as any client asks for it, with its own defaults.
These may not fit: too few partitions, too little room for a dead letter, or a clean-up that deletes
all but the newest message of each source.
"""

import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, OffsetSpec
from kafka.errors import (
    AuthorizationError,
    BrokerResponseError,
    InvalidPartitionsError,
    KafkaTimeoutError,
    NoError,
    TopicAlreadyExistsError,
    for_code,
)

from pipeline.messages import DEAD_LETTERS
from pipeline.stages import STAGES
from pipeline.stream.kafka_python import topic_configs
from pipeline.terminal import say
from pipeline.wording import count_of

PARTITIONS = 16
CLEANUP = "cleanup.policy"
LARGEST = "max.message.bytes"
RETENTION = "retention.ms"
SHORT = timedelta(days=1)  # a shorter retention time is said, and left as it is
COMPRESSION = "compression.type"
SETTINGS = {
    CLEANUP: "delete",  # after the retention time, never only the newest of each key
    # The retention time counts from a message's arrival: the clock of a computer that publishes may
    # be wrong.
    "message.timestamp.type": "LogAppendTime",
    # As it was published: a broker may be set to compress anew, by a codec that a plain client of
    # other languages can't read.
    COMPRESSION: "producer",
}
READABLE = {"producer", "gzip", "uncompressed"}  # of compression.type
TOPICS: dict[str, dict[str, str]] = {
    **{topic: SETTINGS for stage in STAGES for topic in (stage.publishes, *stage.also_publishes)},
    # A record at Kafka's limit of 1 MiB must fit with the headers that we add.
    DEAD_LETTERS: {**SETTINGS, LARGEST: str(2 * 2**20)},
}


# By topic; a topic that is created again gets another id. A Kafka before 2.8 has no ids.
TopicIds = dict[str, str | None]


class Topics:
    """The topics of the pipeline, as this program has seen them last."""

    def __init__(self) -> None:
        self.ids: TopicIds = {}
        self._described: Sequence[Mapping[str, Any]] = ()
        self._lock = threading.Lock()
        self._said: set[str] = set()  # lines about lasting faults, each of which is said once

    def create(self, admin: KafkaAdminClient) -> None:
        """Create the topics that are missing; say which were deleted. Raises `KafkaError`."""
        missing = TOPICS.keys() - set(admin.list_topics())
        if missing:
            _create(admin, missing)
        described = admin.describe_topics(list(TOPICS))
        found = {topic["name"]: topic.get("topic_id") for topic in described}
        with self._lock:
            self._described = described
            before, self.ids = self.ids, found
        for topic, topic_id in before.items():
            if found.get(topic) != topic_id:
                self._said.clear()
                say(f"the topic {topic} was deleted, with all that was in it, and is made again")

    def check(self, admin: KafkaAdminClient) -> None:
        """Correct topics that another program created, and say so, where Kafka allows it.

        Raises `KafkaError`.
        """
        for line in [*_check_partitions(admin, self._described), *_check_settings(admin)]:
            if line not in self._said:
                self._said.add(line)
                say(line)


def _create(admin: KafkaAdminClient, topics: Iterable[str]) -> None:
    new = {topic: {"num_partitions": PARTITIONS, "configs": TOPICS[topic]} for topic in topics}
    for created in admin.create_topics(new, raise_errors=False)["topics"]:
        error = for_code(created["error_code"])
        # Another program may create them at the same time.
        if error not in (NoError, TopicAlreadyExistsError):
            raise error(f"cannot make the topic {created['name']}: {created['error_message']}")
    admin.wait_for_topics(list(new))


def _check_partitions(
    admin: KafkaAdminClient, topics: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    """Add missing partitions to topics, and say so.

    A topic with messages stays as it is: with more partitions, the next message of a source might
    come to another partition than those before it.
    """
    for topic in topics:
        name, number = topic["name"], len(topic["partitions"])
        have_leaders = all(partition["leader_id"] >= 0 for partition in topic["partitions"])
        if not 0 < number < PARTITIONS or not have_leaders:
            continue
        partitions = [TopicPartition(name, partition) for partition in range(number)]
        ends = admin.list_partition_offsets(dict.fromkeys(partitions, OffsetSpec.LATEST))
        what = f"the topic {name} has {count_of(number, 'partition')} instead of {PARTITIONS}"
        if any(end.offset for end in ends.values()):
            yield (
                f"{what}, and messages, so they stay: no more than {number} of a stage's copies "
                "share them"
            )
            continue
        try:
            admin.create_partitions({name: PARTITIONS})
        except InvalidPartitionsError:
            pass  # another program has just added them
        except AuthorizationError:
            yield f"{what}; give this user the right to ALTER it, or add them"
        except BrokerResponseError as error:
            yield f"{what}; Kafka does not add them: {error}"
        else:
            _wait_for_partitions(admin, name)
            yield f"the topic {name} had {count_of(number, 'partition')}; now {PARTITIONS}"


def _wait_for_partitions(admin: KafkaAdminClient, name: str) -> None:
    """Wait until the brokers know the partitions: a consumer asks again only after five minutes."""
    end = time.monotonic() + 10
    while len(admin.describe_topics([name])[0]["partitions"]) < PARTITIONS:
        if time.monotonic() > end:
            raise KafkaTimeoutError(f"the partitions added to {name} did not come in 10 s")
        time.sleep(0.05)


def _check_settings(admin: KafkaAdminClient) -> Iterator[str]:
    """Correct settings of topics with which messages could be lost or unreadable, and say so.

    How long messages are kept is for whoever runs Kafka to decide: a short time is only said.
    """
    topics = ConfigResourceType.TOPIC
    asked = [ConfigResource(topics, name, [*wanted, RETENTION]) for name, wanted in TOPICS.items()]
    settings = topic_configs(admin, asked)
    if hidden := [name for name in TOPICS if not settings.get(name)]:
        yield (
            f"the settings of {', '.join(hidden)} can't be checked: give this user the right to "
            "DESCRIBE_CONFIGS of them"
        )
    for name, wanted in TOPICS.items():
        actual = settings.get(name, {})
        kept = int(actual.get(RETENTION, -1))  # -1: for ever
        if 0 <= kept < SHORT / timedelta(milliseconds=1):
            yield (
                f"the topic {name} keeps messages for {timedelta(milliseconds=kept)} only: Kafka "
                f"deletes what no stage has read by then; raise its {RETENTION}={kept}"
            )
        wrong = {
            key: value
            for key, value in wanted.items()
            if key in actual and not _fits(key, actual[key], value)
        }
        if not wrong:
            continue
        answer = admin.alter_configs([ConfigResource(topics, name, wrong)], raise_on_unknown=False)
        error = answer["topic"][name]
        for key, value in wrong.items():
            before, required = f"{key}={actual[key]}", f"{key}={value}"
            if error == "OK":
                yield f"the topic {name} had {before}; now {required}"
            else:
                yield f"the topic {name} has {before}: set {required}; Kafka refuses: {error}"


def _fits(key: str, value: str, wanted: str) -> bool:
    """Whether a topic's setting will do."""
    if key == COMPRESSION:
        return value in READABLE
    return int(value) >= int(wanted) if key == LARGEST else value == wanted
