"""Pacing: so many pictures, each when its time has come."""

import time
from argparse import Namespace
from collections.abc import Iterator

from pipeline.pictures.files import Picture
from pipeline.stop_signal import StopSignal


def due(
    pictures: Iterator[Picture | None], options: Namespace, stop: StopSignal
) -> Iterator[Picture | None]:
    """So many pictures, each when its time has come; None: there is none now, and next it waits."""
    began = time.monotonic()
    taken = 0
    while taken < options.count and not stop:
        next_time = began + taken * options.interval
        if time.monotonic() < next_time:
            yield None
            stop.wait(next_time - time.monotonic())
            continue
        try:
            picture = next(pictures)
        except StopIteration:
            return
        taken += picture is not None
        yield picture
        if picture is None:  # what comes late doesn't come faster
            began = max(began, time.monotonic() - taken * options.interval)
