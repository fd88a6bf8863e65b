"""A week of a camera's directory, played fast, while the receiver is killed each day."""

import io
import random
import shutil
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from conftest import Pipeline, Program, until
from PIL import Image

from pipeline.messages import ReceivedImage, parse

DAYS, PICTURES = 7, 12  # and in each hour one
FORMATS = ("jpg", "png", "jpg", "fits", "jpg", "bmp")


class Camera:
    """Fills a directory by date and hour, and writes each picture over `latest.jpg`, too."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.dated: dict[Path, bytes] = {}
        self.latest: list[bytes] = []
        self._folder = folder
        self._chance = random.Random(seed)
        self._numbers = np.random.default_rng(seed)

    def take(self, day: int, hour: int) -> None:
        """Take a picture, and write it as cameras do: in pieces, or under another name first."""
        extension = FORMATS[len(self.dated) % len(FORMATS)]
        path = (
            self._folder / f"2026-11-{20 + day}" / f"{hour:02d}" / f"{len(self.dated)}.{extension}"
        )
        path.parent.mkdir(parents=True)
        content = self._picture(extension)
        self.dated[path] = content
        match self._chance.randrange(3):
            case 0:
                part = path.with_suffix(".part")
                part.write_bytes(content)
                part.rename(path)
            case 1:
                self._write(path, content, self._chance.randrange(1, len(content)))
            case 2:  # its full size first
                self._write(path, bytes(len(content)), 1)
                with path.open("r+b") as file:
                    file.write(content)
        self.latest.append(self._picture("jpg"))
        (self._folder / "latest.part").write_bytes(self.latest[-1])
        (self._folder / "latest.part").rename(self._folder / "latest.jpg")

    def _picture(self, extension: str) -> bytes:
        counts = self._numbers.integers(1, 255, (32, 48), dtype=np.uint8)
        out = io.BytesIO()
        if extension == "fits":
            parts = [fits.PrimaryHDU(counts.astype(np.int16)), fits.ImageHDU(counts)]
            fits.HDUList(parts).writeto(out)
        else:
            Image.fromarray(counts).save(out, {"jpg": "JPEG"}.get(extension, extension))
        return out.getvalue()

    def _write(self, path: Path, content: bytes, begun: int) -> None:
        with path.open("wb") as file:
            file.write(content[:begun])
            file.flush()
            time.sleep(self._chance.uniform(0, 0.5))
            file.write(content[begun:])


@pytest.mark.slow
def test_a_week_of_a_camera(pipeline: Pipeline, tmp_path: Path) -> None:
    """Each picture once, none twice and none half, in spite of pauses, rests and kills.

    What is written over `latest.jpg` is received as often as the receiver sees it, each once.
    """
    folder = tmp_path / "camera"
    folder.mkdir()
    camera, chance = Camera(folder, 1), random.Random(2)

    def start() -> Program:
        return pipeline.start("image_receiving.py", "--watch", "--from", str(folder))

    def received() -> Counter[bytes]:
        found = [parse(one.value, ReceivedImage) for one in pipeline.records("images")]
        assert [message.number for message in found] == list(range(len(found)))
        return Counter((pipeline.data / message.path).read_bytes() for message in found)

    def live() -> None:
        for day in range(DAYS):
            for hour in range(PICTURES):
                camera.take(day, hour)
                time.sleep(0.1)

    living = threading.Thread(target=live)
    living.start()
    while living.is_alive():
        receiving = start()
        receiving.says("  received")
        time.sleep(chance.uniform(0, 4))
        receiving.process.kill()
        receiving.ends()
    living.join()
    receiving = start()
    until(lambda: set(camera.dated.values()) <= received().keys(), "all pictures")
    # What the camera deletes, as the oldest days when its disk is full, is no loss and no news.
    shutil.rmtree(folder / "2026-11-20")
    Image.new("L", (9, 9)).save(folder / "last.png")
    receiving.says("received: last.png")
    assert receiving.stop() == 0
    found = received()
    assert set(found.values()) == {1}
    of_camera = {*camera.dated.values(), *camera.latest, (folder / "last.png").read_bytes()}
    assert found.keys() <= of_camera
    assert camera.latest[-1] in found
    assert len(found.keys() & set(camera.latest)) > DAYS
    assert pipeline.records("dead-letters") == []
    assert pipeline.run_here("audit").status == 0
