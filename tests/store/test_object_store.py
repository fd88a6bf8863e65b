"""The pipeline on an object store: the same guarantees, on a bad network, too."""

import random
from functools import partial
from pathlib import Path

import msgspec
import pytest
from conftest import HERE, Pipeline, Program, StoredPipeline, until
from object_store import BUCKET, Faults, FaultyNetwork, ObjectStore

from pipeline.errors import InvalidInput
from pipeline.pictures.mock import ORIGINAL
from pipeline.settings import Location
from pipeline.store.database import Database
from pipeline.store.numbering import find_image, last_image, numbers_before

DIRECTORIES = ("image_database", "image_event_database", "image_event_alerts")


def events_of(count: int, source: str = "") -> list[str]:
    """The ids of the changes among the first `count` images."""
    prefix = f"{source}-" if source else ""
    return [f"{prefix}{number:05d}" for number in range(3, count, 4)]


def all_is_there_once(stored: StoredPipeline, count: int) -> None:
    """Each image, event and alert is there once: as a message, and as the files that it needs."""
    images = [f"{number:05d}" for number in range(count)]
    assert stored.ids("images") == images
    assert stored.ids("image-events") == events_of(count)
    assert stored.ids("alerts") == events_of(count)
    assert stored.records("dead-letters") == []
    assert stored.files("image_database") == [f"{name}.jpg" for name in images]
    assert stored.files("image_event_database") == sorted(
        f"image_event_{name}.{kind}" for name in events_of(count) for kind in ("jpg", "txt")
    )
    assert stored.files("image_event_alerts") == [
        f"image_event_alert_{name}.txt" for name in events_of(count)
    ]
    for program in stored.started:
        assert "Traceback" not in program.output


def command(stored: StoredPipeline, *arguments: str) -> Program:
    """A command that looks after the pipeline, to its end."""
    program = stored.command(*arguments)
    program.ends()
    return program


def test_eleven_images_make_two_alerts(stored: StoredPipeline) -> None:
    """As in directories, but for where the files are; a later run goes on counting."""
    stored.start("image_event_alert.py")
    stored.start("image_analysis.py")
    receiving = stored.receive()
    assert stored.url in receiving.lines[1]
    stored.waits_for("alerts", 2)
    all_is_there_once(stored, 11)
    original = (HERE / ORIGINAL).read_bytes()
    assert stored.database("image_database").read("image_database/00002.jpg") == original
    stored.receive("--count", "5")
    stored.waits_for("alerts", 4)
    all_is_there_once(stored, 16)


def test_one_command_runs_it_all(stored: StoredPipeline) -> None:
    """run_pipeline.sh, clean_image_dirs.sh and the audit take the URL like a directory."""
    run = stored.start(str(HERE / "run_pipeline.sh"), "--sources", "2", "--count", "4")
    assert run.ends() == 0, run
    assert "  alerts             2" in run.lines
    assert stored.files("image_event_alerts") == [
        f"image_event_alert_cam{number}-00003.txt" for number in (1, 2)
    ]
    assert command(stored, "audit").process.returncode == 0
    cleaned = stored.start(str(HERE / "clean_image_dirs.sh"))
    assert cleaned.ends() == 0, cleaned
    assert [stored.files(name) for name in DIRECTORIES] == [[], [], []]
    stored.receive("--source", "cam1", "--count", "1")
    audited = command(stored, "audit")
    assert audited.process.returncode == 0, audited
    assert "not missed: 8 images deleted by clean_image_dirs.sh" in audited.lines


def test_an_original_of_ones_own(stored: StoredPipeline) -> None:
    """The store's own original counts before the repository's."""
    picture = b"\x89PNG\r\n\x1a\n no picture"
    originals = stored.database("image_original")
    originals.write(ORIGINAL, picture)
    originals.sync()
    receiving = stored.start("image_receiving.py")
    assert receiving.ends() == 1
    assert "original_image.jpg is" in receiving.lines[-1]


