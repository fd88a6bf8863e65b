"""Pictures of one's own: files, directories, one that a camera fills; thresholds and masks."""

import gzip
import os
import random
import re
import shutil
import signal
import socket
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from astropy.io import fits
from conftest import HERE, Pipeline, Program, StoredPipeline, slow, until
from numpy.typing import NDArray
from PIL import Image
from tiff_writer import Page, tiff, tiff_of

from pipeline.errors import InvalidInput
from pipeline.messages import Alert, ImageEvent, ImageWithoutEvent, ReceivedImage, parse
from pipeline.pictures.listing import WatchedDirectory
from pipeline.pictures.seen_files import SeenFiles
from pipeline.pictures.watch import DirectoryWatcher
from pipeline.settings import Location
from pipeline.stop_signal import StopSignal
from pipeline.store.database import Database
from pipeline.stream.outbox_file import OutboxFile

RNG = np.random.default_rng(5)
ABOUT = "__connect.errors."


def sky(sigma: float = 0, star: tuple[int, int] | None = None) -> NDArray[np.float64]:
    """A piece of sky with noise of so many counts, and a star of 80 counts, or without one."""
    rows, columns = np.mgrid[0:64, 0:96]
    counts = 30 + 25 * np.exp(-((rows - 20) ** 2 + (columns - 30) ** 2) / 8)
    if star:
        counts += 80 * np.exp(-((rows - star[1]) ** 2 + (columns - star[0]) ** 2) / (2 * 1.27**2))
    return np.asarray(counts + RNG.normal(0, sigma, counts.shape))


def grey(counts: NDArray[np.float64]) -> Image.Image:
    """As an 8-bit image."""
    return Image.fromarray(np.clip(np.round(counts), 0, 255).astype(np.uint8))


def picture(path: Path, value: int = 0) -> bytes:
    """Make a small picture, another for each value, in the format that the name says; its bytes."""
    colour = (value * 37 % 256, value * 101 % 256, value % 256)
    if path.suffix.lower() in (".fits", ".fit"):
        fits.PrimaryHDU(np.full((30, 40), value, np.int16)).writeto(path, overwrite=True)
    else:
        Image.new("RGB", (40, 30), colour).save(path)
    return path.read_bytes()


def messages(pipeline: Pipeline) -> list[ReceivedImage]:
    """What `images` says, in order."""
    return [parse(one.value, ReceivedImage) for one in pipeline.records("images")]


def letters(pipeline: Pipeline) -> dict[str, str]:
    """What was set aside: the reasons by the files' names."""
    found = {}
    for record in pipeline.records("dead-letters"):
        headers = {name: value.decode() for name, value in record.headers}
        assert headers[f"{ABOUT}stage"] == "image_receiving"
        assert headers[f"{ABOUT}exception.class.name"] == "InvalidInput"
        assert headers[f"{ABOUT}time"].endswith("Z")
        assert f"{ABOUT}topic" not in headers
        path = record.value.decode()
        assert path not in found
        found[Path(path).name] = headers[f"{ABOUT}exception.message"]
    return found


def command(pipeline: Pipeline, *arguments: str, status: int = 0, mask: str = "") -> Program:
    """A command that looks after the pipeline, to its end."""
    program = pipeline.command(*arguments, PIPELINE_MASK=mask)
    assert program.ends() == status, program
    assert "Traceback" not in program.output
    return program


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty directory of somebody's pictures."""
    (tmp_path / "my pictures").mkdir()
    return tmp_path / "my pictures"


@pytest.mark.slow
def test_a_folder_of_all_kinds(pipeline: Pipeline, folder: Path) -> None:
    """Stored byte for byte in the order of the names, under their extensions; all are compared."""
    names = ["a.JPG", "b.png", "c.tiff", "d.fits", "e.gif", "f.bmp", "g.webp", "h.FIT", "i.jpeg"]
    contents = [picture(folder / name, value) for value, name in enumerate(reversed(names))][::-1]
    (folder / ".hidden.jpg").write_bytes(contents[0])
    (folder / "notes.txt").write_text("no picture")
    (folder / "more.png").mkdir()
    picture(folder / "more.png" / "inside.png")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    analysis = pipeline.start("image_analysis.py")
    receiving = pipeline.receive("--from", str(folder), "--source", "mine")
    assert receiving.lines[-1] == "image_receiving: received 9 images; 0 set aside"
    receiving.says("left alone .*more.png: a directory")
    receiving.says("left alone .*my pictures: 2 hidden or without an image's extension")
    stored = [
        f"mine-{number:05d}.{name.split('.')[1].lower()}" for number, name in enumerate(names)
    ]
    assert pipeline.files("image_database") == stored
    for name, content in zip(stored, contents, strict=True):
        assert (pipeline.data / "image_database" / name).read_bytes() == content
    assert [one.original_name for one in messages(pipeline)] == names
    assert [one.path for one in messages(pipeline)] == [f"image_database/{name}" for name in stored]
    analysis.says("mine-00008  CHANGED")
    assert pipeline.ids("image-events") == [f"mine-{number:05d}" for number in range(1, 9)]
    event = parse(pipeline.records("image-events")[0].value, ImageEvent)
    assert event.image_path == "image_database/mine-00001.png"
    assert event.previous_image_path == "image_database/mine-00000.jpg"
    description = (pipeline.data / event.path).read_text()
    assert "\nOriginal file: b.png\n" in description
    assert pipeline.records("dead-letters") == []
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.slow
def test_files_in_the_order_given(pipeline: Pipeline, folder: Path) -> None:
    """Named files are always tried, links are followed, each run receives all that it is given."""
    content = picture(folder / "b.png", 1)
    (folder / "b.png").rename(folder / "b")
    other = picture(folder / ".hidden.tif", 2)
    (folder / "link.JPEG").symlink_to(".hidden.tif")
    named = [str(folder / name) for name in ("b", "link.JPEG", "b", ".hidden.tif")]
    receiving = pipeline.receive("--from", *named[:2], "--from", *named[2:], "--count", "3")
    assert receiving.lines[-1] == "image_receiving: received 3 images; 0 set aside"
    assert pipeline.files("image_database") == ["00000.png", "00001.jpeg", "00002.png"]
    pipeline.receive("--from", named[-1])
    stored = pipeline.data / "image_database"
    assert [(stored / name).read_bytes() for name in ("00000.png", "00001.jpeg", "00003.tif")] == [
        *(content, other, other)
    ]
    originals = [one.original_name for one in messages(pipeline)]
    assert originals == ["b", "link.JPEG", "b", ".hidden.tif"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["a\nb.png", "a\x1b[2Jb.png", "\udcff.png", "Bild\u202f1 ä.png", "$(rm -rf .).png"]
)
def test_any_name(pipeline: Pipeline, folder: Path, name: str) -> None:
    """It steers no terminal, and is in the message if it is text of one line."""
    picture(folder / "x.png")
    os.rename(folder / "x.png", os.path.join(folder, name))
    (folder / f"damaged {name}").write_bytes(b"")
    receiving = pipeline.receive("--from", str(folder))
    assert receiving.lines[-1] == "image_receiving: received 1 image; 1 set aside"
    assert all(line.isprintable() for line in receiving.lines)
    (message,) = messages(pipeline)
    assert message.original_name == (name if name.isprintable() or "ä" in name else None)
    assert len(pipeline.records("dead-letters")) == 1


