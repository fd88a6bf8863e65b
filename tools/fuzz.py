"""Fuzz what strangers may send: a search, led by coverage, for what isn't refused as it should be.

    tools/python.sh tools/in_venv.py ci tools/fuzz.py messages|images [options]

The options are libFuzzer's: -max_total_time=60 ends it after a minute. What it finds is written to
a file crash-…, and belongs in the tests.
"""

import io
import sys
import tempfile
from pathlib import Path
from typing import Any

import atheris
import numpy as np

HERE = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(HERE), str(HERE / "tests")]

with atheris.instrument_imports(include=["PIL", "pipeline"]):
    from PIL import Image
    from tiff_writer import tiff

    from pipeline.comparison import planes
    from pipeline.comparison.decode import FORMATS, decode
    from pipeline.comparison.draw import draw
    from pipeline.comparison.measure import compare
    from pipeline.errors import InvalidInput
    from pipeline.messages import MESSAGE_TYPES, ReceivedImage, dump, parse
    from pipeline.terminal import printable

KIND_BY_BYTE = list(MESSAGE_TYPES.values())
SAMPLE = Image.effect_mandelbrot((9, 7), (-2, -1, 1, 1), 9).convert("RGB")

TIFFS: list[tuple[str, int, dict[str, Any]]] = [  # that Pillow can't decode
    ("u2", 3, {"photometric": 2, "apart": True, "order": ">"}),
    ("f4", 3, {"photometric": 2, "compression": 8, "predictor": 3}),
    ("u2", 5, {"tile": (16, 16), "compression": 5, "predictor": 2, "extra": [0] * 4}),
    ("f8", 1, {"is_big": True}),
    ("u1", 2, {"bits": 4, "extra": [0], "compression": 32773}),
]


def check_message(data: bytes) -> None:
    """Any bytes are a message that comes out as it went in, or unusable with a printable reason."""
    kind = KIND_BY_BYTE[data[0] % len(KIND_BY_BYTE)] if data else ReceivedImage
    try:
        message = parse(data[1:], kind)
    except InvalidInput as reason:
        if not printable(str(reason)).isprintable():
            raise AssertionError(reason) from reason
    else:
        if parse(dump(message), kind) != message:
            raise AssertionError(message)


def check_image(data: bytes) -> None:
    """Any bytes are an image that can be compared and drawn, or unusable."""
    try:
        image = decode(data)
    except InvalidInput:
        return
    change = compare(SAMPLE, image)
    if change:
        decode(draw(change))


def seeds(target: str) -> dict[str, bytes]:
    """Something of each kind to begin with."""
    if target == "messages":
        ids = b'"event_id":"00003","image_id":"00003"'
        return {
            "image": b'\0{"image_id":"00003","source":"","number":3,"path":"a/b.jpg"}',
            "event": b"\1{" + ids + b',"previous_image_id":"00002","path":"a"}',
            "alert": b"\2{" + ids + b',"path":"a"}',
        }
    found = {}
    for name in FORMATS:
        for mode in ("RGB", "L"):
            content = io.BytesIO()
            SAMPLE.convert(mode).save(content, name, exif=SAMPLE.getexif())
            found[f"{name}-{mode}"] = content.getvalue()
    for kind, count, how in TIFFS:
        samples = [np.asarray(SAMPLE.convert("L")).astype(kind)] * count
        found[f"TIFF-{kind}-{count}"] = tiff(samples, **how)
    return found


def main() -> None:
    """Fuzz until told to stop."""
    checks = {"messages": check_message, "images": check_image}
    if len(sys.argv) < 2 or sys.argv[1] not in checks:
        sys.exit(f"usage: fuzz.py {'|'.join(checks)} [libFuzzer options]")
    target = sys.argv.pop(1)
    # Large images are only slow; that they are refused, the tests hold.
    planes.MAX_PIXELS, planes.MAX_BYTES = 10**6, 8 * 10**6
    with tempfile.TemporaryDirectory() as corpus:
        for name, content in seeds(target).items():
            Path(corpus, name).write_bytes(content)
        limits = ["-timeout=30", "-rss_limit_mb=4096", "-max_len=4096"]
        atheris.Setup([sys.argv[0], *limits, *sys.argv[1:], corpus], checks[target])
        atheris.Fuzz()


if __name__ == "__main__":
    main()