@pytest.mark.slow
def test_stages_and_receivers_are_killed(stored: StoredPipeline) -> None:
    """Wherever SIGKILL hits, each image, event and alert is there once, and no half object."""
    chance = random.Random(1)
    analysis, alert = (stored.start(name) for name in ("image_analysis.py", "image_event_alert.py"))
    for number in range(4):
        receiving = stored.start("image_receiving.py", "--count", "150")
        receiving.says("received")
        until(partial(_has_events, stored, 5 * (number + 1)), "more events")
        analysis.process.kill()
        analysis = stored.start("image_analysis.py")
        alert.process.kill()
        alert = stored.start("image_event_alert.py")
        try:
            receiving.process.wait(chance.uniform(0, 1))
        except Exception:
            receiving.process.kill()
        receiving.ends()
    stored.receive("--count", "1")
    count = len(stored.files("image_database"))
    stored.waits_for("alerts", len(events_of(count)))
    all_is_there_once(stored, count)


def _has_events(stored: StoredPipeline, count: int) -> bool:
    return len(stored.files("image_event_database")) >= count


@pytest.mark.slow
def test_a_bad_network(stored: StoredPipeline, network: FaultyNetwork) -> None:
    """Throttled, refused, cut in the middle and slow: it takes longer, and nothing else."""
    # A single attempt each, so that our own patience is what is tried.
    once = {"AWS_MAX_ATTEMPTS": "1"}
    stored.environment |= once
    analysis = stored.start("image_analysis.py")
    stored.start("image_event_alert.py")
    network.becomes(
        Faults(slow_down=0.05, error=0.05, cut_request=0.05, cut_response=0.05, delay=0.005)
    )
    receiving = stored.receive("--count", "60")
    stored.waits_for("alerts", 15)
    network.becomes(Faults())
    all_is_there_once(stored, 60)
    assert {"slow_down", "error", "cut_request", "cut_response"} <= {
        one.fate for one in network.seen
    }
    said = f"{receiving.output}\n{analysis.output}"
    assert "trying again in" in said


def test_the_store_is_killed_and_comes_back(
    stored: StoredPipeline, object_store: ObjectStore
) -> None:
    """All say so and wait; what it had acknowledged is there, and all goes on."""
    analysis = stored.start("image_analysis.py", AWS_MAX_ATTEMPTS="1")
    stored.start("image_event_alert.py", AWS_MAX_ATTEMPTS="1")
    receiving = stored.start("image_receiving.py", "--count", "400", AWS_MAX_ATTEMPTS="1")
    analysis.says("CHANGED")
    object_store.kill()
    receiving.says("trying again in")
    object_store.start()
    assert receiving.ends() == 0, receiving
    stored.waits_for("alerts", 100)
    all_is_there_once(stored, 400)


@pytest.mark.slow
def test_stopped_while_the_store_is_away(stored: StoredPipeline, network: FaultyNetwork) -> None:
    """A stage that waits for the store ends in time when it is told to, and goes on later."""
    analysis = stored.start("image_analysis.py", AWS_MAX_ATTEMPTS="1")
    stored.wait_for_topics()
    stored.receive("--count", "4")
    analysis.says("00003  CHANGED")
    network.becomes(Faults(stall=1))
    network.becomes(Faults(refuse=True))
    stored.put(
        "images",
        b'{"image_id":"a-00000","source":"a","number":0,"path":"image_database/00000.jpg"}',
        b"a",
    )
    analysis.says("cannot read .*; trying again in")
    assert analysis.stop() == 0
    network.becomes(Faults())
    stored.start("image_analysis.py").says("a-00000  first image")
    assert stored.records("dead-letters") == []


def test_nothing_is_listed_to_go_on_counting(
    stored: StoredPipeline, network: FaultyNetwork
) -> None:
    """Kafka knows the last number: only names near it are asked for, and never all of them."""
    stored.receive("--count", "3", "--source", "cam1")
    network.seen.clear()
    stored.receive("--count", "3", "--source", "cam1")
    analysis = stored.start("image_analysis.py")
    analysis.says("cam1-00003  CHANGED")
    listings = [one.query["prefix"] for one in network.seen if "prefix" in one.query]
    assert len(listings) == 2
    assert all("cam1-0" in prefix for prefix in listings)
    # What a copy compares with is read once, by its number, and not looked for.
    before = [one for one in network.seen if one.path.endswith("cam1-00002.jpg")]
    assert [one.method for one in before if one.method == "GET"] == ["GET"] * 2
    assert len(before) == 2  # receiving reads it, to go on from it


