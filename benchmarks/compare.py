"""Compare: our comparison against the plain way, against other libraries, and against the limit.

All begin with the bytes of two JPEG files in memory. Where the first image can stay decoded between
two comparisons, it is: in ours, in the limit and in the libraries; in the plain way and in
ImageMagick it can't.
"""

import importlib
import io
import math
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.images import KINDS, Kind, Pair
from benchmarks.rounds import ROUNDS, Figure, interleaved, over, seconds
from pipeline.comparison.decode import decode
from pipeline.comparison.measure import Rule
from pipeline.errors import InvalidInput
from pipeline.image_events import NewEvent, decide
from pipeline.messages import ReceivedImage
from pipeline.pictures.previous_images import StoredImage
from pipeline.store.names import digest

RECEIVED = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Found:
    """The result of a way of comparing two images."""

    is_changed: bool
    l2_norm: float = math.nan
    picture: bytes = b""  # the difference image as JPEG; empty if the way makes none


Way = Callable[[Pair], Callable[[], Found]]  # prepares, and returns the function that is timed


def ours(pair: Pair) -> Callable[[], Found]:
    """What image_analysis.py does with an image if the image before it is in memory.

    Check its SHA-256; if the bytes differ from those before, decode the image and compare; of a
    change make the difference image, the description and the message.
    """
    sums = digest(pair.before), digest(pair.after)
    first, second = (
        ReceivedImage(
            image_id=f"{number:05}",
            source="",
            number=number,
            path=f"{number:05}.jpg",
            sha256=sha256,
        )
        for number, sha256 in enumerate(sums)
    )
    previous = StoredImage(first, pair.before, decode(pair.before))

    def once() -> Found:
        content = bytes(memoryview(pair.after))  # a copy in memory, as if read from a file
        if digest(content) != second.sha256:
            raise InvalidInput(f"{second.path} has other bytes than when it was stored")
        is_same = previous.content == content
        image = StoredImage(second, content, previous.pixels if is_same else decode(content))
        decision = decide(previous, image, Rule(), RECEIVED)
        if not isinstance(decision, NewEvent):
            return Found(is_changed=False)
        event = decision.message
        return Found(True, event.l2_norm or 0, decision.files[str(event.difference_path)])

    return once


def plain(pair: Pair) -> Callable[[], Found]:
    """The plain way: decode both, subtract as float64, take the norm, draw the absolute difference.

    Images of two sizes are padded with black, so that each pixel counts, as in ours.
    """

    def once() -> Found:
        before, after = (
            np.asarray(Image.open(io.BytesIO(content)), np.float64)
            for content in (pair.before, pair.after)
        )
        if before.shape != after.shape:
            shape = np.maximum(before.shape, after.shape)
            before, after = (
                np.pad(pixels, [(0, missing) for missing in shape - pixels.shape])
                for pixels in (before, after)
            )
        difference = after - before
        l2_norm = float(np.linalg.norm(difference))
        if l2_norm == 0:
            return Found(is_changed=False)
        picture = io.BytesIO()
        Image.fromarray(np.abs(difference).astype(np.uint8)).save(picture, "JPEG")
        return Found(True, l2_norm, picture.getvalue())

    return once


def limit(pair: Pair) -> Callable[[], Found]:
    """The least that any way must do: decode an image, go over the pixels once, encode an image.

    libjpeg-turbo decodes the second image; OpenCV's absolute difference, the fastest pass that we
    know, goes over the overlap; libjpeg-turbo encodes our difference image, in its size, quality
    and chroma. All memory is allocated before. Nothing is checked, measured, drawn or described.
    """
    cv2: Any = importlib.import_module("cv2")
    simplejpeg = _simplejpeg()
    colours = "GRAY" if Image.open(io.BytesIO(pair.before)).mode == "L" else "RGB"
    before = simplejpeg.decode_jpeg(pair.before, colours)
    after = simplejpeg.decode_jpeg(pair.after, colours)
    height, width = np.minimum(before.shape, after.shape)[:2]
    difference = np.empty((height, width, before.shape[2]), np.uint8)
    cv2.absdiff(before[:height, :width], after[:height, :width], difference)
    drawn = simplejpeg.decode_jpeg(ours(pair)().picture, "GRAY")

    def once() -> Found:
        simplejpeg.decode_jpeg(pair.after, colours, buffer=after)
        cv2.absdiff(before[:height, :width], after[:height, :width], difference)
        return Found(is_changed=True, picture=simplejpeg.encode_jpeg(drawn, 75, "GRAY", "Gray"))

    return once