def spoilt(folder: Path) -> dict[str, str]:
    """Files that can't be used, and why not."""
    whole = picture(folder / "whole.jpg", 7)
    sample = picture(folder / "whole.fits", 7)
    (folder / "cut.jpg").write_bytes(whole[:-200])
    (folder / "cut.fits").write_bytes(sample[:3500])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.png").write_text("no picture")
    blank = np.full((4, 5), np.nan, np.float32)
    fits.PrimaryHDU(blank).writeto(folder / "nan.fits")
    Image.fromarray(blank).save(folder / "nan.tif")
    fits.PrimaryHDU(np.zeros(9, np.int16)).writeto(folder / "row.fits")
    with (folder / "endless.tif").open("wb") as file:
        file.truncate(2**40)
    os.mkfifo(folder / "pipe.jpg")
    (folder / "dangling.jpg").symlink_to("nowhere.jpg")
    (folder / "loop.jpg").symlink_to("loop.jpg")
    (folder / "device.jpg").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "socket.jpg"))
    return {
        "cut.jpg": "cut.jpg is a damaged image",
        "cut.fits": "cut.fits is a damaged image",
        "empty.png": "is no image of JPEG, PNG, TIFF, FITS, GIF, BMP and WebP",
        "text.png": "is no image of",
        "nan.fits": "has no pixel with a value",
        "nan.tif": "has no pixel with a value",
        "row.fits": "has no image of two dimensions",
        "endless.tif": "bytes, more than",
        "pipe.jpg": "is no regular file",
        "dangling.jpg": "can't be read: No such file",
        "loop.jpg": "can't be read: Too many levels",
        "device.jpg": "is no regular file",
        "socket.jpg": "is no regular file",
    }


@pytest.mark.slow
def test_what_cannot_be_used_is_set_aside(pipeline: Pipeline, folder: Path) -> None:
    """Each with its reason, on the terminal and as a dead letter; the rest goes on; exit 0."""
    reasons = spoilt(folder)
    receiving = pipeline.receive("--from", str(folder))
    assert receiving.lines[-1] == f"image_receiving: received 2 images; {len(reasons)} set aside"
    found = letters(pipeline)
    assert found.keys() == reasons.keys()
    for name, reason in reasons.items():
        assert reason in found[name]
        receiving.says(f"set aside  {folder}/{name}: .*{reason}")
    assert [one.original_name for one in messages(pipeline)] == ["whole.fits", "whole.jpg"]
    assert all(record.key == b"" for record in pipeline.records("dead-letters"))
    listed = command(pipeline, "dead-letters")
    listed.says(f"image_receiving  file {folder}/nan.fits  nan.fits has no pixel with a value")
    command(pipeline, "audit")


def test_compressed_fits(pipeline: Pipeline, folder: Path) -> None:
    """As observatories deliver it: found by its names, stored under them, compared as if plain."""
    counts = sky(9).astype(np.int16)
    with_star = counts.copy()
    with_star[30:36, 40:46] += 500
    empty = fits.PrimaryHDU()
    mask = fits.CompImageHDU((counts > 40).astype(np.uint8))
    for name, parts in {
        "a.fits.fz": [empty, fits.CompImageHDU(counts)],
        "b.FZ": [empty, fits.CompImageHDU(with_star)],
        "c.fits": [empty, fits.CompImageHDU(counts)],
        "d.fits": [fits.PrimaryHDU(counts)],
        "e.fits": [empty, mask, fits.ImageHDU(counts)],
    }.items():
        fits.HDUList(parts).writeto(folder / name)
    (folder / "d.fit.gz").write_bytes(gzip.compress((folder / "d.fits").read_bytes()))
    (folder / "d.fits").unlink()
    (folder / "f.jpg.gz").write_bytes(gzip.compress(b"no FITS"))
    analysis = pipeline.start("image_analysis.py")
    receiving = pipeline.receive("--from", str(folder))
    assert receiving.lines[-1] == "image_receiving: received 5 images; 0 set aside"
    receiving.says(
        r"00004  received: e.fits \(not compared: part 1 \(COMPRESSED_IMAGE, 96 x 64\)\)"
    )
    receiving.says("left alone .*: 1 hidden or without an image's extension")
    stored = ["00000.fits.fz", "00001.fits.fz", "00002.fits", "00003.fits.gz", "00004.fits"]
    assert pipeline.files("image_database") == stored
    analysis.says("00004  unchanged")
    assert pipeline.ids("image-events") == ["00001", "00002"]
    command(pipeline, "audit")


