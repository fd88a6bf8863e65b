"""Work-arounds for faults of kafka-python 3.0.12, each with where it is in its source."""

from collections.abc import Callable

from kafka.cluster import ClusterMetadata
from kafka.net.transport import KafkaSSLTransport, KafkaTCPTransport

# A client that asks for a topic which isn't there would make it, with the broker's defaults. The
# option of this name is not handed on (net/manager.py), so its default goes.
ClusterMetadata.DEFAULT_CONFIG["allow_auto_create_topics"] = False

# What a broker says right before it closes the connection, such as why it refuses a login, is
# thrown away where both are read together (_read_from_sock in net/transport.py). So what was said
# is given first; the end of the connection is found again by the next read.
Receive = Callable[[KafkaTCPTransport], tuple[bytes, Exception | None]]


def _before_the_end(receive: Receive) -> Receive:
    def receive_before_the_end(transport: KafkaTCPTransport) -> tuple[bytes, Exception | None]:
        received, error = receive(transport)
        return (received, None) if received else (received, error)

    return receive_before_the_end


for _transport in (KafkaTCPTransport, KafkaSSLTransport):
    _transport._sock_recv = _before_the_end(_transport._sock_recv)
