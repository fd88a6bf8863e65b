"""Numbers and times as pages, forms and addresses show them."""

import numpy as np

from pipeline.messages import moment
from pipeline.terminal import printable

LONGEST = 60  # characters of what somebody has typed that are repeated to them


def clock(seconds: int | None) -> str:
    """A time for people, in UTC."""
    return "unknown" if seconds is None else f"{moment(seconds):%Y-%m-%d %H:%M:%S}"


def form_time(seconds: int | None) -> str:
    """A time in a form or an address."""
    return "" if seconds is None else moment(seconds).isoformat()[:19]


def percent(share: float | None) -> str:
    """A share for people."""
    return "unknown" if share is None else f"{share:.3g} %"


def plain(number: float | None) -> str:
    """A number in a form or an address, without an exponent."""
    return "" if number is None else np.format_float_positional(number, trim="-")


def quoted(text: str) -> str:
    """What somebody has typed, in a sentence for them."""
    shown = printable(text[:LONGEST])
    return f"“{shown}{'…' if len(text) > LONGEST else ''}”"


def order(*places: int | str) -> str:
    """A text that comes after those of smaller places, when browsers compare texts."""
    return ".".join(
        place if isinstance(place, str) else f"{place + 10**19:020d}" for place in places
    )
