"""Words for people: counts, shares, and what is wrong with what can't be decoded."""

import re
from datetime import datetime
from typing import Annotated, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta, Struct

from pipeline.wording import count_of, decoding_fault, did_you_mean, percent_of


class Part(Struct, forbid_unknown_fields=True):
    """A part of what is decoded."""

    name: str = ""


class Thing(Struct, forbid_unknown_fields=True):
    """Something with fields of each kind that our messages have."""

    number: Annotated[int, Meta(ge=0, lt=10)]
    text: Annotated[str, Meta(pattern="^a$")] = "a"
    share: Annotated[float, Meta(le=1)] | None = None
    box: tuple[int, int] | None = None
    when: Annotated[datetime, Meta(tz=True)] | None = None
    parts: list[Part] = []
    kind: Literal["one", "two"] = "one"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "it is no JSON: it ends too early"),
        (b"rubbish", "it is no JSON from byte 0 on"),
        (b'{"number": 1}2', "it is no JSON from byte 14 on"),
        (b'"\xff"', "it is a text, and must be an object"),
        (b'{"number": "\xff"}', "number is a text, and must be a whole number"),
        (b'{"text": "\xff"}', "it is no text in UTF-8 from byte 0 on"),
        (b"[]", "it is a list, and must be an object"),
        (b"{}", "the field number is missing"),
        (b'{"number": "1"}', "number is a text, and must be a whole number"),
        (b'{"number": 1.5}', "number is a number, and must be a whole number"),
        (b'{"number": 1e999}', "number is a number beyond all limits"),
        (b'{"number": -1}', "number must be a whole number, at least 0"),
        (b'{"number": 10}', "number must be a whole number, at most 9"),
        (b'{"number": 1, "nr": 2}', "there is no field nr"),
        (b'{"number": 1, "text": "b"}', "text has characters or a length that it can't have"),
        (b'{"number": 1, "share": 2}', "share must be a number, at most 1.0"),
        (b'{"number": 1, "share": "x"}', "share is a text, and must be a number or nothing"),
        (b'{"number": 1, "box": [1]}', "box must have a length of exactly 2"),
        (b'{"number": 1, "box": [1, null]}', "box[1] is nothing, and must be a whole number"),
        (b'{"number": 1, "when": "now"}', "when is no time, as in 2026-11-25T18:30:00Z"),
        (b'{"number": 1, "when": "2026-11-25T18:30:00"}', "when is a time without a time zone"),
        (b'{"number": 1, "parts": [{"a": 1}]}', "in parts[0] there is no field a"),
        (b'{"number": 1, "kind": "three"}', "kind is 'three', which it can't be"),
    ],
)
def test_what_can_not_be_decoded(text: bytes, words: str) -> None:
    """It is said in plain words, with the field that it is about."""
    with pytest.raises((msgspec.MsgspecError, UnicodeDecodeError)) as raised:
        msgspec.json.decode(text, type=Thing)
    assert decoding_fault(raised.value) == words


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists))
def test_no_word_of_the_decoder(value: object) -> None:
    """Whatever a field holds, what is said of it is in our words."""
    for field in Thing.__struct_fields__:
        said = ""
        try:
            msgspec.convert({"number": 1, field: value}, Thing)
        except msgspec.ValidationError as error:
            said = decoding_fault(error)
        assert not re.search("`|Expected|Invalid", said)


def test_how_many() -> None:
    """One thing is one thing."""
    said = [count_of(number, "image event") for number in (0, 1, 2)]
    assert said == ["0 image events", "1 image event", "2 image events"]


def test_shares() -> None:
    """They are all in percent, and what isn't all or nothing isn't said to be."""
    shares = (0, 1e-8, 0.25, 0.9994, 0.99999, 1)
    said = ["0 %", "1e-06 %", "25 %", "99.9 %", "99.9 %", "100 %"]
    assert [percent_of(share) for share in shares] == said


def test_what_was_meant() -> None:
    """A word that is nearly right is recognized, and no other."""
    assert did_you_mean("urll", ["url", "digest"]) == "; did you mean url?"
    assert did_you_mean("rain", ["url", "digest"]) == ""
