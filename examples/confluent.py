"""Print the alerts as they come, with confluent-kafka, which reads committed ones by default."""

from confluent_kafka import Consumer

settings = {"bootstrap.servers": "localhost:9092", "group.id": "alerts-confluent"}
consumer = Consumer({**settings, "auto.offset.reset": "earliest"})
consumer.subscribe(["alerts"])
while True:
    record = consumer.poll(1)
    if record and not record.error():
        print(record.value().decode())
