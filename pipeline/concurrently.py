"""Runs functions in threads: a function for several sources, or one that may never return."""

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from threading import Thread
from typing import TypeVar

from pipeline.errors import FatalError, Stopped
from pipeline.stop_signal import StopSignal

T = TypeVar("T")

MAX_THREADS = 999  # as many as there may be sources


def run_concurrently(
    run: Callable[[str], T], sources: Iterable[str], stop: StopSignal
) -> dict[str, T]:
    """Run the function for all sources at the same time, each in a thread; what it returned.

    The sources may come one by one, while those before them are received already.

    After an error of one source the others are asked to stop. Once all have ended, this raises
    `FatalError` with the texts of all errors. A source that was only stopped returns nothing, which
    is no error.
    """

    def stop_others(ended: "Future[T]") -> None:
        if ended.exception():
            stop.ask()

    runs: dict[str, Future[T]] = {}
    with ThreadPoolExecutor(MAX_THREADS) as threads:
        for source in sources:
            runs[source] = threads.submit(run, source)
            runs[source].add_done_callback(stop_others)
        # Python handles signals in the main thread alone, and only when that thread wakes up.
        while wait(runs.values(), timeout=0.5).not_done:
            pass
    errors = [error for future in runs.values() if (error := future.exception())]
    for error in errors:
        if not isinstance(error, FatalError):
            raise error
    texts = [str(error) for error in errors if not isinstance(error, Stopped)]
    if texts:
        raise FatalError("; ".join(texts))
    return {source: future.result() for source, future in runs.items() if not future.exception()}


def run_in_thread(function: Callable[[], T]) -> Future[T]:
    """Run a function that may never return, which doesn't keep the program from ending.

    Raises `RuntimeError` if the machine has no thread left.
    """
    result: Future[T] = Future()

    def run() -> None:
        try:
            result.set_result(function())
        except Exception as error:
            result.set_exception(error)

    Thread(target=run, daemon=True).start()
    return result
