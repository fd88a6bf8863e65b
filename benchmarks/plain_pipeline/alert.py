"""Alert of image events, the plain way: a file and a message for each."""

import json
import os

from kafka import KafkaConsumer, KafkaProducer

server = os.environ["KAFKA_BOOTSTRAP_SERVERS"]
producer = KafkaProducer(bootstrap_servers=server)
consumer = KafkaConsumer(
    "plain-image-events",
    bootstrap_servers=server,
    group_id="plain-alert",
    auto_offset_reset="earliest",
)

for record in consumer:
    event = json.loads(record.value)
    with open(event["path"]) as file:
        text = file.read()
    path = f"image_event_alerts/image_event_alert_{event['event_id']}.txt"
    with open(path, "w") as file:
        file.write(f"Alert: image {event['image_id']} has changed\n{text}")
    alert = {
        "event_id": event["event_id"],
        "image_id": event["image_id"],
        "path": path,
        "received": event["received"],
    }
    producer.send("plain-alerts", json.dumps(alert).encode())
    producer.flush()
    print(f"alert {path}")
