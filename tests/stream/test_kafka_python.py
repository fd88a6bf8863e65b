"""The faults of kafka-python that we work around: each test fails without its work-around."""

import socket
import threading

import pytest
from kafka import KafkaAdminClient, KafkaConsumer
from kafka.errors import KafkaConnectionError, KafkaError
from kafka.net.transport import KafkaTCPTransport

import pipeline.stream.kafka_python  # noqa: F401


def test_what_is_said_right_before_the_end() -> None:
    """What a broker sends and the end of the connection come after each other, none is lost."""
    broker, client = socket.socketpair()
    client.setblocking(False)
    broker.sendall(b"why not")
    broker.close()
    transport = KafkaTCPTransport(None, client)
    assert transport._sock_recv() == (b"why not", None)
    received, error = transport._sock_recv()
    assert received == b""
    assert isinstance(error, KafkaConnectionError)
    client.close()


def test_a_question_makes_no_topic(bootstrap_servers: str) -> None:
    """A client that asks for a topic does not have it made, whatever the broker would do."""
    consumer = KafkaConsumer("nobody-has-it", bootstrap_servers=bootstrap_servers)
    request = consumer._client.cluster.metadata_request()
    assert request.allow_auto_topic_creation is False
    consumer.close()


def test_a_client_that_cannot_connect_leaves_no_thread() -> None:
    """While Kafka is away, each question that fails takes its thread along."""
    before = threading.active_count()
    for client in (KafkaAdminClient, KafkaConsumer):
        with pytest.raises(KafkaError):
            client(bootstrap_servers="localhost:1", bootstrap_timeout_ms=300)
    assert threading.active_count() == before
