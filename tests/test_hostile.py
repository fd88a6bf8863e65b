"""Files that mean harm: refused with a reason, and the rest goes on. Memory has a limit."""

import io
import os
import resource
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from conftest import Pipeline
from PIL import Image

from pipeline.errors import InvalidInput
from pipeline.settings import Location, Settings
from pipeline.store.database import Database
from pipeline.store.instance_lock import InstanceLock


def bomb(path: Path) -> None:
    """A PNG of 100,000 x 100,000 black pixels, 10 MB of them there."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content).to_bytes(4, "big")
        return len(content).to_bytes(4, "big") + kind + content + check

    header = (100_000).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    rows = zlib.compress(bytes(10_000_000))
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)


def text_bomb(path: Path) -> None:
    """A PNG whose comment unpacks to 100 MB."""
    content = io.BytesIO()
    Image.new("RGB", (4, 4)).save(content, "PNG")
    comment = b"zTXtComment\0\0" + zlib.compress(bytes(100_000_000), 9)
    length = (len(comment) - 4).to_bytes(4, "big")
    header, rest = content.getvalue()[:33], content.getvalue()[33:]
    path.write_bytes(header + length + comment + zlib.crc32(comment).to_bytes(4, "big") + rest)


def endless(path: Path) -> None:
    """A file of 1 TB, no byte of which takes room."""
    with path.open("wb") as file:
        file.truncate(2**40)


def exif_trap(path: Path) -> None:
    """A JPEG whose EXIF block points at itself and beyond its end."""
    entry = b"\x12\x01\x03\x00\xff\xff\xff\xff\x00\x00\x00\x08"
    exif = b"Exif\0\0II*\0\x08\0\0\0\x05\0" + 5 * entry + b"\x08\0\0\0"
    content = io.BytesIO()
    Image.new("RGB", (64, 64)).save(content, "JPEG", exif=exif)
    path.write_bytes(content.getvalue()[:-20])


def out_of_the_directory(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def program(path: Path) -> None:
    path.write_bytes(Path(sys.executable).read_bytes()[:100_000])


def postscript(path: Path) -> None:
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) (w) file\n")


HOSTILE: dict[str, Callable[[Path], None]] = {
    "more than 100,000,000": bomb,
    "image file is truncated": exif_trap,
    "has a compressed text that is too large": text_bomb,
    "more than 268435456": endless,
    "is no regular file": os.mkfifo,
    "Is a directory|no regular file": Path.mkdir,
    "is not in image_database": out_of_the_directory,
    "Symlink loop|Too many levels": loop,
    "is no image of": program,
}


def message(name: str, number: int) -> bytes:
    """That an image is there."""
    path = f"image_database/{name}.jpg"
    fields = {"image_id": f"{number:05d}", "source": "", "number": number, "path": path}
    return msgspec.json.encode(fields)


def test_hostile_files(pipeline: Pipeline) -> None:
    """Each is set aside with its reason, in little memory; the images around them are compared."""
    analysis = pipeline.start("image_analysis.py")
    pipeline.receive("--count", "3")
    for number, make in enumerate([*HOSTILE.values(), postscript], 100):
        make(pipeline.data / "image_database" / f"{make.__name__}.jpg")
        pipeline.put("images", message(make.__name__, number))
    pipeline.receive("--count", "2")
    analysis.says("00003  CHANGED")
    letters = pipeline.waits_for("dead-letters", len(HOSTILE) + 1)
    assert len(letters) == len(HOSTILE) + 1
    for reason in HOSTILE:
        analysis.says(f"set aside .*({reason})")
    status = Path(f"/proc/{analysis.process.pid}/status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    assert int(peak.split()[1]) < 400_000, peak  # kB
    assert analysis.stop() == 0


def test_too_little_memory(pipeline: Pipeline) -> None:
    """It is waited for like a full disk: nothing is set aside, and with more of it all is done."""
    Image.new("RGB", (8000, 8000)).save(pipeline.data / "image_database" / "00000.jpg")
    with Image.open(pipeline.data / "image_database" / "00000.jpg") as image:
        image.putpixel((5, 5), (255, 255, 255))
        image.save(pipeline.data / "image_database" / "00001.jpg")
    analysis = pipeline.start("image_analysis.py")
    pipeline.receive("--source", "other")
    analysis.says("other-00010  unchanged")
    pid = analysis.process.pid
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    limit = int(status["VmSize"].split()[0]) * 1024 + 200_000_000
    before = resource.prlimit(pid, resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    for number in (0, 1):
        pipeline.put("images", message(f"{number:05d}", number))
    analysis.says("there is not enough memory; trying again in")
    resource.prlimit(pid, resource.RLIMIT_AS, before)
    analysis.says("00001  CHANGED")
    assert pipeline.records("dead-letters") == []
    assert "Traceback" not in analysis.output


def test_a_file_that_grows_while_it_is_read() -> None:
    """One that has more bytes than it had is unusable; it isn't read without end."""
    # Of no length, as the system says, with something in it all the same.
    proc = Database(Location("/proc"), "self")
    with pytest.raises(InvalidInput, match="changed while it was read"):
        proc.read("self/status")


def test_a_link_in_the_place_of_a_half_written_file(data: Path, tmp_path: Path) -> None:
    """It isn't followed: what it leads to stays as it is, and the file is written."""
    copy = InstanceLock("test", Settings("localhost:9092", {}, 0, Location(str(data))))
    database = Database(Location(str(data)), "image_database", copy)
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (data / "image_database" / f".00000.jpg.{copy.name}.part").symlink_to(victim)
    database.write("image_database/00000.jpg", b"new")
    database.sync()
    assert victim.read_bytes() == b"precious"
    assert (data / "image_database" / "00000.jpg").read_bytes() == b"new"
    assert not (data / "image_database" / "00000.jpg").is_symlink()
