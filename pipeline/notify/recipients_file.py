"""Reads `recipients.toml`: a table for each recipient. A mistake is said with its line.

What is wrong is said in the words of the file: what was found, and what is allowed there.
"""

import json
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_type_hints

import msgspec

from pipeline.errors import InvalidInput
from pipeline.messages import Recipient as Name
from pipeline.notify.recipients import Recipient
from pipeline.terminal import printable
from pipeline.wording import did_you_mean

SECONDS = "a number of seconds, from 0 to 86400"
REGION = "four whole numbers, 0 or more, as in [0, 0, 512, 512]"
ALLOWED = {  # what each setting may be
    "url": 'a text, as in "mailtos://user:password@example.org?to=night@example.org"',
    "sources": 'a list of sources, each "" or 1 to 64 of a-z 0-9 _, as in ["cam1", "cam2"]',
    "least_changed_share": "a number from 0 to 1",
    "least_rms": "a number, 0 or more",
    "scene_changes": "true or false",
    "inside": REGION,
    "outside": REGION,
    "quiet_hours": 'a text, as in "22:00-07:00"',
    "time_zone": 'a text, as in "Europe/Berlin"',
    "cool_down": SECONDS,
    "digest": SECONDS,
    "give_up_after": SECONDS,
    "attach": "true or false",
}
NAME = "a recipient's name is 1 to 64 of A-Z a-z 0-9 _ -"
# What tomllib says of a file that is no TOML, and the same in our words.
NO_TOML = (
    (r"Cannot declare \(?'(.*?)',?\)? twice", "there are two tables [{}]; give one another name"),
    (r"Cannot .*|Duplicate .*", "what stands here is given twice"),
    (r"Expected '='.*", "behind a setting's name comes =, as in digest = 3600"),
    (r"Expected '\]+' at the end of a.*", "a table's name has no ] at its end, as in [night]"),
    (r"Expected newline or end of document.*", "what stands behind the value is no part of it"),
    (r"Invalid value", 'what stands behind = is no value; a text has quotes, as in "night"'),
    (r"Invalid (initial character for a key|statement).*", "here must be a [name] or name ="),
    (r"Invalid date.*", "what stands here is no date; a text has quotes"),
    (
        r"Unterminated string|Illegal character '.n'|Expected ['\"]+",
        "a text has no quote at its end",
    ),
    (r"Unclosed array", "a list has no ] at its end, or a comma is missing"),
    (r"Unclosed inline table", "a table in braces has no } at its end, or a comma is missing"),
    (r"(Illegal|Found invalid) character.*", "there is a character that may not be there"),
    (r"Unescaped .*|Escaped .*|Invalid hex value", "a backslash in a text is written twice"),
    (r"Exceeds the limit .*", "a number is too long"),
)


def read_recipients(path: Path) -> dict[str, Recipient]:
    """The recipients in a file. Raises `InvalidInput` with the line and the reason."""
    try:
        if path.exists() and not path.is_file():
            raise InvalidInput(f"{path} is no file")
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        number = error.object[: error.start].count(b"\n") + 1
        raise InvalidInput(f"{path}, line {number}: it is no text in UTF-8") from error
    except OSError as error:
        raise InvalidInput(f"{path} can't be read: {error.strerror or error}") from error
    try:
        tables = tomllib.loads("\n".join(lines))
    except ValueError as error:  # tomllib's own error, or int()'s for a number with 5000 digits
        found = re.fullmatch(r"(.*) \(at (?:line (\d+), column \d+|end of document)\)", str(error))
        reason, line = (found[1], found[2]) if found else (str(error), None)
        words = f"it is no TOML: {_toml_fault(reason)}"
        raise InvalidInput(printable(f"{path}, line {line or len(lines)}: {words}")) from error
    except RecursionError as error:
        raise InvalidInput(f"{path}: too many brackets in each other") from error
    recipients = {}
    for name, table in tables.items():
        try:
            recipients[name] = _read_table(name, table)
        except ValueError as error:
            number = _line_of(lines, name, str(error))
            raise InvalidInput(printable(f"{path}, line {number}: {error}")) from error
    return recipients


def _toml_fault(reason: str) -> str:
    for pattern, words in NO_TOML:
        if found := re.fullmatch(pattern, reason, re.DOTALL):
            return words.format(*found.groups())
    return reason


def _read_table(name: str, table: Any) -> Recipient:
    """The recipient that a table describes. Raises `ValueError`."""
    if not isinstance(table, dict):
        if name in ALLOWED:
            raise ValueError(f"{name} is in no table; write the recipient's [name] above it")
        shown = "a list" if isinstance(table, list) else _shown(table)
        raise ValueError(f"{name} is {shown}; it must be a table, as in [{name}]")
    try:
        msgspec.convert(name, Name)
    except msgspec.ValidationError as error:
        raise ValueError(f"{name!r} is no name; {NAME}") from error
    kinds = get_type_hints(Recipient, include_extras=True)
    fields = {}
    for setting, value in table.items():
        if isinstance(value, dict):
            raise ValueError(f"{setting!r} is a table in {name!r}; {NAME}, without a dot")
        if setting not in ALLOWED:
            question = did_you_mean(setting, ALLOWED) or f"; there are {', '.join(ALLOWED)}"
            raise ValueError(f"{setting!r} is no setting of a recipient{question}")
        try:
            fields[setting] = msgspec.convert(value, kinds[setting])
        except msgspec.ValidationError as error:
            shown = "no text" if setting == "url" else _shown(value)  # a URL may be secret
            raise ValueError(f"{setting} is {shown}; it must be {ALLOWED[setting]}") from error
    if "url" not in fields:
        raise ValueError(f"{name} has no url, which says where to: {ALLOWED['url']}")
    return Recipient(**fields)


def _shown(value: Any) -> str:
    """A value as the file has it, or about so; a long one is cut."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:60]}…"


def _line_of(lines: Sequence[str], name: str, reason: str) -> int:
    """The number of the first line that, as the file's last line, would give the same error."""
    for number in range(1, len(lines)):
        try:
            tables = tomllib.loads("\n".join(lines[:number]))
            if name in tables:
                _read_table(name, tables[name])
        except tomllib.TOMLDecodeError:
            continue
        except ValueError as error:
            if str(error) == reason:
                return number
    return len(lines)
