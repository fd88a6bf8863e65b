"""Anybody can read the alerts: the consumers of examples/, typed as their page says."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import HERE, Pipeline, Program
from kafka import KafkaProducer

import embedded_kafka

EXAMPLES = HERE / "examples"
# What a new user has: no package, module path or setting of ours.
KEPT = ("PATH", "HOME", "LANG", "TMPDIR", "PIP_", "REQUESTS_", "SSL_", "HTTP", "GO", "JAVA_HOME")
CLEAN = {name: value for name, value in os.environ.items() if name.startswith(KEPT)}

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("examples")]


@pytest.fixture(scope="module")
def alerted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """Two alerts, and between them one of a transaction that was aborted."""
    data = tmp_path_factory.mktemp("data")
    shutil.copytree(HERE / "image_original", data / "image_original")
    for name in ("image_database", "image_event_database", "image_event_alerts"):
        (data / name).mkdir()
    broker = embedded_kafka.start(data / ".kafka", embedded_kafka.free_port())
    pipeline = Pipeline(data, broker.bootstrap_servers)
    pipeline.start("image_analysis.py")
    pipeline.start("image_event_alert.py")
    pipeline.receive("--count", "4")
    pipeline.waits_for("alerts", 1)
    never = KafkaProducer(bootstrap_servers=broker.bootstrap_servers, transactional_id="never")
    never.init_transactions()
    never.begin_transaction()
    never.send("alerts", b'{"event_id":"aborted"}', b"").get(30)
    never.abort_transaction()
    never.close()
    pipeline.receive("--count", "4")
    pipeline.waits_for("alerts", 2)
    yield pipeline
    pipeline.close()
    broker.stop()


def sections(page: str) -> dict[str, list[str]]:
    """What is typed below each heading of a page that has commands."""
    parts = re.split(r"^## (.*)\n", (HERE / page).read_text(), flags=re.MULTILINE)[1:]
    found = dict(zip(parts[::2], parts[1::2], strict=True))
    return {
        heading: re.findall(r"^\$ (.*)", text, re.MULTILINE)
        for heading, text in found.items()
        if "```console" in text
    }


def prints_each_alert_once(alerted: Pipeline, directory: Path, commands: list[str]) -> None:
    """Type the commands in the directory; the last must print the alerts, and each new one."""
    subprocess.run([sys.executable, "-m", "venv", directory / "clients"], check=True)
    path = f"{directory}/clients/bin:{os.environ['PATH']}"
    environment = {**CLEAN, "PATH": path, "PYTHONUNBUFFERED": "1"}
    *installing, last = commands
    for command in installing:
        ended = subprocess.run(
            ["bash", "-c", command],
            cwd=directory,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
    process = subprocess.Popen(
        ["bash", "-c", f"exec {last.replace('localhost:9092', alerted.bootstrap_servers)}"],
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # `go run` starts the program that it has built
    )
    consumer = Program(process)
    try:
        consumer.says('"event_id":"00007"')
        later = f"later-{len(alerted.records('alerts'))}"
        alerted.put("alerts", f'{{"event_id":"{later}"}}'.encode())
        consumer.says(later)
    finally:
        with suppress(ProcessLookupError):  # it has ended by itself
            os.killpg(process.pid, signal.SIGKILL)
        consumer.ends()
    printed = [line for line in consumer.lines if line.startswith('{"')]
    assert printed == [record.value.decode() for record in alerted.records("alerts")]


HEADINGS = [
    pytest.param(heading, marks=() if heading.startswith("Python") else pytest.mark.languages)
    for heading in sections("examples/README.md")
]


@pytest.mark.parametrize("heading", HEADINGS)
def test_each_example(alerted: Pipeline, tmp_path: Path, heading: str) -> None:
    """Typed letter by letter, it prints each committed alert once, with the plain client alone."""
    for example in EXAMPLES.iterdir():
        text = example.read_text().replace("localhost:9092", alerted.bootstrap_servers)
        (tmp_path / example.name).write_text(text)
    prints_each_alert_once(alerted, tmp_path, sections("examples/README.md")[heading])


def test_the_consumer_of_the_page(alerted: Pipeline, tmp_path: Path) -> None:
    """The one of docs/messages.md runs with what the page installs, and nothing else."""
    page = (HERE / "docs" / "messages.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    consumer = code.replace("localhost:9092", alerted.bootstrap_servers)
    (tmp_path / "consumer.py").write_text(consumer)
    prints_each_alert_once(
        alerted, tmp_path, sections("docs/messages.md")["A consumer of your own"]
    )
