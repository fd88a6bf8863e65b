"""Make the pictures in docs/ anew, by running the pipeline and the viewer as they are now.

    .venv/bin/python tools/docs_pictures.py

image_event_00003.jpg is the mock camera's first image event: both images and their difference.
viewer_event.jpg and viewer_events.jpg are pages of the viewer. Needs chromium.
"""

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import sync_playwright

HERE = Path(__file__).resolve().parents[1]
DOCS = HERE / "docs"
PORT = 8765
STARS = ((700, 640), (260, 330), (820, 210), (420, 760))  # where new stars come, in pixels


def run_pipeline(data: Path, *arguments: str) -> "subprocess.Popen[str]":
    """Start the whole pipeline on this data directory, with its own Kafka."""
    return subprocess.Popen(
        [str(HERE / "run_pipeline.sh"), *arguments],
        env=os.environ | {"PIPELINE_DATA": str(data)},
        stdout=subprocess.PIPE,
        text=True,
    )


def side_by_side(*pictures: Path) -> Image.Image:
    """The pictures in a row, each 400 pixels high, with a gap of 10 pixels between."""
    images = [Image.open(path).convert("RGB").resize((400, 400)) for path in pictures]
    row = Image.new("RGB", (410 * len(images) - 10, 400), "white")
    for number, image in enumerate(images):
        row.paste(image, (410 * number, 0))
    return row


def with_star(original: Image.Image, place: tuple[int, int]) -> Image.Image:
    """The image with a new star: 160 counts at its centre, 4 pixels wide."""
    rows, columns = np.mgrid[: original.height, : original.width]
    distance = (columns - place[0]) ** 2 + (rows - place[1]) ** 2
    star = 160 * np.exp(-distance / (2 * 1.7**2))
    samples = np.asarray(original.convert("RGB"), float) + star[:, :, np.newaxis]
    return Image.fromarray(samples.clip(0, 255).astype(np.uint8))


def take_screenshots() -> None:
    """The viewer's list of events, and the page of an event."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": 1100, "height": 830}, color_scheme="dark")
        for path, name in (("/", "viewer_events"), ("/events/cam1-00001", "viewer_event")):
            page.goto(f"http://localhost:{PORT}{path}")
            page.wait_for_function("Array.from(document.images).every(i => i.complete)")
            page.wait_for_timeout(1000)  # what a page draws by itself has no event of its own
            page.screenshot(path=DOCS / f"{name}.jpg", type="jpeg", quality=85)
        browser.close()


def main() -> None:
    """Make all three pictures."""
    with tempfile.TemporaryDirectory() as temporary:
        data = Path(temporary)
        shutil.copytree(HERE / "image_original", data / "image_original")
        run_pipeline(data).communicate()
        event = data / "image_event_database" / "image_event_00003.jpg"
        images = [data / "image_database" / f"{number}.jpg" for number in ("00002", "00003")]
        side_by_side(*images, event).save(DOCS / "image_event_00003.jpg", quality=85)
        pictures = data / "pictures"
        pictures.mkdir()
        picture = Image.open(images[0]).convert("RGB")
        picture.save(pictures / "0.png")
        for number, place in enumerate(STARS, 1):
            picture = with_star(picture, place)
            picture.save(pictures / f"{number}.png")
        options = ("--from", str(pictures), "--source", "cam1", "--threshold", "10")
        with run_pipeline(data, *options, "--view", str(PORT)) as run:
            for line in run.stdout or ():
                if "the viewer is at" in line:
                    break
            take_screenshots()
            run.send_signal(signal.SIGINT)
            run.communicate()


if __name__ == "__main__":
    main()