def test_tiffs_that_pillow_cannot_hold(pipeline: Pipeline, folder: Path) -> None:
    """Each second one differs by one count, or by a star: an event, with the RMS of all samples."""
    samples = RNG.integers(0, 200, (5, 64, 96))
    kinds: dict[str, tuple[str, int, dict[str, Any]]] = {
        "a planes apart": ("u2", 3, {"photometric": 2, "apart": True}),
        "b infrared": ("u1", 4, {"photometric": 2, "extra": [0]}),
        "c signed": ("i1", 1, {}),
        "d float64": ("f8", 1, {}),
        "e five bands": ("u2", 5, {"extra": [0] * 4}),
        "f half": ("f2", 1, {}),
    }
    rms = []
    for name, (kind, count, how) in kinds.items():
        for step in (0, 1):
            changed = samples.copy()
            changed[count - 1, 50, 70] += step
            planes = [(plane - 100 * (kind == "i1")).astype(kind) for plane in changed[:count]]
            (folder / f"{name} {step}.tif").write_bytes(tiff(planes, **how))
        rms.append(f"RMS {1 / np.sqrt(64 * 96 * count):.4g}")
    thumbnail = Page([np.zeros((6, 9), np.uint8)], more={254: [1]})
    for name, star in (("g thumbnail 0", None), ("g thumbnail 1", (50, 30))):
        full = [np.round(sky(star=star)).astype(np.uint8)]
        (folder / f"{name}.tif").write_bytes(tiff_of([thumbnail, Page(full)]))
    analysis = pipeline.start("image_analysis.py")
    receiving = pipeline.receive("--from", str(folder))
    assert receiving.lines[-1] == "image_receiving: received 14 images; 0 set aside"
    receiving.says(r"00013  received: g thumbnail 1.tif \(picture 2 of 2 in it\)")
    for number, expected in enumerate(rms):
        analysis.says(f"{2 * number + 1:05d}  CHANGED: .*, {re.escape(expected)};")
    analysis.says("00013  CHANGED: .* of the pixels")
    assert "00013" in pipeline.ids("image-events")
    command(pipeline, "audit")


def test_damage_that_decoding_does_not_mind(pipeline: Pipeline, folder: Path) -> None:
    """No false event: it is set aside by receiving, unless one wants it; analysis takes it then."""
    grey(sky(20)).save(folder / "1.jpg", quality=90)
    whole = (folder / "1.jpg").read_bytes()
    half = len(whole) // 2
    (folder / "2 hole.jpg").write_bytes(whole[:half] + whole[half + 900 :])
    (folder / "3 zeros.jpg").write_bytes(whole[:half] + bytes(900) + whole[half + 900 :])
    (folder / "4 closed.jpg").write_bytes(whole[:half] + b"\xff\xd9")
    (folder / "5.jpg").write_bytes(whole)
    analysis = pipeline.start("image_analysis.py")
    receiving = pipeline.receive("--from", str(folder))
    assert receiving.lines[-1] == "image_receiving: received 2 images; 3 set aside"
    analysis.says("00001  unchanged")
    reasons = letters(pipeline)
    assert sorted(reasons) == ["2 hole.jpg", "3 zeros.jpg", "4 closed.jpg"]
    for name, reason in reasons.items():
        assert f"{name} is a damaged image: bytes inside it are missing or wrong" in reason
        assert "--accept-damaged receives it all the same" in reason
    receiving = pipeline.receive("--from", str(folder), "--accept-damaged")
    assert receiving.lines[-1] == "image_receiving: received 5 images; 0 set aside"
    for number in (3, 4, 6):
        analysis.says(f"{number:05d}  CHANGED")
    assert len(pipeline.records("dead-letters")) == 3


@pytest.mark.parametrize(
    "arguments",
    [
        ["--watch"],
        ["--watch", "--from", "a.png"],
        ["--watch", "--from", ".", "."],
        ["--watch", "--from", "./image_database/"],
        ["--from", "nothing.jpg"],
        ["--from", "a.png", "nothing"],
        ["--from", "empty"],
        ["--from", ""],
        ["--from"],
        ["--watch", "--from", "image_event_alerts/below"],
        ["--accept-damaged"],
        ["--source-from", "{source}_*"],
        ["--source-from", "cam_*", "--from", "a.png"],
        ["--source-from", "{source}*", "--from", "a.png"],
        ["--source-from", "{source}_{source}_*", "--from", "a.png"],
        ["--source-from", "{source}_*", "--from", "a.png"],
        ["--source-from", "{source}.png", "--from", "a.png", "--source", "a"],
        ["--from", "a.png", "--sources", "2"],
        ["--from", "a.png", "--source", "a", "--source", "b"],
    ],
)
def test_files_that_make_no_sense(lone: Pipeline, arguments: list[str]) -> None:
    """One line and exit 2, before anything is done."""
    picture(lone.data / "a.png")
    (lone.data / "empty").mkdir()
    (lone.data / "empty" / "notes.txt").touch()
    (lone.data / "image_event_alerts" / "below").mkdir()
    line = lone.usage_error("image_receiving.py", *arguments)
    assert arguments[0] in line or "--from" in line
    assert lone.files("image_database") == []


