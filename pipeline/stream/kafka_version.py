"""Which release line of Kafka a broker is of, and whether that line is known to lose messages.

A broker does not say its version, but which features it supports. Of these, `metadata.version` has
a higher level in each release line.
"""

from contextlib import suppress

from kafka import KafkaAdminClient
from kafka.errors import KafkaError

# The lowest level of `metadata.version` of each release line, from Kafka's class MetadataVersion.
# A broker supports a level of its own line and none above: 4.0.1 says 25, 4.1.1 27, 4.2.1 29,
# 4.3.1 30 and 4.4.0 33.
FIRST_LEVELS = {"4.0": 22, "4.1": 26, "4.2": 28, "4.3": 30, "4.4": 31}
FIRST_UNKNOWN = 34  # reserved for 4.5

LOSING = {"4.3", "4.4"}


def version_of(admin: KafkaAdminClient) -> str:
    """The release line of the broker that answers, such as "4.2".

    Outside of the lines that are known here it is "older than 4.0" or "newer than 4.4", and empty
    if the broker doesn't say. Raises `KafkaError`, also if the broker is too old to be asked.
    """
    _, level = admin.describe_features().get("metadata.version", {}).get("supported", (0, 0))
    if level == 0:
        return ""
    if level >= FIRST_UNKNOWN:
        return f"newer than {max(FIRST_LEVELS)}"
    lines = [line for line, first in FIRST_LEVELS.items() if first <= level]
    return max(lines, default=f"older than {min(FIRST_LEVELS)}")


def warning(admin: KafkaAdminClient) -> str:
    """One line if the broker's release line is known to lose acknowledged transactions, or nothing.

    A newer line than those known here gets no warning, since whether it has the fault can only be
    found by trying, and people learn to ignore warnings that may be wrong. A broker that doesn't
    say, or can't be asked, gets none, either.
    """
    line = ""
    with suppress(KafkaError):
        line = version_of(admin)
    if line not in LOSING:
        return ""
    return (
        f"Kafka {line} can lose a transaction that it has acknowledged when it is killed "
        "(KAFKA-20734); use Kafka 4.2.1"
    )
