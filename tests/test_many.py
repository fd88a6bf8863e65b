"""Many sources and many copies: each source in order, each image once, whoever comes and goes."""

import random
import re
import signal
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from conftest import HERE, TOPICS, Pipeline, Program, delete_topics, until
from kafka import KafkaAdminClient, TopicPartition
from kafka.errors import TopicAlreadyExistsError
from PIL import Image

SOURCES = [f"cam{number}" for number in range(1, 9)]


def all_is_there_once(pipeline: Pipeline, counts: dict[str, int]) -> None:
    """Of each source so many images, in order, and each change as one event and one alert."""
    images = [f"{source}-{n:05d}" for source in counts for n in range(counts[source])]
    changes = [f"{source}-{n:05d}" for source in counts for n in range(3, counts[source], 4)]
    assert pipeline.ids("images") == sorted(images)
    assert pipeline.ids("image-events") == sorted(changes)
    assert pipeline.ids("alerts") == sorted(changes)
    assert pipeline.records("dead-letters") == []
    assert pipeline.files("image_event_alerts") == sorted(
        f"image_event_alert_{name}.txt" for name in changes
    )
    for topic in ("images", "image-events", "alerts"):
        order = defaultdict(list)
        partitions = defaultdict(set)
        for record in pipeline.records(topic):
            name = msgspec.json.decode(record.value)["image_id"]
            order[record.key].append(name)
            partitions[record.key].add(record.partition)
        assert all(names == sorted(names) for names in order.values())
        assert {len(found) for found in partitions.values()} <= {1}
    for program in pipeline.started:
        assert "Traceback" not in program.output


@pytest.fixture
def small(pipeline: Pipeline) -> Pipeline:
    """The pipeline with a small original, for many images."""
    path = pipeline.data / "image_original" / "original_image.jpg"
    with Image.open(path) as image:
        image.resize((64, 64)).save(path)
    return pipeline


@pytest.mark.slow
def test_eight_sources_and_copies_that_come_and_go(small: Pipeline) -> None:
    """Copies of both stages are killed and added in the middle; counts are exact."""
    chance = random.Random(1)
    names = ("image_analysis.py", "image_event_alert.py")
    copies = [(name, small.start(name)) for name in names for _ in range(2)]
    receiving = small.start("image_receiving.py", "--sources", "8", "--count", "800")
    receiving.says("received")
    for _ in range(5):
        wanted = len(small.files("image_event_alerts")) + 20
        name, copy = copies.pop(chance.randrange(len(copies)))
        copy.process.kill()
        copies += [(name, small.start(name)) for _ in range(chance.randint(1, 2))]
        until(partial(has_alerts, small, wanted), "alerts go on")
    assert receiving.ends() == 0, receiving
    small.waits_for("alerts", 8 * 200)
    all_is_there_once(small, dict.fromkeys(SOURCES, 800))


def has_alerts(pipeline: Pipeline, count: int) -> bool:
    """Whether as many alerts have been stored."""
    return len(pipeline.files("image_event_alerts")) >= count


@pytest.mark.slow
def test_sources_by_their_names(small: Pipeline) -> None:
    """--source may be given several times; one that is given twice counts once."""
    small.start("image_analysis.py")
    small.start("image_event_alert.py")
    receiving = small.receive("--source", "a", "--source", "b", "--source", "a", "--count", "8")
    assert "received 16 images" in receiving.lines[-1]
    small.waits_for("alerts", 4)
    all_is_there_once(small, {"a": 8, "b": 8})


