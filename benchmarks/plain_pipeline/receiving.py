"""Receive images, the plain way: store each, publish it, flush.

    python receiving.py --count N [--interval SECONDS]

The three programs here are what one writes first with kafka-python and Pillow: a message at a time,
commits left to the library, nothing against crashes. They work on the directory that they run in.
"""

import argparse
import json
import os
import shutil
import time
from datetime import UTC, datetime

from kafka import KafkaProducer
from PIL import Image

parser = argparse.ArgumentParser()
parser.add_argument("--count", type=int, default=11)
parser.add_argument("--interval", type=float, default=0)
options = parser.parse_args()

producer = KafkaProducer(bootstrap_servers=os.environ["KAFKA_BOOTSTRAP_SERVERS"])
first = len(os.listdir("image_database"))
previous = "image_original/original_image.jpg"
if first > 0:
    previous = f"image_database/{first - 1:05d}.jpg"

began = time.monotonic()
for number in range(first, first + options.count):
    time.sleep(max(0, began + (number - first) * options.interval - time.monotonic()))
    received = datetime.now(UTC)
    path = f"image_database/{number:05d}.jpg"
    if number % 4 == 3:
        turned = Image.open(previous).transpose(Image.Transpose.ROTATE_90)
        turned.save(path, quality=95)
    else:
        shutil.copy(previous, path)
    message = {
        "image_id": f"{number:05d}",
        "number": number,
        "path": path,
        "received": received.isoformat(),
    }
    producer.send("plain-images", json.dumps(message).encode())
    producer.flush()
    print(f"received {path}")
    previous = path
