"""Run the pipeline at full speed for a while and see whether its processes stay as they were.

    .venv/bin/python tools/soak.py [MINUTES]

One receiver, one copy of each stage and an embedded Kafka, on images of 256 x 256. A third on the
way each stage is stopped and started again, at two thirds Kafka and both stages are killed. Prints
resident memory (MB), threads and open files of each process in ten steps, then the counts; images
that have long been analysed are deleted. Ends with 1 if anything is lost or there twice.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from kafka import TopicPartition
from PIL import Image

HERE = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(HERE))

import embedded_kafka  # noqa: E402 (found beside this directory)
from pipeline.messages import ALERTS, IMAGE_EVENTS, IMAGES, MESSAGE_TYPES, parse  # noqa: E402
from pipeline.settings import Location, Settings  # noqa: E402
from pipeline.stop_signal import StopSignal  # noqa: E402
from pipeline.stream.connection import Kafka  # noqa: E402
from pipeline.stream.topic_reader import TopicReader  # noqa: E402

STAGES = ("image_analysis", "image_event_alert")
DIRECTORIES = ("image_original", "image_database", "image_event_database", "image_event_alerts")
STEPS = 10
KEPT = 5000  # images behind the newest event


def state(pid: int) -> str:
    """Resident memory in MB, threads and open files of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    memory = int(fields["VmRSS"].split()[0]) / 1024
    return f"{memory:.0f} MB {fields['Threads'].strip()} {len(os.listdir(f'/proc/{pid}/fd'))}"


def prune(data: Path) -> None:
    """Delete the images that nobody looks at any more, again and again."""
    oldest = 0
    while True:
        newest = oldest + KEPT
        alert = "image_event_alerts/image_event_alert_{:05d}.txt"
        while (data / alert.format(newest | 3)).exists():
            newest += 4
        for number in range(oldest, newest - KEPT):
            (data / f"image_database/{number:05d}.jpg").unlink(missing_ok=True)
        oldest = newest - KEPT
        time.sleep(5)


class Soak:
    """The programs and the Kafka that run."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.broker = embedded_kafka.start(data / ".kafka", embedded_kafka.free_port())
        self._environment = {
            "KAFKA_BOOTSTRAP_SERVERS": self.broker.bootstrap_servers,
            "PIPELINE_DATA": str(data),
        }
        self.programs: dict[str, subprocess.Popen[bytes]] = {}
        self.start_stages()
        self.start("image_receiving", "--count", "999999999")

    def start(self, name: str, *arguments: str) -> None:
        """Start one of the three programs, its lines in a file."""
        with (self.data / f"{name}.log").open("ab") as log:
            command = [sys.executable, str(HERE / f"{name}.py"), *arguments]
            environment = os.environ | self._environment
            self.programs[name] = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def start_stages(self) -> None:
        """Start both stages."""
        for name in STAGES:
            self.start(name)

    def restart_stages(self) -> None:
        """Stop both stages as Ctrl-C does and start them again."""
        print("each stage is stopped and started again", flush=True)
        for name in STAGES:
            self.programs[name].terminate()
            self.programs[name].wait()
        self.start_stages()

    def kill(self) -> None:
        """Kill Kafka and both stages and start them again."""
        print("Kafka and both stages are killed and started again", flush=True)
        for process in (self.broker.process, *(self.programs[name] for name in STAGES)):
            process.kill()
            process.wait()
        self.broker = embedded_kafka.start(self.data / ".kafka", self.broker.port)
        self.start_stages()

    def sample(self) -> str:
        """How each process is."""
        pids = {name: program.pid for name, program in self.programs.items()}
        pids["Kafka"] = self.broker.process.pid
        return "   ".join(f"{name} {state(pid)}" for name, pid in pids.items())

    def end(self) -> None:
        """End all."""
        for program in self.programs.values():
            program.terminate()
            program.wait()
        self.broker.stop()


def count(server: str, data: Path) -> dict[str, Counter[int]]:
    """How often each topic has each number, once the stages have caught up."""
    kafka = Kafka(Settings(server, {}, 60, Location(str(data))), StopSignal())
    numbers = {}
    with kafka.connect(TopicReader) as topics:
        for topic in (IMAGES, IMAGE_EVENTS, ALERTS):
            ends: dict[TopicPartition, int] = {}
            while ends != topics.end_offsets(topic):
                ends = topics.end_offsets(topic)
                time.sleep(20)
            records = topics.read(topics.beginning_offsets(topic), ends)
            numbers[topic] = Counter(
                parse(one.value, MESSAGE_TYPES[topic]).number for one in records
            )
            print(f"{topic}: {numbers[topic].total()} messages, {len(numbers[topic])} numbers")
    return numbers


def main() -> None:
    """Run, sample, count."""
    seconds = 60 * float(sys.argv[1] if len(sys.argv) > 1 else 60)
    data = Path(tempfile.mkdtemp(prefix="image-pipeline-soak-"))
    for name in DIRECTORIES:
        (data / name).mkdir()
    with Image.open(HERE / "image_original" / "original_image.jpg") as image:
        image.resize((256, 256)).save(data / "image_original" / "original_image.jpg")
    soak = Soak(data)
    threading.Thread(target=prune, args=[data], daemon=True).start()
    began = time.monotonic()
    for step in range(1, STEPS + 1):
        time.sleep(max(0, began + seconds * step / STEPS - time.monotonic()))
        print(f"{(time.monotonic() - began) / 60:5.1f} min   {soak.sample()}", flush=True)
        if step == STEPS // 3:
            soak.restart_stages()
        elif step == 2 * STEPS // 3:
            soak.kill()
    soak.programs["image_receiving"].terminate()
    soak.programs["image_receiving"].wait()
    numbers = count(soak.broker.bootstrap_servers, data)
    soak.end()
    images = range(numbers[IMAGES].total())
    changes = Counter(number for number in images if number % 4 == 3)
    if (
        numbers[IMAGES] != Counter(images)
        or not numbers[IMAGE_EVENTS] == numbers[ALERTS] == changes
    ):
        sys.exit(f"something is lost or twice; see {data}")
    print(f"nothing lost, nothing twice; {len(images) / seconds:.0f} images/s")
    shutil.rmtree(data)


if __name__ == "__main__":
    main()
