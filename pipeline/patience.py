"""Faults that pass: said, and tried again with growing pauses, for as long as it takes."""

from tenacity import RetryCallState, retry, retry_if_exception_type, wait_exponential

from pipeline import say


class Passing(Exception):
    """A fault that goes away when somebody mends it; the text says which, for people."""


def _say_again(state: RetryCallState) -> None:
    error, pause = state.outcome and state.outcome.exception(), state.upcoming_sleep
    what = "there is not enough memory" if isinstance(error, MemoryError) else error
    say(f"{what}; trying again in {pause:g} s")


# Without limit: nothing may be lost, and a stage that is told to stop ends all the same.
patiently = retry(
    retry=retry_if_exception_type((Passing, MemoryError)),
    wait=wait_exponential(max=30),
    before_sleep=_say_again,
)