@pytest.mark.slow
def test_a_source_that_sends_a_hundred_times_more(small: Pipeline) -> None:
    """The others don't wait for it, and all counts are exact."""
    for name in ("image_analysis.py", "image_event_alert.py"):
        for _ in range(2):
            small.start(name)
    much = small.start("image_receiving.py", "--source", "much", "--count", "3000")
    much.says("received")
    small.receive("--source", "a", "--source", "b", "--source", "c", "--count", "30")
    assert much.ends() == 0, much
    small.waits_for("alerts", 750 + 3 * 7)
    all_is_there_once(small, {"much": 3000, "a": 30, "b": 30, "c": 30})


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_receivers_of_many_sources_are_killed(small: Pipeline, seed: int) -> None:
    """Whatever sources the next run names, each source's own remainder is published by its next."""
    chance = random.Random(seed)
    for sources in (["a", "b", "c"], ["b", "c"], ["a", "c"]):
        arguments = [part for name in sources for part in ("--source", name)]
        receiving = small.start("image_receiving.py", "--count", "900", *arguments)
        receiving.says("received")
        try:
            receiving.process.wait(chance.uniform(0, 0.5))
        except Exception:
            receiving.process.kill()
        receiving.ends()
    small.receive("--count", "1", "--source", "a", "--source", "b", "--source", "c")
    stored = Counter(name.split("-")[0] for name in small.files("image_database"))
    files, ids = small.files("image_database"), [f"{name}.jpg" for name in small.ids("images")]
    assert (Counter(files) - Counter(ids), Counter(ids) - Counter(files)) == ({}, {})
    small.start("image_analysis.py")
    small.start("image_event_alert.py")
    small.waits_for("alerts", sum(len(range(3, count, 4)) for count in stored.values()))
    all_is_there_once(small, dict(stored))


@pytest.mark.slow
def test_more_copies_than_partitions(small: Pipeline) -> None:
    """Those that find nothing to take wait, harm nobody, and take over when others die."""
    admin = KafkaAdminClient(bootstrap_servers=small.bootstrap_servers)
    until(partial(have_two_partitions, admin, small), "topics of two partitions")
    admin.wait_for_topics(list(TOPICS))
    # A topic that has had a message keeps its partitions; there are none now that count.
    for topic in ("images", "image-events"):
        small.put(topic, b"rubbish")
        admin.delete_records({TopicPartition(topic, partition): -1 for partition in range(2)})
    small.start("image_event_alert.py")
    copies = [small.start("image_analysis.py") for _ in range(4)]
    until(lambda: members(admin, "image_analysis") == 4, "four members")
    small.receive("--sources", "8", "--count", "4")
    small.waits_for("alerts", 8)
    busy = [copy for copy in copies if "CHANGED" in copy.output]
    assert 1 <= len(busy) <= 2
    for copy in busy:
        copy.process.kill()
    small.receive("--sources", "8", "--count", "4")
    small.waits_for("alerts", 16)
    admin.close()
    all_is_there_once(small, dict.fromkeys(SOURCES, 8))


def have_two_partitions(admin: KafkaAdminClient, pipeline: Pipeline) -> bool:
    """Make the topics anew; False if a program of the test before, now dead, had them made last."""
    delete_topics(pipeline.bootstrap_servers)
    try:
        admin.create_topics({topic: {"num_partitions": 2} for topic in TOPICS})
    except TopicAlreadyExistsError:
        return False
    return True


def members(admin: KafkaAdminClient, group: str) -> int:
    """How many copies Kafka counts in a group."""
    return len(admin.describe_groups([group])[group]["members"])


@pytest.mark.slow
def test_images_of_mixed_sizes(pipeline: Pipeline) -> None:
    """Sources of other sizes and modes, side by side and one after the other, are compared."""
    pipeline.start("image_event_alert.py")
    for _ in range(2):
        pipeline.start("image_analysis.py")
    shapes = [("RGB", (64, 48)), ("L", (640, 480)), ("RGB", (1, 3000)), ("RGB", (64, 48))]
    for number in range(8):
        for source in ("a", "b", "c"):
            shift = "abc".index(source)
            mode, size = shapes[(number // 2 + shift) % len(shapes)]
            name = f"{source}-{number:05d}"
            path = f"image_database/{name}.jpg"
            Image.new(mode, size).save(pipeline.data / path)
            message = {"image_id": name, "source": source, "number": number, "path": path}
            pipeline.put("images", msgspec.json.encode(message), source.encode())
    pipeline.waits_for("alerts", 7)
    changes = [f"{source}-{number:05d}" for source in "abc" for number in (2, 4, 6)]
    # From the last shape to the first nothing changes: it's the same.
    same = {"b-00006", "c-00004"}
    expected = [name for name in changes if name not in same]
    assert pipeline.ids("image-events") == expected


def test_a_pause_between_images(small: Pipeline) -> None:
    """--interval spaces each source's images; what is due is told at once, and SIGINT ends it."""
    receiving = small.start("image_receiving.py", "--sources", "2", "--interval", "0.2")
    assert receiving.ends() == 0
    received = defaultdict(list)
    for record in small.records("images"):
        message = msgspec.json.decode(record.value)
        received[message["source"]].append(float(message["received"].split(":")[-1].rstrip("Z")))
    for times in received.values():
        gaps = [(later - earlier) % 60 for earlier, later in pairwise(times)]
        assert len(gaps) == 10
        assert sum(gaps) > 1.9
    slow = small.start("image_receiving.py", "--interval", "3600")
    slow.says("00000  received")
    assert slow.stop(signal.SIGINT) == 1
    assert slow.lines[-1].endswith("stopped; 10 of 11 images missing")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--sources", "0"],
        ["--sources", "1000"],
        ["--sources", "2", "--source", "a"],
        ["--interval", "soon"],
        ["--interval", "-1"],
        ["--copies", "0"],
        ["--copies", "x"],
    ],
)
def test_options_that_make_no_sense(lone: Pipeline, arguments: list[str]) -> None:
    """They end the run at once with 2 and one line that names them."""
    assert arguments[0] in lone.usage_error("run", *arguments)


