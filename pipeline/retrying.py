"""Retries after transient errors, with growing pauses, for as long as it takes."""

from tenacity import RetryCallState, retry, retry_if_exception_type, wait_exponential

from pipeline.errors import TransientError
from pipeline.terminal import say


def _say_again(state: RetryCallState) -> None:
    error, pause = state.outcome and state.outcome.exception(), state.upcoming_sleep
    what = "there is not enough memory" if isinstance(error, MemoryError) else error
    say(f"{what}; trying again in {pause:g} s")


# A decorator without limit: nothing may be lost, and a stage that is asked to stop ends anyway.
retrying = retry(
    retry=retry_if_exception_type((TransientError, MemoryError)),
    wait=wait_exponential(max=30),
    before_sleep=_say_again,
)