@pytest.mark.slow
def test_the_mock_goes_on_from_a_picture_of_ones_own(pipeline: Pipeline, folder: Path) -> None:
    """Whatever its format, under its extension; from one that can't be turned it says why not."""
    for value in range(3):
        picture(folder / f"{value}.png", 7)
    pipeline.receive("--from", str(folder))
    receiving = pipeline.receive("--count", "2")
    receiving.says("00003  received, turned by 90 degrees")
    assert pipeline.files("image_database") == [f"{number:05d}.png" for number in range(5)]
    with Image.open(pipeline.data / "image_database" / "00003.png") as image:
        assert image.size == (30, 40)
    picture(folder / "6.fits", 7)
    pipeline.receive("--from", str(folder / "6.fits"), str(folder / "6.fits"))
    stuck = pipeline.start("image_receiving.py", "--count", "1")
    assert stuck.ends() == 1
    assert "can't be turned" in stuck.lines[-1]
    assert "--from" in stuck.lines[-1]
    assert "Traceback" not in stuck.output


@pytest.mark.slow
def test_without_astropy(pipeline: Pipeline, folder: Path, tmp_path: Path) -> None:
    """FITS is set aside with words that say what to install, by both programs; others go on."""
    (tmp_path / "hidden").mkdir()
    hide = 'import sys\nsys.modules["astropy"] = None\n'
    (tmp_path / "hidden" / "sitecustomize.py").write_text(hide)
    hidden = {"PYTHONPATH": str(tmp_path / "hidden")}
    picture(folder / "a.fits", 1)
    picture(folder / "b.png", 1)
    picture(folder / "c.png", 2)
    receiving = pipeline.start("image_receiving.py", "--from", str(folder), **hidden)
    assert receiving.ends() == 0
    receiving.says("set aside .*a.fits needs astropy; install it with pip install astropy")
    assert receiving.lines[-1] == "image_receiving: received 2 images; 1 set aside"
    pipeline.receive("--from", str(folder / "a.fits"))
    pipeline.receive("--from", str(folder / "b.png"))
    analysis = pipeline.start("image_analysis.py", **hidden)
    analysis.says("set aside .*00002.fits needs astropy; install it with pip install astropy")
    analysis.says("00003  CHANGED")


def two_cameras(folder: Path, numbers: range, name: str = "{camera}_{number}.png") -> None:
    """Pictures of two cameras in a directory, each of which always sees the same."""
    for number in numbers:
        for value, camera in enumerate(("Front-Door", "back")):
            path = folder / name.format(camera=camera, number=number)
            path.parent.mkdir(exist_ok=True)
            picture(path, value + 1)
            os.utime(path, (1_000_000 + 10 * number + value, 1_000_000 + 10 * number + value))


def test_two_cameras_in_a_directory(pipeline: Pipeline, folder: Path) -> None:
    """Their names make two sources, each in the natural order of its names, and no event."""
    two_cameras(folder, range(8, 12))
    picture(folder / "map.png", 7)
    analysis = pipeline.start("image_analysis.py")
    receiving = pipeline.receive("--from", str(folder), "--source-from", "{source}_*")
    assert receiving.lines[-1] == "image_receiving: received 8 images; 0 set aside"
    receiving.says("left alone  .*map.png: its name doesn't fit '{source}_\\*'")
    receiving.says("the source of 'Front-Door' in the files' names is front_door")
    names = {one.image_id: one.original_name for one in messages(pipeline)}
    assert names == {
        f"{source}-{place:05d}": f"{camera}_{number}.png"
        for source, camera in (("front_door", "Front-Door"), ("back", "back"))
        for place, number in enumerate(range(8, 12))
    }
    analysis.says("front_door-00003  unchanged")
    analysis.says("back-00003  unchanged")
    assert pipeline.records("image-events") == []


def test_watched_cameras_that_come(pipeline: Pipeline, folder: Path) -> None:
    """Sources are made as their first files appear, also after a kill and a restart."""
    pattern = ("--source-from", "{source}/*")
    two_cameras(folder, range(2), "{camera}/{number}.png")
    receiving = watch(pipeline, folder, *pattern)
    receiving.says("front_door-00001  received: 1.png")
    receiving.says("back-00001  received: 1.png")
    (folder / "north" / "2026-11-27").mkdir(parents=True)
    picture(folder / "north" / "2026-11-27" / "0.png", 5)
    receiving.says("north-00000  received: 0.png")
    receiving.process.kill()
    receiving.ends()
    two_cameras(folder, range(2, 3), "{camera}/{number}.png")
    receiving = watch(pipeline, folder, *pattern)
    receiving.says("front_door-00002  received: 2.png")
    receiving.says("back-00002  received: 2.png")
    picture(folder / "north" / "1.png", 6)
    receiving.says("north-00001  received: 1.png")
    assert receiving.stop() == 0
    assert receiving.lines[-1] == "image_receiving: received 3 images; 0 set aside"
    ids = [f"{source}-{n:05d}" for source in ("back", "front_door") for n in range(3)]
    assert pipeline.ids("images") == [*ids, "north-00000", "north-00001"]


# A directory that somebody fills.


def watch(pipeline: Pipeline, folder: Path, *arguments: str) -> Program:
    """Start to receive what comes."""
    return pipeline.start("image_receiving.py", "--watch", "--from", str(folder), *arguments)


