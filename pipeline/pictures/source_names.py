"""Which source a picture belongs to, by the name of its file: `front` has `front_0001.jpg`.

The pattern is that of file names in a shell, with `{source}` where the source's name stands:

    {source}_*      front_1.jpg, front_2.jpg and back_1.jpg are of front and back
    {source}/*      so are front/1.jpg, front/2026-11-27/2.jpg and back/1.jpg

A pattern without a slash is that of the file's own name, in whichever directory the file is.
"""

import fnmatch
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from pipeline.errors import InvalidInput
from pipeline.messages import SOURCE
from pipeline.terminal import printable

MAX_SOURCES = 999  # that are received at the same time
PLACE = "{source}"
HOW = f"write {PLACE} where the source's name stands, as in '{PLACE}_*' or '{PLACE}/*'"


class SourcePattern:
    """Where the name of the source stands in the names of the files."""

    def __init__(self, text: str) -> None:
        """Raises `InvalidInput` unless the pattern says where a source's name begins and ends."""
        if text.count(PLACE) != 1:
            raise InvalidInput(f"{text!r} has {text.count(PLACE)} times {PLACE}; {HOW}")
        if f"{PLACE}*" in text or f"*{PLACE}" in text:
            raise InvalidInput(
                f"{text!r} has a * beside {PLACE}, so that nothing says where the source's name "
                f"begins or ends; {HOW}"
            )
        self.text = text
        # Both stand for a name without a slash; of several that fit, the shortest is taken.
        translated = fnmatch.translate(text.replace(PLACE, "\0"))
        self._expression = re.compile(translated.replace(re.escape("\0"), "(?P<source>[^/]+?)"))

    def name_in(self, path: str) -> str:
        """The source's name as it stands in the path; empty if the path doesn't fit.

        The path is the one below the directory of all pictures.
        """
        is_path = "/" in self.text
        found = self._expression.fullmatch(path if is_path else path.rpartition("/")[2])
        return found["source"] if found else ""


def source_named(name: str) -> str:
    """The source of this name: lower case, with _ for each - . and space; empty if it is none."""
    source = re.sub(r"[-. ]", "_", name.lower())
    return source if re.fullmatch(SOURCE, source, re.ASCII) else ""


@dataclass
class Sources:
    """Which file is of which source."""

    of_files: dict[str, str] = field(default_factory=dict)  # the sources by path
    spelled: dict[str, str] = field(default_factory=dict)  # names that are not spelled as sources
    left_alone: dict[str, str] = field(default_factory=dict)  # by kind: a line about the first


def sources_of(paths: Iterable[str], directory: str, pattern: SourcePattern) -> Sources:
    """The sources of these files, all of which are in or below the directory.

    Of files that were named themselves, the directory is empty.
    """
    found = Sources()
    for path in paths:
        name = pattern.name_in(path[len(directory) :].lstrip("/") if directory else path)
        source = source_named(name)
        if source:
            found.of_files[path] = source
            if name != source:
                found.spelled[name] = source
        elif name:
            line = f"{path}: {name!r} is no source, which has 1 to 64 of a-z, 0-9 and _"
            found.left_alone.setdefault(f"source {name}", line)
        else:
            line = f"{path}: its name doesn't fit {pattern.text!r}"
            found.left_alone.setdefault("no source", line)
    return found


def spelling(name: str, source: str) -> str:
    """The line that says how a source's name is spelled."""
    return f"the source of {printable(repr(name))} in the files' names is {source}"
