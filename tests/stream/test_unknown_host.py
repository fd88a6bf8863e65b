"""A Kafka that names an address for itself which this computer can't use."""

from pathlib import Path

import pytest
from conftest import Pipeline

import embedded_kafka


def test_a_bootstrap_host(lone: Pipeline) -> None:
    """A host in the settings that can't be found is named as what it is."""
    lag = lone.command("lag", KAFKA_WAIT="0", KAFKA_BOOTSTRAP_SERVERS="kafka.nowhere.invalid:9")
    assert lag.ends() == 1, lag
    assert "this computer finds no host kafka.nowhere.invalid" in lag.lines[-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("kafka.nowhere.invalid", "this computer finds no host of this name"),
        ("127.0.0.9", "111 ECONNREFUSED"),
    ],
)
def test_an_advertised_host(data: Path, tmp_path: Path, host: str, why: str) -> None:
    """The address is named, and what to do about it."""
    port = embedded_kafka.free_port()
    properties = [f"advertised.listeners=PLAINTEXT://{host}:{port}"]
    broker = embedded_kafka.start(tmp_path / "kafka", port, properties)
    pipeline = Pipeline(data, broker.bootstrap_servers)
    lag = pipeline.command("lag", KAFKA_WAIT="4")
    assert lag.ends() == 1, lag
    broker.stop()
    assert f"{host}:{port}: {why}" in lag.lines[-1]
    assert "advertised.listeners in its settings" in lag.lines[-1]
