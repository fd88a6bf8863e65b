"""Print the alerts as they come, with kafka-python."""

from kafka import KafkaConsumer

for record in KafkaConsumer(
    "alerts",
    bootstrap_servers="localhost:9092",
    auto_offset_reset="earliest",
    isolation_level="read_committed",
):
    print(record.value.decode())