@pytest.mark.slow
def test_pictures_that_come(pipeline: Pipeline, folder: Path) -> None:
    """What is there, what comes whole, half, renamed or written over: each once; Ctrl-C ends it."""
    old = [picture(folder / f"{name}.png", value) for value, name in enumerate("dcba")]
    for age, name in enumerate("dcba"):
        os.utime(folder / f"{name}.png", (1_000_000 + age, 1_000_000 + age))
    receiving = watch(pipeline, folder)
    receiving.says("00003  received: a.png")
    assert [one.original_name for one in messages(pipeline)] == [f"{name}.png" for name in "dcba"]

    content = picture(folder / "whole.bmp", 9)
    (folder / "whole.bmp").unlink()
    with (folder / "half.bmp").open("wb") as file:
        file.write(content[:1000])
        file.flush()
        (folder / ".new.tmp").write_bytes(content)
        (folder / ".new.tmp").rename(folder / "renamed.bmp")
        receiving.says("00004  received: renamed.bmp")
        picture(folder / "later.png", 5)
        receiving.says("00005  received: later.png")
        receiving.says("waits for  .*half.bmp: it has 1000 of the 3654 bytes")
        assert "received: half.bmp" not in receiving.output
        file.write(content[1000:])
    receiving.says("00006  received: half.bmp")
    new = picture(folder / "a.png", 11)
    receiving.says("00007  received: a.png")
    assert receiving.stop(signal.SIGINT) == 0
    assert receiving.lines[-1] == "image_receiving: received 8 images; 0 set aside"
    expected = [*old, content, (folder / "later.png").read_bytes(), content, new]
    stored = [pipeline.data / one.path for one in messages(pipeline)]
    assert [path.read_bytes() for path in stored] == expected

    again = watch(pipeline, folder)
    picture(folder / "z.png", 12)
    again.says("00008  received: z.png")
    assert again.stop() == 0
    assert again.lines[-1] == "image_receiving: received 1 image; 0 set aside"
    assert pipeline.files("image_database")[0] == ".image_receiving.json"
    assert command(pipeline, "audit")


@pytest.mark.slow
def test_a_watched_file_that_stays_useless(pipeline: Pipeline, folder: Path) -> None:
    """It is set aside once for each version of it, after a while, also around a restart."""
    reasons = spoilt(folder)
    with (folder / "cut.jpg").open("ab") as file:
        receiving = watch(pipeline, folder, "--source", "cam1")
        receiving.says("cam1-00001  received")
        assert "set aside" not in receiving.output
        for name in reasons:
            receiving.says(f"set aside  {folder}/{name}: ")
        assert letters(pipeline).keys() == reasons.keys()
        assert {record.key for record in pipeline.records("dead-letters")} == {b"cam1"}
        file.write((folder / "whole.jpg").read_bytes()[-200:])
    receiving.says("cam1-00002  received: cut.jpg")
    assert receiving.stop() == 0
    assert receiving.lines[-1] == f"image_receiving: received 3 images; {len(reasons)} set aside"
    again = watch(pipeline, folder, "--source", "cam1", "--count", "1")
    picture(folder / "z.png", 12)
    assert again.ends() == 0
    assert again.lines[-1] == "image_receiving: received 1 image; 0 set aside"


@pytest.mark.parametrize("seed", [0, slow(1), slow(2)])
def test_killed_while_a_directory_is_filled(pipeline: Pipeline, folder: Path, seed: int) -> None:
    """Wherever SIGKILL hits, each file becomes an image once."""
    chance = random.Random(seed)
    count = 120

    def fill() -> None:
        for number in range(count):
            picture(folder / f".{number}.tmp.png", number)
            (folder / f".{number}.tmp.png").rename(folder / f"{number:03d}.png")
            pause.wait(chance.uniform(0, 0.1))

    pause = threading.Event()
    filling = threading.Thread(target=fill)
    filling.start()
    while filling.is_alive():
        receiving = watch(pipeline, folder)
        receiving.says("00  received|[1-9]  received|received by the run before")
        pause.wait(chance.uniform(0, 1))
        receiving.process.kill()
        receiving.ends()
    filling.join()
    last = watch(pipeline, folder)
    picture(folder / "last.png", count)
    last.says("received: last.png")
    assert last.stop() == 0
    names = Counter(one.original_name for one in messages(pipeline))
    assert names == Counter([*(f"{number:03d}.png" for number in range(count)), "last.png"])
    numbers = [one.number for one in messages(pipeline)]
    assert numbers == list(range(count + 1))
    for one in messages(pipeline):
        stored = (pipeline.data / one.path).read_bytes()
        assert stored == (folder / str(one.original_name)).read_bytes()


@pytest.mark.slow
def test_what_is_remembered_of_images_that_were_never_stored(
    pipeline: Pipeline, folder: Path
) -> None:
    """It is forgotten at the next start, whatever is received then, and the file received."""
    picture(folder / "a.png", 1)
    picture(folder / "b.png", 2)
    first = watch(pipeline, folder, "--count", "2")
    assert first.ends() == 0
    # As a kill leaves it, that came after the memory was written and before the image was.
    (pipeline.data / "image_database" / "00001.png").unlink()
    pipeline.receive("--count", "3")
    again = watch(pipeline, folder)
    again.says("00004  received: b.png")
    assert again.stop() == 0
    assert [one.original_name for one in messages(pipeline) if one.original_name] == [
        *("a.png", "b.png", "b.png")
    ]


@pytest.mark.slow
def test_a_reset_forgets_what_was_received(pipeline: Pipeline, folder: Path) -> None:
    """After clean_image_dirs.sh, all that is in the directory is received anew."""
    picture(folder / "a.png", 1)
    for _ in range(2):
        receiving = watch(pipeline, folder)
        receiving.says("00000  received: a.png")
        assert receiving.stop() == 0
        assert pipeline.start(str(HERE / "clean_image_dirs.sh")).ends() == 0
        assert pipeline.files("image_database") == []


