"""The Kafka of `run` and the other commands where no other is named: the embedded one.

Programs that work on the same data share it: the first starts it, the others join, and it ends with
the last of them, however that ends.
"""

import atexit
import dataclasses
import socket
import sys
from contextlib import ExitStack
from pathlib import Path

from kafka import KafkaAdminClient
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

import embedded_kafka
from pipeline.errors import FatalError
from pipeline.settings import REPOSITORY, Location, Settings
from pipeline.stages import CONSUMING_STAGES
from pipeline.store.names import digest
from pipeline.stream.kafka_python import TRANSIENT

GROUPS_SECONDS = 30

_until_exit = ExitStack()
atexit.register(_until_exit.close)


def topics_of(data: Location) -> Path:
    """The directory of the embedded Kafka: each data directory or URL has its own."""
    if data.directory:
        return data.directory / ".kafka"
    return REPOSITORY / f".kafka-{digest(str(data).encode())[:16]}"


def use_own(settings: Settings, program: str, closing: ExitStack) -> embedded_kafka.SharedBroker:
    """The embedded Kafka of the data, until the stack is closed. Raises `FatalError`."""
    try:
        return closing.enter_context(embedded_kafka.use(topics_of(settings.data)))
    except embedded_kafka.KafkaStartError as error:
        raise FatalError(f"{program}: {error}") from error


def find_kafka(settings: Settings, command: str) -> Settings:
    """The settings with the Kafka that the command is to ask; what it starts ends with it.

    That is the Kafka that the settings name; or the embedded Kafka of the data, if it runs; or what
    listens at the usual address; or else the embedded Kafka, which is started. Raises `FatalError`.
    """
    topics = topics_of(settings.data)
    if settings.is_kafka_named:
        return settings
    if not embedded_kafka.runs_on(topics):
        if _listens(settings):
            return settings
        where = settings.bootstrap_servers
        line = f"{command}: nothing listens at {where}; starting the embedded Kafka on {topics}"
        print(line, file=sys.stderr)  # where it is in nobody's way who reads the other lines
    broker = use_own(settings, command, _until_exit)
    if broker.own:
        _wait_for_groups(broker.bootstrap_servers)
    return dataclasses.replace(settings, bootstrap_servers=broker.bootstrap_servers)


def _wait_for_groups(server: str) -> None:
    """Wait until Kafka can be asked about groups: it listens a moment before it has read them."""
    admin = KafkaAdminClient(bootstrap_servers=server)
    asking = Retrying(
        retry=retry_if_exception_type(TRANSIENT),
        stop=stop_after_delay(GROUPS_SECONDS),
        wait=wait_fixed(0.05),
        reraise=True,
    )
    asking(admin.list_group_offsets, [CONSUMING_STAGES[0].name])
    admin.close()


def _listens(settings: Settings) -> bool:
    """Whether something listens at the usual address."""
    host, _, port = settings.bootstrap_servers.rpartition(":")
    try:
        socket.create_connection((host, int(port)), 2).close()
    except OSError:
        return False
    return True