def _simplejpeg() -> Any:
    return importlib.import_module("simplejpeg")


def opencv(pair: Pair) -> Callable[[], Found]:
    """OpenCV: decode, absolute difference, norm, encode the difference."""
    cv2: Any = importlib.import_module("cv2")
    before = cv2.imdecode(np.frombuffer(pair.before, np.uint8), cv2.IMREAD_UNCHANGED)

    def once() -> Found:
        after = cv2.imdecode(np.frombuffer(pair.after, np.uint8), cv2.IMREAD_UNCHANGED)
        difference = cv2.absdiff(before, after)
        l2_norm = cv2.norm(difference)
        if l2_norm == 0:
            return Found(is_changed=False)
        return Found(True, l2_norm, cv2.imencode(".jpg", difference)[1].tobytes())

    return once


def mean_squared_error(pair: Pair) -> Callable[[], Found]:
    """scikit-image's mean squared error: a number, and no picture."""
    metrics: Any = importlib.import_module("skimage.metrics")
    before = np.asarray(Image.open(io.BytesIO(pair.before)))

    def once() -> Found:
        after = np.asarray(Image.open(io.BytesIO(pair.after)))
        return Found(is_changed=metrics.mean_squared_error(before, after) > 0)

    return once


def structural_similarity(pair: Pair) -> Callable[[], Found]:
    """scikit-image's structural similarity: a number, and no picture."""
    metrics: Any = importlib.import_module("skimage.metrics")
    before = np.asarray(Image.open(io.BytesIO(pair.before)))

    def once() -> Found:
        after = np.asarray(Image.open(io.BytesIO(pair.after)))
        channels = 2 if after.ndim == 3 else None
        found = metrics.structural_similarity(before, after, channel_axis=channels)
        return Found(is_changed=found < 1)

    return once


def imagemagick(pair: Pair) -> Callable[[], Found]:
    """ImageMagick's `compare` as a program: a number, and no picture."""
    program = shutil.which("compare")
    if not program:
        raise ModuleNotFoundError
    directory = tempfile.TemporaryDirectory()
    paths: list[Path] = []
    for name, content in (("before.jpg", pair.before), ("after.jpg", pair.after)):
        paths.append(Path(directory.name, name))
        paths[-1].write_bytes(content)

    def once(_keep: object = directory) -> Found:
        command = [program, "-metric", "RMSE", *map(str, paths), "null:"]
        status = subprocess.run(command, capture_output=True, check=False)
        if status.returncode > 1:
            raise RuntimeError(status.stderr)
        return Found(is_changed=status.returncode == 1)

    return once


def pixelmatch(pair: Pair) -> Callable[[], Found]:
    """pixelmatch: the number of pixels that look different, and no picture."""
    match: Any = importlib.import_module("pixelmatch.contrib.PIL")
    before = Image.open(io.BytesIO(pair.before))
    before.load()

    def once() -> Found:
        return Found(is_changed=match.pixelmatch(before, Image.open(io.BytesIO(pair.after))) > 0)

    return once


def imagehash(pair: Pair) -> Callable[[], Found]:
    """imagehash: the distance of the two images' perceptual hashes."""
    hashes: Any = importlib.import_module("imagehash")
    before = hashes.phash(Image.open(io.BytesIO(pair.before)))

    def once() -> Found:
        return Found(is_changed=before - hashes.phash(Image.open(io.BytesIO(pair.after))) > 0)

    return once