@pytest.mark.slow
def test_a_directory_that_is_away_for_a_while(pipeline: Pipeline, folder: Path) -> None:
    """It is said once and waited for; an empty one in its place makes nothing forgotten."""
    picture(folder / "a.png", 1)
    receiving = watch(pipeline, folder)
    receiving.says("00000  received")
    away = folder.rename(folder.with_name("away"))
    receiving.says("can't be listed: No such file or directory; waiting for it")
    folder.mkdir()
    receiving.says("is there again")
    picture(folder / "b.png", 2)
    receiving.says("00001  received: b.png")
    shutil.rmtree(folder)
    until(lambda: receiving.output.count("waiting for it") == 2, "that it is away again")
    away.rename(folder)
    picture(folder / "c.png", 3)
    receiving.says("00002  received: c.png")
    assert receiving.stop() == 0
    assert receiving.output.count("waiting for it") == 2
    assert [one.original_name for one in messages(pipeline)] == ["a.png", "b.png", "c.png"]


class NoSignals(StopSignal):
    """Never told to stop; pytest keeps its own signals."""

    def __init__(self) -> None:
        self._asked = False


def test_links_to_a_disk_that_is_away(tmp_path: Path) -> None:
    """What they led to is remembered while it is away, and not received again once it is back."""
    disk, watched = tmp_path / "disk", tmp_path / "watched"
    disk.mkdir()
    watched.mkdir()
    for number in range(3):
        picture(disk / f"{number}.png", number)
        (watched / f"{number}.png").symlink_to(disk / f"{number}.png")
    picture(watched / "here.png", 9)
    seen = SeenFiles({})
    aside: list[str] = []

    def set_aside(path: str, reason: InvalidInput, fingerprint: str = "") -> None:
        del reason, fingerprint
        aside.append(path)

    directory = WatchedDirectory(str(watched), None, "", [])
    pictures = DirectoryWatcher(directory, "", seen, set_aside, NoSignals()).pictures()
    taken: list[str | None] = []

    def look() -> int:
        while (one := next(pictures)) is not None:
            seen.add(one.fingerprint, len(taken))
            taken.append(one.original_name)
        return len(taken)

    until(lambda: look() == 4, "the pictures")
    disk.rename(tmp_path / "elsewhere")
    for _ in range(3):
        look()
    (tmp_path / "elsewhere").rename(disk)
    picture(watched / "last.png", 11)
    until(lambda: look() > 4, "the last one")
    assert taken == ["0.png", "1.png", "2.png", "here.png", "last.png"]
    assert aside == []


def test_files_that_are_gone_are_forgotten(pipeline: Pipeline, folder: Path) -> None:
    """The memory is as large as the directory, not as all that ever was in it."""
    for number in range(5):
        picture(folder / f"{number}.png", number)
    receiving = watch(pipeline, folder)
    receiving.says("00004  received")
    for number in range(3):
        (folder / f"{number}.png").unlink()
    picture(folder / "new.png", 7)
    receiving.says("00005  received")
    assert receiving.stop() == 0
    images = Database(Location(str(pipeline.data)), "image_database")
    content = OutboxFile(images, "image_receiving").read()
    assert content.unpublished == []
    (numbers,) = content.seen.values()
    assert sorted(numbers.values()) == [3, 4, 5]


@pytest.mark.slow
def test_the_files_of_an_earlier_version(pipeline: Pipeline, folder: Path) -> None:
    """A list of messages, and what was seen in a file of its own, go on being understood."""
    picture(folder / "a.png", 1)
    receiving = watch(pipeline, folder)
    receiving.says("00000  received")
    assert receiving.stop() == 0
    outbox = pipeline.data / "image_database" / ".image_receiving.json"
    seen = pipeline.data / "image_database" / ".image_receiving.seen.json"
    seen.write_bytes(msgspec.json.encode(msgspec.json.decode(outbox.read_bytes())["seen"]))
    outbox.write_bytes(msgspec.json.encode(messages(pipeline)))
    receiving = watch(pipeline, folder)
    picture(folder / "b.png", 2)
    receiving.says("00001  received: b.png")
    assert receiving.stop() == 0
    assert [one.original_name for one in messages(pipeline)] == ["a.png", "b.png"]
    assert not seen.exists()
    outbox.unlink()
    seen.write_text("[]")
    damaged = watch(pipeline, folder)
    assert damaged.ends() == 1
    assert ".image_receiving.seen.json" in damaged.lines[-1]
    assert "remove it" in damaged.lines[-1]


@pytest.mark.slow
def test_many_files_that_wait(pipeline: Pipeline, folder: Path) -> None:
    """A directory of a thousand is received in the order of the files' times, in batches."""
    for number in range(1000):
        picture(folder / f"{number}.bmp", number)
        os.utime(folder / f"{number}.bmp", ns=(0, 10**18 - number * 10**9))
    receiving = watch(pipeline, folder, "--count", "1000")
    assert receiving.ends() == 0
    expected = [f"{number}.bmp" for number in reversed(range(1000))]
    assert [one.original_name for one in messages(pipeline)] == expected


# What is an event.


def receive_series(pipeline: Pipeline, folder: Path, series: Sequence[Image.Image]) -> None:
    """Receive these images, from PNG files."""
    for number, image in enumerate(series):
        image.save(folder / f"{number:03d}.png")
    pipeline.receive("--from", str(folder))


