"""Analyse images, the plain way: decode both, subtract, take the norm."""

import json
import os

import numpy as np
from kafka import KafkaConsumer, KafkaProducer
from PIL import Image

server = os.environ["KAFKA_BOOTSTRAP_SERVERS"]
producer = KafkaProducer(bootstrap_servers=server)
consumer = KafkaConsumer(
    "plain-images",
    bootstrap_servers=server,
    group_id="plain-analysis",
    auto_offset_reset="earliest",
)

previous = None
for record in consumer:
    message = json.loads(record.value)
    path, image_id = message["path"], message["image_id"]
    if previous is not None:
        before = np.asarray(Image.open(previous), dtype=np.float64)
        after = np.asarray(Image.open(path), dtype=np.float64)
        difference = after - before
        l2_norm = float(np.linalg.norm(difference))
        if l2_norm > 0:
            event = f"image_event_database/image_event_{image_id}"
            with open(f"{event}.txt", "w") as file:
                file.write(f"Image: {path}\nPrevious image: {previous}\nL2 norm: {l2_norm}\n")
            Image.fromarray(np.abs(difference).astype(np.uint8)).save(f"{event}.jpg")
            event_message = {
                "event_id": image_id,
                "image_id": image_id,
                "path": f"{event}.txt",
                "l2_norm": l2_norm,
                "received": message["received"],
            }
            producer.send("plain-image-events", json.dumps(event_message).encode())
            producer.flush()
            print(f"{path} has changed, L2 norm {l2_norm}")
    previous = path