@pytest.mark.slow
def test_a_copy_that_joins_reads_the_previous_image_once(
    stored: StoredPipeline, network: FaultyNetwork
) -> None:
    """Another copy, or a restarted one, takes it from the database, then memory has it."""
    first = stored.start("image_analysis.py")
    stored.receive("--count", "3")
    first.says("00002  unchanged")
    assert first.stop() == 0
    stored.receive("--count", "3")
    network.seen.clear()
    stored.start("image_analysis.py").says("00005  unchanged")
    reads = [one.path.rpartition("/")[2] for one in network.seen if one.method == "GET"]
    assert [reads.count(f"0000{number}.jpg") for number in range(6)] == [0, 0, 1, 1, 1, 1]


def test_numbers_with_gaps_and_of_all_lengths(object_store: ObjectStore, tmp_path: Path) -> None:
    """The last number, and those before one, are found wherever they are, as in a directory."""
    del object_store
    numbers = [0, 7, 8, 120, 99_998, 100_003, 1_234_567]
    stored = Database(Location(f"s3://{BUCKET}/{tmp_path.name}"), "image_database")
    (tmp_path / "image_database").mkdir()
    local = Database(Location(str(tmp_path)), "image_database")
    for number in numbers:
        for name in (f"{number:05d}.jpg", f"cam-{number + 1:05d}.jpg"):
            stored.write(f"image_database/{name}", b"")
            (tmp_path / "image_database" / name).touch()
    stored.sync()
    for database in (stored, local):
        assert last_image(database, "", 0) == (1_234_567, "image_database/1234567.jpg")
        assert last_image(database, "cam", 9)[0] == (121 if database is stored else 1_234_568)
        assert last_image(database, "cam", 77)[0] == 1_234_568  # 76 isn't there: look everywhere
        assert last_image(database, "nobody", 0) == (-1, "")
        assert find_image(database, "cam-00008") == "image_database/cam-00008.jpg"
        for number in (0, 1, 8, 130, 99_999, 100_003, 100_004, 200_000, 9_999_999):
            found = [one for one in numbers_before(database, "", number) if one in numbers]
            assert found == [one for one in reversed(numbers) if one < number]


@pytest.mark.slow
def test_an_image_of_another_program_is_not_overwritten(stored: StoredPipeline) -> None:
    """Not even one that came while we were receiving: the store itself refuses."""
    stored.receive("--count", "3")
    images = stored.database("image_database")
    images.write("image_database/02000.jpg", b"somebody's")
    images.sync()
    receiving = stored.start("image_receiving.py", "--count", "3000")
    assert receiving.ends() == 1
    assert "image_database/02000.jpg is there already" in receiving.lines[-1]
    assert images.read("image_database/02000.jpg") == b"somebody's"
    assert "Traceback" not in receiving.output


@pytest.mark.slow
def test_what_the_audit_finds(stored: StoredPipeline) -> None:
    """A lost object and one with other bytes are named, and made again as they were."""
    alert = stored.start("image_event_alert.py")
    stored.start("image_analysis.py")
    stored.receive()
    alert.says("00007  ALERT")
    paths = {
        "image_event_database": "image_event_database/image_event_00003.jpg",
        "image_event_alerts": "image_event_alerts/image_event_alert_00007.txt",
        "image_database": "image_database/00005.jpg",
    }
    before = {name: stored.database(name).read(path) for name, path in paths.items()}
    stored.database("image_event_database").remove(paths["image_event_database"])
    for name in ("image_event_alerts", "image_database"):
        database = stored.database(name)
        database.write(paths[name], before[name][:-9])
        database.sync()
    assert command(stored, "audit").process.returncode == 1
    repaired = command(stored, "audit", "--repair")
    assert repaired.process.returncode == 0, repaired
    assert {name: stored.database(name).read(path) for name, path in paths.items()} == before


PATHS = ["image_database", "image_database/", "image_database/../image_event_database/a", "/a", ""]
PATHS += ["image_event_database/a.jpg", "image_database/nothing", "image_database/./a.jpg"]
PATHS += [
    "image_database/" + "ü" * 1000,
    "image_database/a.jpg/",
    "image_database/a.jpg?versionId=1",
]