@pytest.mark.slow
def test_a_star_amid_noise(pipeline: Pipeline, folder: Path) -> None:
    """With a threshold noise is no event and a new star is; why, is kept for each image."""
    images = [grey(sky(4, (60, 36) if number in (4, 5) else None)) for number in range(8)]
    analysis = pipeline.start("image_analysis.py", "--threshold", "8")
    alert = pipeline.start("image_event_alert.py")
    receive_series(pipeline, folder, [*images, images[-1]])
    analysis.says("00000  first image")
    line = analysis.says("00001  no event: largest block difference .* is under the threshold 8")
    analysis.says("00008  unchanged")
    alert.says("00006  ALERT")
    assert pipeline.ids("image-events") == ["00004", "00006"]  # it comes, and it goes
    for record in pipeline.records("image-events"):
        event = parse(record.value, ImageEvent)
        assert 8 <= (event.block_difference or 0) < 20
        assert event.threshold == 8
    description = (pipeline.data / "image_event_database/image_event_00004.txt").read_text()
    names = [one.split(":")[0] for one in description.splitlines()]
    assert names == [
        *("Image event", "Image", "Previous image", "Original file", "Difference image"),
        *("Received", "Size", "L2 norm", "RMS difference", "Largest block difference"),
        *("Threshold", "Pixels changed", "Changed box"),
    ]
    assert "\nThreshold: 8\n" in description
    assert " of 255, in a block of 8 x 8 pixels\n" in description
    records = pipeline.records("images-without-event")
    without = {one.image_id: one for one in (parse(r.value, ImageWithoutEvent) for r in records)}
    reasons = {name: one.reason for name, one in without.items()}
    assert reasons == {
        "00000": "first image",
        **dict.fromkeys(["00001", "00002", "00003", "00005", "00007"], "below threshold"),
        "00008": "same bytes",
    }
    measured = without["00001"].block_difference
    assert measured is not None
    assert f"{measured:.4g} " in line
    assert 0 < measured < 8
    assert without["00001"].previous_image_id == "00000"
    assert without["00001"].threshold == 8
    command(pipeline, "audit")
    why = command(pipeline, "why", "00004", "00001", "00000", "00008", "00099", status=1)
    why.says("00004  .*event, compared with 00003, largest block difference .*, threshold 8")
    why.says("00001  .*no event: below threshold, compared with 00000, largest .*, threshold 8")
    why.says("00000  .*no event: first image")
    why.says("00008  .*no event: same bytes, compared with 00007")
    why.says("00099  nothing was decided yet")


@pytest.mark.slow
def test_the_audit_knows_the_threshold(pipeline: Pipeline, folder: Path) -> None:
    """It makes the event's files again byte for byte, and finds an event that must not be none."""
    analysis = pipeline.start("image_analysis.py", PIPELINE_THRESHOLD="8")
    pipeline.start("image_event_alert.py").says("Kafka at")
    images = [grey(sky(4, (60, 36) if number == 3 else None)) for number in range(4)]
    receive_series(pipeline, folder, images)
    pipeline.waits_for("alerts", 1)
    paths = [
        pipeline.data / f"image_event_database/image_event_00003.{kind}" for kind in ("txt", "jpg")
    ]
    before = [path.read_bytes() for path in paths]
    for path in paths:
        path.unlink()
    command(pipeline, "audit", status=1)
    command(pipeline, "audit", "--repair")
    assert [path.read_bytes() for path in paths] == before
    assert analysis.stop() == 0
    # A noisy image more, whose message says a threshold that it has reached.
    picture(folder / "x.png", 9)
    pipeline.receive("--from", str(folder / "x.png"))
    lying = pipeline.start("image_analysis.py", "--threshold", "1e9")
    lying.says("00004  no event")
    command(pipeline, "audit")


def test_dusk_is_told_as_a_changed_scene(pipeline: Pipeline, folder: Path) -> None:
    """Infrared and exposure are events of the kind `scene changed`; a person is told as before.

    Who wants no changed scenes is told of the person alone; the audit knows the kinds.
    """
    (pipeline.data / "recipients.toml").write_text(
        '[guard]\nurl = "json://localhost:9/"\nscene_changes = false\ngive_up_after = 0\n'
    )
    rule = {"PIPELINE_THRESHOLD": "10", "PIPELINE_SCENE_CHANGE": "80"}
    analysis = pipeline.start("image_analysis.py", **rule)
    alert = pipeline.start("image_event_alert.py")
    day, night = sky(3) + 60, sky(3)
    person = sky(3) + 15
    person[40:60, 10:20] += 60
    series = [day, day, night, night, sky(3) + 15, person]
    receive_series(pipeline, folder, [grey(counts) for counts in series])
    analysis.says("00002  SCENE CHANGED: .* % of the pixels")
    analysis.says("00005  CHANGED: ")
    alert.says("00004  ALERT: scene changed: image 00004 differs from image 00003; see ")
    alert.says("00005  ALERT: image 00005 differs from image 00004; see ")
    events = [parse(one.value, ImageEvent) for one in pipeline.waits_for("image-events", 3)]
    assert {one.image_id: one.kind for one in events} == {
        "00002": "scene changed",
        "00004": "scene changed",
        "00005": "changed",
    }
    alerts = [parse(one.value, Alert) for one in pipeline.waits_for("alerts", 3)]
    assert {one.image_id for one in alerts if one.kind == "scene changed"} == {"00002", "00004"}
    description = (pipeline.data / events[0].path).read_text()
    assert "\nKind: scene changed\n" in description
    assert "\nScene changes: over 80 % of the pixels\n" in description
    told = pipeline.run_here("image_event_alert.py", "--dry-run")
    assert "00002  not guard: the scene changed, and scene_changes is false" in told.output
    assert "00005  would tell guard" in told.output
    why = pipeline.run_here("why", "00004")
    assert "event: scene changed, compared with 00003" in why.output
    assert "scene changes over 80 %" in why.output
    assert pipeline.run_here("audit").status == 0


