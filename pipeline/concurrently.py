"""Runs a function for several sources at the same time."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

from pipeline.errors import FatalError, Stopped
from pipeline.stop_signal import StopSignal

T = TypeVar("T")


def for_each(sources: Sequence[str], run: Callable[[str], T], stop: StopSignal) -> list[T]:
    """Run the function for all sources at the same time; what it returns for those it ends for.

    An error of one source asks the others to stop. Raises `FatalError` with the texts of all
    sources' errors once all have ended. A source that was only stopped is no error.
    """

    def stop_others(ended: "Future[T]") -> None:
        if ended.exception():
            stop.ask()

    with ThreadPoolExecutor(len(sources)) as threads:
        runs = [threads.submit(run, source) for source in sources]
        for future in runs:
            future.add_done_callback(stop_others)
        # Python handles signals in the main thread alone, and only when that thread wakes up.
        while wait(runs, timeout=0.5).not_done:
            pass
    errors = [error for future in runs if (error := future.exception())]
    for error in errors:
        if not isinstance(error, FatalError):
            raise error
    texts = [str(error) for error in errors if not isinstance(error, Stopped)]
    if texts:
        raise FatalError("; ".join(texts))
    return [future.result() for future in runs if not future.exception()]
