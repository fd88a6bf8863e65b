"""When pictures are received, and how many together."""

import time
from collections.abc import Iterator

from pipeline.pictures.picture import Picture
from pipeline.stop_signal import StopSignal


def paced(
    pictures: Iterator[Picture | None], count: int, interval: float, stop: StopSignal
) -> Iterator[Picture | None]:
    """The first `count` pictures with so many seconds between them, until asked to stop.

    `None` means that no picture is due now: asking for the next one waits.
    """
    began = time.monotonic()
    received = 0
    while received < count and not stop:
        due = began + received * interval
        if time.monotonic() < due:
            yield None
            stop.wait(due - time.monotonic())
            continue
        try:
            picture = next(pictures)
        except StopIteration:
            return
        yield picture
        if picture:
            received += 1
        else:  # after a pause the camera goes on at the same pace, and does not catch up
            began = max(began, time.monotonic() - received * interval)


def batches(
    pictures: Iterator[Picture | None], max_count: int, max_bytes: int
) -> Iterator[list[Picture]]:
    """The pictures in batches that end after so many pictures, or after about so many bytes.

    A batch also ends when no picture is there now, so that none waits for the next one.
    """
    batch: list[Picture] = []
    size = 0
    for picture in pictures:
        if picture:
            batch.append(picture)
            size += len(picture.content)
        if batch and (picture is None or len(batch) == max_count or size >= max_bytes):
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