def test_another_size_is_an_event_at_any_threshold(pipeline: Pipeline, folder: Path) -> None:
    """What only one of two images has differs by full scale."""
    analysis = pipeline.start("image_analysis.py", "--threshold", "255")
    receive_series(pipeline, folder, [grey(sky()), grey(sky()[:, :-1]), grey(sky() + 90)])
    analysis.says("00001  CHANGED")
    analysis.says("00002  CHANGED")


@pytest.mark.slow
def test_what_a_mask_covers_is_ignored(pipeline: Pipeline, folder: Path, tmp_path: Path) -> None:
    """A change there is none; the records say which mask; the audit wants the same one."""
    mask = np.zeros((64, 96), np.uint8)
    mask[:, 50:] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    path = str(tmp_path / "mask.png")
    analysis = pipeline.start("image_analysis.py", PIPELINE_MASK=path)
    alert = pipeline.start("image_event_alert.py")
    stars = [None, (60, 36), (20, 36), (20, 40)]
    images = [grey(sky(0, star)) for star in stars]
    receive_series(pipeline, folder, [*images, images[-1].crop((0, 0, 60, 64))])
    alert.says("00003  ALERT")
    analysis.says("00004  unchanged")
    analysis.says("00004  the mask has 96 x 64 pixels, and the image 60 x 64")
    assert analysis.output.count("the mask has") == 1
    assert pipeline.ids("image-events") == ["00002", "00003"]
    event = parse(pipeline.records("image-events")[0].value, ImageEvent)
    assert event.box is not None
    assert event.box[2] <= 50
    description = (pipeline.data / event.path).read_text()
    assert f"\nMask: SHA-256 {event.mask_sha256}\n" in description
    without = [
        parse(one.value, ImageWithoutEvent) for one in pipeline.records("images-without-event")
    ]
    assert [(one.image_id, one.reason) for one in without] == [
        *(("00000", "first image"), ("00001", "same pixels"), ("00004", "same pixels")),
    ]
    assert {one.mask_sha256 for one in without} == {event.mask_sha256}
    command(pipeline, "audit", mask=path)
    (pipeline.data / event.path).unlink()
    assert "other masks" in str(command(pipeline, "audit", status=1))
    command(pipeline, "audit", "--repair", "--mask", path)
    assert (pipeline.data / event.path).read_text() == description


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (["--threshold", "-1"], {}),
        (["--threshold", "nan"], {}),
        ([], {"PIPELINE_THRESHOLD": "much"}),
        (["--scene-change", "101"], {}),
        ([], {"PIPELINE_SCENE_CHANGE": "much"}),
        (["--mask", "nothing.png"], {}),
        ([], {"PIPELINE_MASK": "image_database"}),
        (["--mask", "rubbish.png"], {}),
    ],
)
def test_a_rule_that_makes_no_sense(
    lone: Pipeline, arguments: list[str], environment: dict[str, str]
) -> None:
    """One line that names it, and exit 2, at the start."""
    (lone.data / "rubbish.png").write_bytes(b"rubbish")
    line = lone.usage_error("image_analysis.py", *arguments, **environment)
    assert all(name in line for name in (*arguments[:1], *environment))


def test_deep_and_floating_images(pipeline: Pipeline, folder: Path) -> None:
    """They are compared in their own units, and NaN differs by nothing."""
    counts = sky() * 100
    blank = counts.astype(np.float32)
    blank[10:20, 10:20] = np.nan
    Image.fromarray(counts.astype(np.uint16)).save(folder / "0.tif")
    Image.fromarray(counts.astype(np.uint16) + 5).save(folder / "1.png")
    fits.PrimaryHDU(counts.astype(np.float32)).writeto(folder / "2.fits")
    fits.PrimaryHDU(blank).writeto(folder / "3.fits")
    Image.fromarray(blank[::-1] + np.float32(1)).save(folder / "4.tiff")
    analysis = pipeline.start("image_analysis.py", "--threshold", "0.9")
    pipeline.receive("--from", str(folder))
    analysis.says("00004  CHANGED")
    found = {
        one.image_id: one
        for one in (parse(r.value, ImageEvent) for r in pipeline.records("image-events"))
    }
    assert found.keys() == {"00001", "00002", "00004"}
    assert found["00001"].block_difference == 5
    assert found["00004"].block_difference == pytest.approx(1, abs=1e-4)
    assert pipeline.records("dead-letters") == []


@pytest.mark.slow
def test_on_an_object_store(stored: StoredPipeline, folder: Path) -> None:
    """As in directories: extensions, the memory of a watched directory, and the mock after it."""
    for name in ("a.png", "b.fits", "c.png"):
        picture(folder / name, ord(name[0]))
        os.utime(folder / name, (ord(name[0]), ord(name[0])))
    analysis = stored.start("image_analysis.py")
    receiving = watch(stored, folder)
    receiving.says("00002  received: c.png")
    assert receiving.stop() == 0
    receiving = watch(stored, folder)
    receiving.says("image_receiving: from")
    picture(folder / "d.png", 0)
    receiving.says("00003  received: d.png")
    assert receiving.stop() == 0
    assert receiving.lines[-1] == "image_receiving: received 1 image; 0 set aside"
    assert [name for name in stored.files("image_database") if name[0] != "."] == [
        *("00000.png", "00001.fits", "00002.png", "00003.png"),
    ]
    stored.receive("--count", "1")
    analysis.says("00004  unchanged")
    assert analysis.stop() == 0
    stored.receive("--from", str(folder / "b.fits"))
    analysis = stored.start("image_analysis.py")
    analysis.says("00005  CHANGED")
