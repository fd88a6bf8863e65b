"""A watched directory: each file in it is taken once and whole, waited for, or left alone."""

import io
import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from conftest import slow, until
from PIL import Image

from pipeline.errors import InvalidInput
from pipeline.pictures import listing, watch
from pipeline.pictures.listing import WatchedDirectory
from pipeline.pictures.picture import Picture
from pipeline.pictures.seen_files import SeenFiles, hash_of_name
from pipeline.pictures.source_names import SourcePattern
from pipeline.pictures.watch import DirectoryWatcher
from pipeline.stop_signal import StopSignal

QUICKER = 5  # so many times as quick as without a test, all that rests does


def encoded(value: int, image_format: str = "JPEG", size: tuple[int, int] = (64, 48)) -> bytes:
    """A picture, another for each value, which JPEG keeps apart, too."""
    pixels = np.random.default_rng(value).integers(1, 255, (*size[::-1], 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, image_format)
    return out.getvalue()


def put(path: Path, content: bytes) -> None:
    """Put a file in place whole, by a rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(content)
    part.rename(path)


class AskedToStop(StopSignal):
    """Asked to stop by a test; pytest keeps its own signals."""

    def __init__(self) -> None:
        self._asked = False


class Receiver:
    """Receives a source of a directory in a thread, as image_receiving.py does."""

    def __init__(self, directory: WatchedDirectory, source: str, seen: SeenFiles) -> None:
        self.pictures: list[Picture] = []
        self.aside: dict[str, str] = {}
        self._seen = seen
        self._stop = AskedToStop()
        self._watcher = DirectoryWatcher(directory, source, seen, self._set_aside, self._stop)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _set_aside(self, path: str, reason: InvalidInput, fingerprint: str = "") -> None:
        assert path not in self.aside
        self.aside[path] = str(reason)
        self._seen.add(fingerprint, -1)

    def _run(self) -> None:
        batch: list[Picture] = []
        for picture in self._watcher.pictures():
            if picture:
                batch.append(picture)
                continue
            for one in batch:
                self._seen.add(one.fingerprint, len(self.pictures))
                self.pictures.append(one)
            batch = []
            if self._stop:
                return

    @property
    def names(self) -> list[str | None]:
        """The names of the files, in the order in which they were received."""
        return [picture.original_name for picture in self.pictures]

    @property
    def contents(self) -> list[bytes]:
        """The pictures' bytes."""
        return [picture.content for picture in self.pictures]

    def stop(self) -> None:
        """Stop, after the pictures in hand."""
        self._stop.ask()
        self._thread.join()


Start = Callable[..., Receiver]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts to receive what comes to a directory, as `seen` remembers it; all rests are short."""
    for name in ("REST", "LONG_REST", "SAID_AFTER", "UNUSABLE_REST", "RESTLESS", "RESTLESS_SAID"):
        monkeypatch.setattr(watch, name, getattr(watch, name) / QUICKER)
    monkeypatch.setattr(watch.FileVersion, "rest", watch.REST)
    for module in (watch, listing):
        monkeypatch.setattr(module, "LISTING_PAUSE", listing.LISTING_PAUSE / QUICKER)
    started = []

    def receiver(seen: SeenFiles, source: str = "", pattern: str = "") -> Receiver:
        chosen = SourcePattern(pattern) if pattern else None
        ours = str(tmp_path / "watched" / "image_database")
        directory = WatchedDirectory(str(tmp_path / "watched"), chosen, source, [ours])
        started.append(Receiver(directory, source, seen))
        return started[-1]

    (tmp_path / "watched").mkdir()
    yield receiver
    for one in started:
        one.stop()


@pytest.fixture
def watched(tmp_path: Path) -> Path:
    """The watched directory."""
    return tmp_path / "watched"


def test_directories_below(start: Start, watched: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Those that are there and those that come, by time, then by name; each kind left alone once.

    A loop of links does no harm, a link to a picture that is there is no picture more, and what
    the pipeline itself stores is none of a camera's.
    """
    for number, name in enumerate(["b/12/1.jpg", "a/frame10.jpg", "a/frame9.jpg", "top.png"]):
        put(watched / name, encoded(number, "PNG" if name.endswith("png") else "JPEG"))
        os.utime(watched / name, (1_000_000 - number // 3, 1_000_000 - number // 3))
    (watched / "a" / "loop").symlink_to(watched)
    (watched / "latest.jpg").symlink_to(watched / "b" / "12" / "1.jpg")
    (watched / "latest").symlink_to(watched / "b")
    for name in ("image_database/00000.jpg", ".thumbs/x.jpg", "@eaDir/y.jpg", ".hidden.jpg"):
        put(watched / name, encoded(9))
    for number in range(50):
        (watched / f"IMG_{number}.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    (watched / "README").touch()
    receiver = start(SeenFiles({}))
    until(lambda: len(receiver.names) == 4, "the pictures")
    assert receiver.names == ["top.png", "frame9.jpg", "frame10.jpg", "1.jpg"]
    put(watched / "new" / "13" / "2.jpg", encoded(5))
    until(lambda: len(receiver.names) == 5, "a picture in a new directory")
    receiver.stop()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5, lines
    for said in (
        *("IMG_0.HEIC: .heic is no extension", "README: without an extension", ": hidden"),
        *("latest.jpg: a link to a picture", "image_database: the pipeline's own"),
    ):
        assert any(said in line and line.startswith("left alone  ") for line in lines), said


@pytest.mark.parametrize("is_renamed", [True, slow(False)])
def test_a_name_that_is_written_over(start: Start, watched: Path, is_renamed: bool) -> None:
    """Nearly each of its pictures is taken, whole and once, though it never rests for long."""
    receiver = start(SeenFiles({}))
    written = []
    for number in range(14):
        written.append(encoded(number))
        if is_renamed:
            put(watched / "latest.jpg", written[-1])
        else:
            (watched / "latest.jpg").write_bytes(written[-1])
        time.sleep(0.4)
    receiver.stop()
    contents = receiver.contents
    assert set(Counter(contents).values()) == {1}
    assert contents == [content for content in written if content in contents]
    assert len(contents) >= 10


def test_what_never_rests_is_said(
    start: Start, watched: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that always changes and can't be known to be whole is named once, and not taken."""
    receiver = start(SeenFiles({}))
    said = ""
    with (watched / "stream.bmp").open("wb") as file:
        while "waits for" not in said:
            file.write(encoded(1, "BMP"))
            file.flush()
            time.sleep(0.05)
            said += capsys.readouterr().out
    assert "stream.bmp: it has changed all the time" in said
    assert receiver.names == []


def test_a_new_picture_of_the_same_size_and_time(start: Start, watched: Path) -> None:
    """It is seen, put there by a rename or written in place; other rights make nothing new.

    What was remembered by an earlier version, without bytes and status, stays seen.
    """
    time_of_all = (1_000_000, 1_000_000)
    path, old = watched / "latest.bmp", watched / "old.bmp"
    for name in (path, old):
        put(name, encoded(1, "BMP"))
        os.utime(name, time_of_all)
    seen = SeenFiles({})
    seen.watch(str(watched))
    seen.add(hash_of_name(str(old), old.stat()), 7)
    receiver = start(seen)
    until(lambda: receiver.names == ["latest.bmp"], "the first one")

    part = watched / ".part"
    part.write_bytes(encoded(2, "BMP"))
    os.utime(part, time_of_all)
    part.rename(path)
    until(lambda: len(receiver.names) == 2, "the one by a rename")
    path.write_bytes(encoded(3, "BMP"))
    os.utime(path, time_of_all)
    until(lambda: len(receiver.names) == 3, "the one in place")
    assert receiver.contents == [encoded(value, "BMP") for value in (1, 2, 3)]

    receiver.stop()
    for rights in (0o600, 0o640):  # while it is watched, and while it isn't
        path.chmod(rights)
        shutil.copystat(path, path)
        receiver = start(seen)
        put(watched / f"{rights}.jpg", encoded(rights))
        until(lambda: receiver.names, "another one")  # noqa: B023 - called at once
        receiver.stop()
        assert receiver.names == [f"{rights}.jpg"]
    # The files of a disk that was copied to another one have the same bytes.
    shutil.copytree(watched, watched.with_name("copied"))
    shutil.rmtree(watched)
    watched.with_name("copied").rename(watched)
    receiver = start(seen)
    put(watched / "last.jpg", encoded(9))
    until(lambda: receiver.names, "the last one")
    receiver.stop()
    assert receiver.names == ["last.jpg"]


def mosaic() -> bytes:
    """A FITS file of three images."""
    rng = np.random.default_rng(6)
    parts = [fits.PrimaryHDU(rng.normal(9, 1, (64, 96)).astype(np.float32))]
    parts += [fits.ImageHDU(rng.normal(9, 1, (64, 96)).astype(np.float32)) for _ in range(2)]
    out = io.BytesIO()
    fits.HDUList(parts).writeto(out)
    return out.getvalue()


def test_half_a_file(
    start: Start,
    watched: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A mosaic amid its second part, and a BMP that is half zeros, are waited for, which is said.

    They are taken once they are whole.
    """
    monkeypatch.setattr(watch, "UNUSABLE_REST", 60)  # a busy machine must not be too late
    whole = {"amid.fits": mosaic(), "sized.bmp": encoded(1, "BMP")}
    begun = whole["amid.fits"].index(b"XTENSION") + 1000
    (watched / "amid.fits").write_bytes(whole["amid.fits"][:begun])
    (watched / "sized.bmp").write_bytes(
        whole["sized.bmp"][:5000].ljust(len(whole["sized.bmp"]), b"\0")
    )
    receiver = start(SeenFiles({}))
    said = ""
    while "amid" not in said or "sized" not in said:
        time.sleep(0.01)
        said += capsys.readouterr().out
    assert "sized.bmp: it ends with zeros" in said
    assert f"amid.fits: it has {begun} of the " in said
    assert receiver.names == []
    for name, content in whole.items():
        (watched / name).write_bytes(content)
    until(lambda: len(receiver.names) == 2, "both")
    receiver.stop()
    assert sorted(receiver.contents) == sorted(whole.values())
    assert receiver.aside == {}


def test_between_two_parts(start: Start, watched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mosaic whose next part is yet to come seems to be whole, and has to rest for long."""
    monkeypatch.setattr(watch, "LONG_REST", 4)
    content = mosaic()
    boundary = content.index(b"XTENSION")
    with (watched / "camera.fits").open("wb") as file:
        file.write(content[:boundary])
        file.flush()
        receiver = start(SeenFiles({}))
        time.sleep(2)
        assert receiver.names == []
        file.write(content[boundary:])
    until(lambda: receiver.names, "the mosaic")
    receiver.stop()
    assert receiver.contents == [content]


def test_what_only_seems_to_be_half(start: Start, watched: Path) -> None:
    """A black BMP is taken after a long rest, before those that are newer; a cut JPEG set aside."""
    out = io.BytesIO()
    Image.new("RGB", (64, 48)).save(out, "BMP")
    put(watched / "black.bmp", out.getvalue())
    put(watched / "newer.bmp", encoded(1, "BMP"))
    put(watched / "cut.jpg", encoded(1)[:-500])
    for age, name in enumerate(["newer.bmp", "black.bmp", "cut.jpg"]):
        os.utime(watched / name, (1_000_000 - age, 1_000_000 - age))
    receiver = start(SeenFiles({}))
    until(lambda: len(receiver.names) == 2 and receiver.aside, "all")
    assert receiver.names == ["black.bmp", "newer.bmp"]
    assert "cut.jpg is a damaged image" in receiver.aside[str(watched / "cut.jpg")]


def test_sources_from_names(
    start: Start, watched: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each source is received by itself, from wherever its names come; others are said once."""
    for number in range(3):
        put(watched / "2026" / f"Front-Door_{number}.jpg", encoded(number))
        put(watched / f"back_{number}.jpg", encoded(10 + number))
        put(watched / f"odd{number}.jpg", encoded(20 + number))
    front = start(SeenFiles({}), "front_door", "{source}_*")
    back = start(SeenFiles({}), "back", "{source}_*")
    until(lambda: len(front.names) == len(back.names) == 3, "all of them")
    assert set(back.names) == {f"back_{number}.jpg" for number in range(3)}
    said = capsys.readouterr().out
    assert "odd0.jpg: its name doesn't fit '{source}_*'" in said
    assert "odd1" not in said
    assert "the source of 'Front-Door' in the files' names is front_door" in said


@pytest.mark.parametrize(
    ("pattern", "path", "name"),
    [
        ("{source}_*", "front_1.png", "front"),
        ("{source}_*", "2026/11/front_door_1.png", "front"),
        ("{source}_[0-9]*", "front_door_1.png", "front_door"),
        ("*_{source}.jpg", "2026_11_front.jpg", "front"),
        ("{source}/*", "front/2026/11/1.png", "front"),
        ("*/{source}_*", "2026/front_1.png", "front"),
        ("cam-{source}.???", "cam-3.jpg", "3"),
        ("{source}/*", "front.png", ""),
        ("{source}_*", "_1.png", ""),
        ("{source}_*", "front.png", ""),
    ],
)
def test_the_source_in_a_name(pattern: str, path: str, name: str) -> None:
    assert SourcePattern(pattern).name_in(path) == name


def test_the_order_of_a_mixture(start: Start, watched: Path) -> None:
    """A picture that must rest longer is not overtaken by one that is newer."""
    for age, name in enumerate(["c.png", "b.fits", "a.png"]):
        if name.endswith("fits"):
            fits.PrimaryHDU(np.full((30, 40), 9, np.int16)).writeto(watched / name)
        else:
            (watched / name).write_bytes(encoded(age, "PNG"))
        os.utime(watched / name, (1_000_000 - age, 1_000_000 - age))
    receiver = start(SeenFiles({}))
    until(lambda: len(receiver.names) == 3, "all")
    assert receiver.names == ["a.png", "b.fits", "c.png"]