@dataclass(frozen=True)
class Other:
    """A library or program that a user would pick instead."""

    name: str
    way: Way
    most_pixels: float = math.inf  # larger images would take too many seconds
    needs_one_size: bool = True

    def declines(self, kind: Kind, pair: Pair) -> str:
        """Why this way isn't measured with these images; empty if it is."""
        if kind.width * kind.height > self.most_pixels:
            return "too slow"
        sizes = {Image.open(io.BytesIO(content)).size for content in (pair.before, pair.after)}
        return "needs one size" if self.needs_one_size and len(sizes) > 1 else ""


OTHERS = (
    Other("OpenCV", opencv),
    Other("scikit-image, MSE", mean_squared_error),
    Other("scikit-image, SSIM", structural_similarity, most_pixels=5e5),
    Other("ImageMagick", imagemagick, most_pixels=3e6),
    Other("pixelmatch", pixelmatch, most_pixels=5e5),
    Other("imagehash", imagehash, needs_one_size=False),
)


def figures(kinds: tuple[Kind, ...] = KINDS, rounds: int = ROUNDS) -> Iterator[Figure]:
    """How many times as fast ours is, how near to the limit, and how much memory it needs."""
    for kind in kinds:
        for pair in kind.pairs():
            yield from _times(kind, pair, rounds)
    for kind in kinds:
        yield from _memory(kind, rounds)


def _times(kind: Kind, pair: Pair, rounds: int) -> Iterator[Figure]:
    ways: dict[str, Way] = {"ours": ours, "plain way": plain}
    if pair.is_changed:
        ways["limit"] = limit
    notes = {other.name: other.declines(kind, pair) for other in OTHERS}
    ways |= {other.name: other.way for other in OTHERS if not notes[other.name]}
    measures = {}
    for name, way in ways.items():
        try:
            once = way(pair)
        except ModuleNotFoundError:
            notes[name] = "not installed"
            continue
        if once().is_changed != pair.is_changed:
            notes[name] = "is wrong"
        measures[name] = seconds(once)
    turns = interleaved(measures, rounds)

    def figure(group: str, name: str, bar: float | None = None) -> Figure:
        row, note = f"{kind.name}, {pair.name}", notes.get(name, "")
        if name not in turns:
            return Figure(group, row, name, [], bar=bar, note=note)
        if name == "limit":
            ratios = over(turns["ours"], turns[name])
            return Figure(group, row, name, ratios, "lower", bar, note=note)
        return Figure(group, row, name, over(turns[name], turns["ours"]), bar=bar, note=note)

    # The bars against the plain way hold for colour images.
    bars = {"identical bytes": 100, "same pixels, other bytes": None}
    yield figure("compare", "plain way", None if kind.is_grey else bars.get(pair.name, 5))
    if pair.is_changed:
        yield figure("compare", "limit", 1.6)
    for other in OTHERS:
        yield figure("compare with others", other.name)


def _memory(kind: Kind, rounds: int) -> Iterator[Figure]:
    """The peak of memory in bytes a pixel, with the first image's but without the files' bytes.

    The second image is turned: the difference image is then the largest.
    """
    pair = kind.pairs()[-1]
    measures = {
        name: partial(_peak_a_pixel, way, pair, kind.width * kind.height)
        for name, way in (("ours", ours), ("plain way", plain))
    }
    turns = interleaved(measures, rounds)
    for name, bar in (("ours", 20), ("plain way", None)):
        row = f"{kind.name}, {pair.name}"
        yield Figure("memory", row, name, turns[name], "lower", bar, unit=" bytes a pixel")


def _peak_a_pixel(way: Way, pair: Pair, pixels: int) -> float:
    """The peak of a new process's memory, over what the process has at its start."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(_peak, way, pair).result() / pixels


def _peak(way: Way, pair: Pair) -> int:
    for warm_up in Kind("warm", 64, 64).pairs():
        way(warm_up)()
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM, the peak of the memory
    idle = _status("VmRSS")
    way(pair)()
    return _status("VmHWM") - idle


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
