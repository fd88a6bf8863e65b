"""The command-line options of the three programs."""

import argparse
import os
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.comparison.decode import decode
from pipeline.comparison.measure import Rule, mask_of
from pipeline.errors import InvalidInput
from pipeline.messages import SOURCE
from pipeline.notify.recipients import Recipient, read_recipients
from pipeline.pictures.files import files_of, read_picture
from pipeline.settings import REPOSITORY, Location, Parser, Settings, matching
from pipeline.store.names import IMAGE_DATABASE, IMAGE_EVENT_ALERTS, IMAGE_EVENT_DATABASE, digest


@dataclass(frozen=True)
class ReceivingOptions:
    """What `image_receiving.py` is asked to receive."""

    sources: list[str]
    count: int  # images of each source
    interval: float  # seconds between two images of a source
    paths: list[str]  # files and directories; none: the mock camera
    files: list[str]  # all the files that the paths name, unless a directory is watched
    ignored: list[str]  # lines about what else is in the directories
    watch: bool
    accept_damaged: bool  # takes files whose damage decoding doesn't mind

    def expected_count(self, set_aside: int) -> int:
        """How many images there must be at the end, if so many files were set aside."""
        if self.paths:
            return min(self.count, len(self.files) - set_aside)
        return self.count * len(self.sources)


def receiving_options(
    arguments: list[str] | None = None,
) -> tuple[ReceivingOptions, Settings]:
    """The options and settings; ends the program with 2 if one makes no sense."""
    parser = Parser("Receive images, from files or made from the original: store, publish them.")
    count = matching("0*[1-9][0-9]{0,8}", "a whole number from 1 to 999999999")
    source = matching(f"({SOURCE})?", "1 to 64 of a-z, 0-9 and _")
    about = "images of each source; default: 11, or all that the files have"
    parser.add_argument("--count", metavar="N", type=count, help=about)
    sources = matching("[1-9][0-9]{0,2}", "a whole number from 1 to 999")
    seconds = matching(r"[0-9]{1,5}(\.[0-9]+)?", "a number of seconds, from 0 to 99999")
    about = "default: one without a name; may be given several times"
    parser.add_argument("--source", metavar="NAME", type=source, action="append", help=about)
    about = "as --source cam1 --source cam2 ... up to this number"
    parser.add_argument("--sources", metavar="N", type=sources, help=about)
    about = "between two images of a source; default: 0, as fast as it goes"
    parser.add_argument("--interval", metavar="SECONDS", type=seconds, default="0", help=about)
    about = "files, and directories of them, in the order of their names: JPEG, PNG, TIFF, FITS"
    parser.add_argument(
        "--from", metavar="PATH", dest="paths", nargs="+", action="extend", default=[], help=about
    )
    about = "take what comes to this directory, too, until Ctrl-C; remembers what it has taken"
    parser.add_argument("--watch", action="store_true", help=about)
    about = "take damaged pictures, too, if they can be decoded at all; else they are set aside"
    parser.add_argument("--accept-damaged", action="store_true", help=about)
    given = parser.parse_args(arguments)
    if given.source and given.sources:
        parser.error("--source and --sources: give one of the two")
    if given.watch and [Path(path).is_dir() for path in given.paths] != [True]:
        parser.error("--watch: give one directory with --from")
    numbered = [f"cam{number}" for number in range(1, int(given.sources or 0) + 1)]
    named = list(dict.fromkeys(given.source or [""]))
    if given.paths and len(numbered or named) > 1:
        parser.error("--from: one source at a time")
    files: list[str] = []
    ignored: list[str] = []
    if given.paths and not given.watch:
        try:
            files, ignored = files_of(given.paths)
        except InvalidInput as reason:
            parser.error(f"--from: {reason}")
    settings = parser.settings(given)
    if given.watch and settings.data.directory:
        for name in (IMAGE_DATABASE, IMAGE_EVENT_DATABASE, IMAGE_EVENT_ALERTS):
            ours = settings.data.directory / name
            if ours.exists() and ours.samefile(*given.paths):
                parser.error(f"--watch: {given.paths[0]!r} is the pipeline's own; watch another")
    options = ReceivingOptions(
        sources=numbered or named,
        count=int(given.count or (10**9 if given.paths else 11)),
        interval=float(given.interval),
        paths=given.paths,
        files=files,
        ignored=ignored,
        watch=given.watch,
        accept_damaged=given.accept_damaged,
    )
    return options, settings


@dataclass(frozen=True)
class AlertOptions:
    """Whom `image_event_alert.py` is asked to notify."""

    recipients: dict[str, Recipient]  # by name
    is_dry_run: bool  # only say who would be notified


def analysis_options(arguments: Sequence[str] | None = None) -> tuple[Rule, Settings]:
    """The rule and the settings; an option that makes no sense ends the program with 2."""
    parser = Parser("Analyse images: compare each with the one before it; a change is an event.")
    add_rule(parser)
    options = parser.parse_args(arguments)
    settings = parser.settings(options)
    return read_rule(parser, options), settings


def alert_options(arguments: Sequence[str] | None = None) -> tuple[AlertOptions, Settings]:
    """The options and the settings; an option that makes no sense ends the program with 2."""
    parser = Parser("Alert: tell the interested parties of each image event.")
    add_recipients(parser)
    about = "only say who would be told of which of the events that there are, and when"
    parser.add_argument("--dry-run", action="store_true", help=about)
    options = parser.parse_args(arguments)
    settings = parser.settings(options)
    recipients = recipients_of(parser, options.recipients, settings.data)
    return AlertOptions(recipients, options.dry_run), settings


def add_rule(parser: Parser) -> None:
    """Add the options that say which change is an image event."""
    number = matching(r"[0-9]{1,10}(\.[0-9]{1,20})?(e-?[0-9]{1,2})?", "a number, as in 10")
    about = "the least block difference that is an event, in the image's own units; 0: any; "
    parser.add_setting("--threshold", "N", "0", number, about)
    about = "an event of more than so many percent of the pixels is told as a changed scene; "
    percent = matching(r"100|[0-9]{1,2}(\.[0-9]{1,20})?", "percent, from 0 to 100, as in 80")
    parser.add_setting("--scene-change", "PERCENT", None, percent, about)
    about = "an image that isn't black where changes are to be ignored; "
    parser.add_setting("--mask", "FILE", None, about=about)


def read_rule(parser: Parser, options: Namespace) -> Rule:
    """The rule that the options give; a mask that can't be used ends the program with 2."""
    threshold = float(options.threshold)
    scene_change = None if options.scene_change is None else float(options.scene_change) / 100
    if not options.mask:
        return Rule(threshold, scene_change=scene_change)
    try:
        content = read_picture(options.mask).content
        return Rule(threshold, mask_of(decode(content)), digest(content), scene_change)
    except InvalidInput as reason:
        parser.error(f"--mask or PIPELINE_MASK: {reason}")


def add_recipients(parser: Parser) -> None:
    """Add the option that names the file of the recipients."""
    about = "who else is told; not given, recipients.toml beside the data, if there is one; "
    parser.add_setting("--recipients", "FILE", None, about=about)


def recipients_of(
    parser: argparse.ArgumentParser, named: str | None, data: Location
) -> dict[str, Recipient]:
    """The recipients by name: of the named file, or of recipients.toml if there is such a file.

    A file that can't be used ends the program with 2.
    """
    path = (data.directory or REPOSITORY) / "recipients.toml"
    if not named and not os.path.lexists(path):
        return {}
    try:
        return read_recipients(Path(named) if named else path)
    except InvalidInput as reason:
        parser.exit(2, f"{parser.prog}: {reason}\n")
