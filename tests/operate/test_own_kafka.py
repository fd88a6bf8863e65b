"""Where no Kafka is named: the commands start the embedded one, and those at once share it."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import HERE, Pipeline, until

COMMANDS = """
set -e
ip link set lo up
run_pipeline.sh --count 4 >/dev/null
for command in audit lag "why 00003" notifications dead-letters; do
    echo "== $command"
    "$PYTHON" -m pipeline $command
done
"""


@pytest.fixture
def alone(data: Path) -> Iterator[Pipeline]:
    """A data directory without a Kafka."""
    alone = Pipeline(data, "")
    yield alone
    alone.close()
    until(lambda: not uses_of(data), "Kafka's end")


def uses_of(data: Path) -> list[str]:
    """The processes that work on the data directory's Kafka."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink() == data / ".kafka":
                found.append(process.name)
        except OSError:
            continue
    return found


@pytest.mark.slow
@pytest.mark.root
def test_the_commands_show_what_a_run_has_left(alone: Pipeline) -> None:
    """Each starts the embedded Kafka where nothing listens, says so in one line, and ends it."""
    # In a network of its own, where nobody else listens at port 9092.
    ended = subprocess.run(
        ["unshare", "--net", "sh", "-c", COMMANDS],
        env=alone.environment
        | {"PATH": f"{HERE}:{alone.environment['PATH']}", "PYTHON": sys.executable}
        | {"PYTHONPATH": str(HERE)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout
    printed = dict(part.split("\n", 1) for part in ended.stdout.split("== ")[1:])
    starting = f"nothing listens at localhost:9092; starting the embedded Kafka on {alone.data}"
    for command, text in printed.items():
        assert text.startswith(f"{command.split()[0]}: {starting}/.kafka\n"), ended.stdout
        assert "away" not in text
    assert "images         4" in printed["audit"]
    assert "compared with 00002" in printed["why 00003"]
    assert "image_event_alert" in printed["lag"]
    assert "0 recipients" in printed["notifications"]
    assert "0 dead letters" in printed["dead-letters"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_second_run_joins_the_first(alone: Pipeline, number: int) -> None:
    """It uses the same Kafka, also when the first ends, in whatever way; so do the commands."""
    script = str(HERE / "run_pipeline.sh")
    first = alone.start(script, "--count", "9999", "--interval", "0.1")
    first.says("image_analysis .*CHANGED")
    second = alone.start(script, "--source", "cam1", "--count", "100", "--interval", "0.1")
    second.says("embedded Kafka at localhost:[0-9]+, which runs already, topics in ")
    # The stages of both share the work, so that either may be the one that says it.
    until(lambda: "image_event_alert_cam1-00003.txt" in alone.files("image_event_alerts"), "it")
    first.process.send_signal(number)
    first.process.wait()
    lag = alone.command("lag")
    assert lag.ends() == 0, lag
    assert "nothing listens" not in lag.output
    assert second.ends() == 0, second
    assert "image_event_alert_cam1-00099.txt" in alone.files("image_event_alerts")
    until(lambda: not uses_of(alone.data), "Kafka's end")
    third = alone.start(script, "--source", "cam2", "--count", "4")
    assert third.ends() == 0, third
