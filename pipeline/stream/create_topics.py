"""The topics of the pipeline: made where they are missing, checked where somebody else made them.

A broker that makes topics by itself gives them its own defaults as soon as any client asks for one.
Those may not fit: too few partitions, too little room for a dead letter, or a clean-up that deletes
all but the newest message of each source.
"""

import time
from dataclasses import dataclass, field

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

PARTITIONS = 16
CLEANUP = "cleanup.policy"
LARGEST = "max.message.bytes"
KEEP_ALL = {CLEANUP: "delete"}  # after the retention time, never only the newest of each key
TOPICS: dict[str, dict[str, str]] = {
    **{topic: KEEP_ALL for stage in STAGES for topic in (stage.publishes, *stage.also_publishes)},
    # A record at Kafka's limit of 1 MiB must fit with the headers that we add.
    DEAD_LETTERS: {**KEEP_ALL, LARGEST: str(2 * 2**20)},
}


TopicIds = dict[str, str | None]  # by topic; one that is made again has another; Kafka 2.8 or newer


@dataclass
class Findings:
    """What was wrong with topics that were there, as lines for people."""

    changed: list[str] = field(default_factory=list)  # is right now
    kept: list[str] = field(default_factory=list)  # is as it was, and what to do


def create_topics(admin: KafkaAdminClient) -> TopicIds:
    """Make the missing topics; the ids of all. Raises `KafkaError`."""
    missing = TOPICS.keys() - set(admin.list_topics())
    if missing:
        new = {topic: {"num_partitions": PARTITIONS, "configs": TOPICS[topic]} for topic in missing}
        for made in admin.create_topics(new, raise_errors=False)["topics"]:
            error = for_code(made["error_code"])
            # Another stage may make them at the same time.
            if error not in (NoError, TopicAlreadyExistsError):
                raise error(f"cannot make the topic {made['name']}: {made['error_message']}")
        admin.wait_for_topics(list(missing))
    return {one["name"]: one.get("topic_id") for one in admin.describe_topics(list(TOPICS))}


def check_topics(admin: KafkaAdminClient) -> Findings:
    """Put topics right that somebody else has made, where Kafka allows it. Raises `KafkaError`."""
    findings = Findings()
    _check_partitions(admin, findings)
    _check_settings(admin, findings)
    return findings


def _check_partitions(admin: KafkaAdminClient, findings: Findings) -> None:
    """Give a topic all its partitions while it has no messages, which would change theirs."""
    for topic in admin.describe_topics(list(TOPICS)):
        name, number = topic["name"], len(topic["partitions"])
        have_leaders = all(one["leader_id"] >= 0 for one in topic["partitions"])
        if not 0 < number < PARTITIONS or not have_leaders:
            continue
        partitions = [TopicPartition(name, partition) for partition in range(number)]
        ends = admin.list_partition_offsets(dict.fromkeys(partitions, OffsetSpec.LATEST))
        what = f"the topic {name} has {number} partitions instead of {PARTITIONS}"
        if any(end.offset for end in ends.values()):
            findings.kept.append(
                f"{what}, and messages, so they stay: at most {number} copies of a stage share them"
            )
            continue
        try:
            admin.create_partitions({name: PARTITIONS})
        except InvalidPartitionsError:
            pass  # another program has just added them
        except AuthorizationError:
            findings.kept.append(f"{what}; give this user the right to ALTER it, or add them")
        except BrokerResponseError as error:
            findings.kept.append(f"{what}; Kafka does not add them: {error}")
        else:
            _wait_for_partitions(admin, name)
            findings.changed.append(f"the topic {name} had {number} partitions; now {PARTITIONS}")


def _wait_for_partitions(admin: KafkaAdminClient, name: str) -> None:
    """Wait until brokers tell of them: a consumer asks once, and then only every five minutes."""
    end = time.monotonic() + 10
    while len(admin.describe_topics([name])[0]["partitions"]) < PARTITIONS:
        if time.monotonic() > end:
            raise KafkaTimeoutError(f"the partitions added to {name} did not come in 10 s")
        time.sleep(0.05)


def _check_settings(admin: KafkaAdminClient, findings: Findings) -> None:
    """Set what somebody else's settings would spoil."""
    topics = ConfigResourceType.TOPIC
    asked = [ConfigResource(topics, name, list(wanted)) for name, wanted in TOPICS.items()]
    settings = admin.describe_configs(asked, config_filter="all").get("topic", {})
    # kafka-python leaves out why a topic's settings were not given: the right is missing.
    if hidden := [name for name in TOPICS if not settings.get(name)]:
        findings.kept.append(
            f"the settings of {', '.join(hidden)} can't be checked: give this user the right to "
            "DESCRIBE_CONFIGS of them"
        )
    for name, wanted in TOPICS.items():
        has = {key: setting["value"] for key, setting in settings.get(name, {}).items()}
        wrong = {
            key: value
            for key, value in wanted.items()
            if key in has and not _fits(key, has[key], value)
        }
        if not wrong:
            continue
        was = ", ".join(f"{key}={has[key]}" for key in wrong)
        must = ", ".join(f"{key}={value}" for key, value in wrong.items())
        answer = admin.alter_configs([ConfigResource(topics, name, wrong)], raise_on_unknown=False)
        error = answer["topic"][name]
        if error == "OK":
            findings.changed.append(f"the topic {name} had {was}; now {must}")
        else:
            findings.kept.append(f"the topic {name} has {was}: set {must}; Kafka refuses: {error}")


def _fits(key: str, value: str, wanted: str) -> bool:
    """Whether a topic's setting will do."""
    return int(value) >= int(wanted) if key == LARGEST else value == wanted