@pytest.mark.parametrize("path", [*PATHS, "image_database/\0", "image_database/\udcff"])
def test_any_path(object_store: ObjectStore, tmp_path: Path, path: str) -> None:
    """Only an object of the database itself is read; anything else is unusable."""
    del object_store
    url = f"s3://{BUCKET}/{tmp_path.name}"
    for name in ("image_database", "image_event_database"):
        database = Database(Location(url), name)
        database.write(f"{name}/a.jpg", b"content")
        database.sync()
    images = Database(Location(url), "image_database")
    assert images.read("image_database/a.jpg") == b"content"
    with pytest.raises(InvalidInput):
        images.read(path)


@pytest.mark.slow
def test_a_message_of_an_object_that_is_gone(stored: StoredPipeline) -> None:
    """It is set aside with its reason, as is one whose object has other bytes; the rest goes on."""
    stored.receive("--count", "5")
    images = stored.database("image_database")
    images.remove("image_database/00001.jpg")
    images.write("image_database/00002.jpg", b"other bytes")
    images.sync()
    stored.start("image_analysis.py").says("00003  CHANGED")
    stored.start("image_event_alert.py")
    stored.waits_for("alerts", 1)
    assert len(stored.waits_for("dead-letters", 2)) == 2
    event = msgspec.json.decode(stored.records("image-events")[0].value)
    assert event["previous_image_id"] == "00000"


@pytest.mark.parametrize(
    "url", ["s3://", "s3://b", "s3://Bucket/a", "s3://bucket/../a", "http://bucket", "s3:///a"]
)
def test_a_url_that_makes_no_sense(data: Path, url: str) -> None:
    """It ends each program at once with 2 and one line that has it."""
    for name in ("image_receiving.py", "image_analysis.py", "image_event_alert.py"):
        assert url in Pipeline(data, "localhost:9").usage_error(name, PIPELINE_DATA=url)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "hush"}, "SignatureDoesNotMatch|AccessDenied"),
        ({"PIPELINE_DATA": "s3://nosuchbucket/x"}, "NoSuchBucket"),
        ({"AWS_ACCESS_KEY_ID": ""}, "[Cc]redentials"),
        ({"AWS_SECRET_ACCESS_KEY": ""}, "[Cc]redentials"),
        ({"AWS_ENDPOINT_URL": "localhost:9"}, "[Ii]nvalid endpoint"),
        ({"AWS_MAX_ATTEMPTS": "many"}, "many"),
        ({"AWS_RETRY_MODE": "often"}, "often"),
    ],
)
def test_a_store_that_refuses_us(
    stored: StoredPipeline, changed: dict[str, str], said: str
) -> None:
    """One line says why, and the program ends: with 2 if it is a setting that makes no sense."""
    is_setting = said not in ("SignatureDoesNotMatch|AccessDenied", "NoSuchBucket")
    for name in ("image_receiving.py", "image_analysis.py", "image_event_alert.py"):
        program = stored.start(name, **changed)
        assert program.ends() == (2 if is_setting else 1)
        (line,) = program.lines
        assert "cannot use s3://" in line
        assert "hush" not in line
        program.says(said)


def test_without_s3fs(stored: StoredPipeline, tmp_path: Path) -> None:
    """Where the optional requirement isn't installed, one line says how to install it."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['s3fs'] = None\n")
    program = stored.start("image_analysis.py", PYTHONPATH=str(tmp_path))
    assert program.ends() == 2
    assert "pip install s3fs" in program.lines[-1]


@pytest.mark.slow
def test_chaos(stored: StoredPipeline, object_store: ObjectStore) -> None:
    """Under kills of everything, each image is accounted for; what was made for it goes away."""
    run = stored.start(
        str(HERE / "run_pipeline.sh"),
        *("--chaos", "--seed", "5", "--count", "200"),
        **object_store.environment,
    )
    assert run.ends(300) == 0, run
    rows = [line.split() for line in run.lines if line.startswith("  ")]
    assert ["lost", "0"] in rows
    assert ["twice", "0"] in rows
    assert [stored.files(name) for name in DIRECTORIES] == [[], [], []]