@pytest.mark.slow
def test_run_pipeline_with_copies(small: Pipeline) -> None:
    """--copies N runs so many of each stage, says which copy says what, and counts all."""
    run = small.start(
        str(HERE / "run_pipeline.sh"), "--copies", "3", "--sources", "8", "--count", "20"
    )
    assert run.ends() == 0, run
    assert "  images             160" in run.lines
    assert "  alerts             40" in run.lines
    for number in (1, 2, 3):
        for name in ("image_analysis", "image_event_alert"):
            assert any(line.startswith(f"{name} {number} ") for line in run.lines)
    all_is_there_once(small, dict.fromkeys(SOURCES, 20))


def lag(pipeline: Pipeline) -> dict[str, list[str]]:
    """What the command says of each stage: copies, waiting, and since when."""
    program = pipeline.command("lag")
    assert program.ends() == 0, program
    return {line.split()[0]: line.split()[1:] for line in program.lines[1:]}


def test_what_waits_is_seen(small: Pipeline) -> None:
    """For each stage: how many copies, how many messages wait, and for how long the oldest has."""
    small.receive("--sources", "2", "--count", "40")
    # Kafka gives up members of an earlier test, which were killed, after 10 s.
    until(lambda: [one[0] for one in lag(small).values()] == ["0", "0"], "no copies")
    before = lag(small)
    # A transaction's end takes an offset as well.
    assert 80 <= int(before["image_analysis"][1]) <= 100
    assert float(before["image_analysis"][2]) > 0
    assert before["image_event_alert"] == ["0", "0", "-"]
    for _ in range(2):
        small.start("image_analysis.py")
    small.start("image_event_alert.py")
    small.waits_for("alerts", 20)
    until(lambda: lag(small)["image_event_alert"] == ["1", "0", "-"], "no more alerts to send")
    assert lag(small)["image_analysis"] == ["2", "0", "-"]


def peak(program: Program) -> int:
    """The most memory that a program has had, in kB."""
    status = Path(f"/proc/{program.process.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+)", status)
    assert found
    return int(found[1])


@pytest.fixture
def frozen(small: Pipeline) -> Iterator[tuple[Pipeline, Program]]:
    """A pipeline whose analysis took some images and then was stopped in mid-work."""
    analysis = small.start("image_analysis.py")
    small.receive("--count", "4")
    analysis.says("00003  CHANGED")
    analysis.process.send_signal(signal.SIGSTOP)
    yield small, analysis
    analysis.process.send_signal(signal.SIGCONT)


@pytest.mark.slow
def test_a_slow_stage_makes_nobody_grow(frozen: tuple[Pipeline, Program]) -> None:
    """While analysis stands still, receiving and alert take no more memory for more images."""
    small, analysis = frozen
    alert = small.start("image_event_alert.py")
    receiving = small.start("image_receiving.py", "--count", "6000")
    receiving.says("00999  received")
    early = peak(receiving), peak(alert)
    receiving.says("05799  received")
    assert peak(receiving) < early[0] + 16_000
    assert peak(alert) < early[1] + 16_000
    assert receiving.ends() == 0
    early_analysis = peak(analysis)
    analysis.process.send_signal(signal.SIGCONT)
    small.waits_for("alerts", 1501)
    assert peak(analysis) < early_analysis + 48_000
