"""Words for people: counts, and what decoders say of what they can't decode."""

import re
from collections.abc import Iterable
from difflib import get_close_matches

KINDS = {
    "array": "a list",
    "bool": "true or false",
    "datetime": "a time",
    "float": "a number",
    "int": "a whole number",
    "null": "nothing",
    "object": "an object",
    "str": "a text",
}
COMPARED = {">=": "at least", "<=": "at most", ">": "more than", "<": "less than", "": "exactly"}
# What msgspec says, without the place at its end, and the same in our words.
DECODED = (
    (r"Object missing required field `(.+)`", "{place}the field {0} is missing"),
    (r"Object contains unknown field `(.+)`", "{place}there is no field {0}"),
    (r"Expected `(.+)`, got `(.+)`", "{it} is {1}, and must be {0}"),
    (r"Expected `(\w+)` matching regex .*", "{it} has characters or a length that it can't have"),
    (r"Expected `(\w+)` of length ([<>=]*) ?(\d+).*", "{it} must have a length of {1} {2}"),
    (r"Expected `(\w+)` ([<>]=?) (\S+)", "{it} must be {0}, {1} {2}"),
    (r"Expected `(\w+)`", "{it} must be {0}"),
    (r"Number out of range", "{it} is a number beyond all limits"),
    (r"Expected `datetime` with a timezone component", "{it} is a time without a time zone"),
    (r"Invalid RFC3339 encoded datetime", "{it} is no time, as in 2026-11-25T18:30:00Z"),
    (r"Invalid (?:enum )?value (.+)", "{it} is {0}, which it can't be"),
    (r"JSON is malformed: .* \(byte (\d+)\)", "it is no JSON from byte {0} on"),
    (r"Input data was truncated", "it is no JSON: it ends too early"),
)


def count_of(number: int, thing: str) -> str:
    """How many there are of a thing: `1 image`, `2 images`, `3 image events`."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def percent_of(share: float) -> str:
    """A share of 0 to 1 in percent, with three digits, and never rounded to all or nothing."""
    text = f"{100 * share:.3g}"
    return f"{text if share == 1 or text != '100' else 99.9} %"


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """The question whether one of these words was meant; empty if none of them is like it."""
    return "".join(f"; did you mean {match}?" for match in get_close_matches(word, words, 1))


def decoding_fault(error: Exception) -> str:
    """What is wrong with a message or a file that could not be decoded."""
    if isinstance(error, RecursionError):
        return "it has too many brackets in each other"
    if isinstance(error, OverflowError):
        return "it has a time that is in no calendar"
    if isinstance(error, UnicodeDecodeError):
        return f"it is no text in UTF-8 from byte {error.start} on"
    said, _, place = str(error).partition(" - at `")
    name = place.removesuffix("`").removeprefix("$").removeprefix(".")
    for pattern, words in DECODED:
        if found := re.fullmatch(pattern, said, re.DOTALL):
            parts = [_in_words(part) for part in found.groups()]
            return words.format(*parts, it=name or "it", place=f"in {name} " if name else "")
    return str(error)


def _in_words(part: str) -> str:
    kinds = [KINDS.get(kind, kind) for kind in part.split(" | ")]
    return COMPARED.get(part, " or ".join(kinds))
