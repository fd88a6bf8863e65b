"""The command-line options of the three programs."""

import argparse
import os
from argparse import ArgumentTypeError, Namespace
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.comparison.decode import FORMAT_NAMES, decode
from pipeline.comparison.measure import Rule, mask_of
from pipeline.errors import InvalidInput
from pipeline.messages import SOURCE
from pipeline.notify.recipients import Recipient
from pipeline.notify.recipients_file import read_recipients
from pipeline.pictures.files import read_picture
from pipeline.pictures.listing import WatchedDirectory, inodes
from pipeline.pictures.named_files import files_by_source, files_of
from pipeline.pictures.source_names import SourcePattern
from pipeline.settings import REPOSITORY, Location, Parser, Settings, matching
from pipeline.stop_signal import StopSignal
from pipeline.store.names import IMAGE_DATABASE, IMAGE_EVENT_ALERTS, IMAGE_EVENT_DATABASE, digest
from pipeline.terminal import say
from pipeline.wording import percent_of


@dataclass(frozen=True)
class ReceivingOptions:
    """What `image_receiving.py` is asked to receive."""

    sources: list[str]  # none if the names of watched files have them
    count: int  # images of each source
    interval: float  # seconds between two images of a source
    paths: list[str]  # files and directories; none: the mock camera
    files: dict[str, list[str]]  # by source: all files of the paths, unless a directory is watched
    ignored: list[str]  # lines about what else is in the directories
    watched: WatchedDirectory | None
    accept_damaged: bool  # takes files whose damage decoding doesn't mind

    def sources_to_receive(self, stop: StopSignal) -> Iterable[str]:
        """The sources; those that the names of watched files have come when a first file does."""
        return self.sources if self.sources or not self.watched else self.watched.sources(stop)

    def expected_count(self, set_aside: Mapping[str, int]) -> int:
        """How many images there must be at the end, if so many files were set aside, by source."""
        if self.watched:
            return 0
        if not self.paths:
            return self.count * len(self.sources)
        return sum(
            min(self.count, len(files) - set_aside.get(source, 0))
            for source, files in self.files.items()
        )


def receiving_options(
    arguments: list[str] | None = None,
) -> tuple[ReceivingOptions, Settings]:
    """The options and settings; ends the program with 2 if one makes no sense."""
    parser = _receiving_parser()
    given = parser.parse_args(arguments)
    _check_together(parser, given)
    numbered = [f"cam{number}" for number in range(1, int(given.sources or 0) + 1)]
    named = list(dict.fromkeys(given.source or [""]))
    pattern: SourcePattern | None = given.source_from
    if given.paths and len(numbered or named) > 1:
        parser.error("--from: one source at a time; --source-from makes several of the names")
    settings = parser.settings(given)
    ours = [
        str(settings.data.directory / name)
        for name in (IMAGE_DATABASE, IMAGE_EVENT_DATABASE, IMAGE_EVENT_ALERTS)
        if settings.data.directory
    ]
    names: list[str] = [] if pattern else numbered or named
    files: dict[str, list[str]] = {}
    ignored: list[str] = []
    watched = None
    if given.watch:
        (path,) = given.paths
        if is_below(path, ours):
            parser.error(f"--watch: {path!r} is the pipeline's own; watch another")
        watched = WatchedDirectory(path, pattern, "".join(names), ours)
    elif given.paths:
        try:
            if pattern:
                files, ignored = files_by_source(given.paths, pattern, inodes(ours))
                names = list(files)
            else:
                files[names[0]], ignored = files_of(given.paths)
        except InvalidInput as reason:
            parser.error(f"--from: {reason}")
    options = ReceivingOptions(
        sources=names,
        count=int(given.count or (10**9 if given.paths else 11)),
        interval=float(given.interval),
        paths=given.paths,
        files=files,
        ignored=ignored,
        watched=watched,
        accept_damaged=given.accept_damaged,
    )
    return options, settings


def _receiving_parser() -> Parser:
    parser = Parser("Receive images, from files or made from the original: store, publish them.")
    count = matching("0*[1-9][0-9]{0,8}", "a whole number from 1 to 999999999")
    source = matching(f"({SOURCE})?", "1 to 64 of a-z, 0-9 and _")
    about = "how many images to receive of each source; default: 11, or all that the files have"
    parser.add_argument("--count", metavar="N", type=count, help=about)
    sources = matching("[1-9][0-9]{0,2}", "a whole number from 1 to 999")
    seconds = matching(r"[0-9]{1,5}(\.[0-9]+)?", "a number of seconds, from 0 to 99999")
    about = "whose images they are; can be given several times; default: a source without a name"
    parser.add_argument("--source", metavar="NAME", type=source, action="append", help=about)
    about = "how many sources to receive at the same time: cam1, cam2, ... up to this number"
    parser.add_argument("--sources", metavar="N", type=sources, help=about)
    about = "time between two images of a source; default: 0, as fast as it goes"
    parser.add_argument("--interval", metavar="SECONDS", type=seconds, default="0", help=about)
    about = (
        f"your own pictures, {FORMAT_NAMES}: files, and directories of them, in the order of their "
        "names, in which frame2 is before frame10"
    )
    parser.add_argument(
        "--from", metavar="PATH", dest="paths", nargs="+", action="extend", default=[], help=about
    )
    about = (
        "which source a file's name belongs to, as in '{source}_*' for front_1.jpg and back_1.jpg, "
        "or '{source}/*' for a directory of each"
    )
    parser.add_argument("--source-from", metavar="PATTERN", type=source_pattern, help=about)
    about = (
        "take what comes to this directory, too, and to those in it, until Ctrl-C; remembers what "
        "it has taken"
    )
    parser.add_argument("--watch", action="store_true", help=about)
    about = "take damaged pictures, too, if they can be decoded at all; else they are set aside"
    parser.add_argument("--accept-damaged", action="store_true", help=about)
    return parser


def source_pattern(text: str) -> SourcePattern:
    """The type of the option that says where the source stands in the names of files."""
    try:
        return SourcePattern(text)
    except InvalidInput as reason:
        raise ArgumentTypeError(str(reason)) from reason


def is_below(path: str, directories: Iterable[str]) -> bool:
    """Whether the directory is one of these, or in or below one of these."""
    ours = set(inodes(directories))
    above = [str(parent) for parent in (Path(path).resolve(), *Path(path).resolve().parents)]
    return not ours.isdisjoint(inodes(above))


def _check_together(parser: Parser, given: Namespace) -> None:
    """End the program with 2 if options make no sense together."""
    if given.source and given.sources:
        parser.error("--source and --sources: give one of the two")
    if given.watch and [Path(path).is_dir() for path in given.paths] != [True]:
        parser.error("--watch: give one directory with --from")
    if given.accept_damaged and not given.paths:
        parser.error("--accept-damaged: give the pictures with --from")
    if given.source_from and (given.source or given.sources or not given.paths):
        parser.error("--source-from: give it with --from, and without --source and --sources")


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
    rule = read_rule(parser, options)
    if rule.mask:
        share = rule.mask.histogram()[255] / (rule.mask.width * rule.mask.height)
        say(f"image_analysis: {percent_of(share)} of the mask is white, where changes don't count")
    return rule, settings


def alert_options(arguments: Sequence[str] | None = None) -> tuple[AlertOptions, Settings]:
    """The options and the settings; an option that makes no sense ends the program with 2."""
    parser = Parser("Alert: tell the interested parties of each image event.")
    add_recipients(parser)
    about = "only say who would be told of which of the events that there are, and when"
    parser.add_argument("--dry-run", action="store_true", help=about)
    options = parser.parse_args(arguments)
    settings = parser.settings(options)
    recipients = recipients_of(parser, options.recipients, settings.data)
    file = recipients_file(options.recipients, settings.data)
    if file and not recipients:
        say(f"{file} has no table for a recipient: nobody is told but who reads the alerts")
    return AlertOptions(recipients, options.dry_run), settings


def add_rule(parser: Parser) -> None:
    """Add the options that say which change is an image event."""
    number = matching(r"[0-9]{1,10}(\.[0-9]{1,20})?(e-?[0-9]{1,2})?", "a number, as in 10")
    about = (
        "how large a change must be to be an event; 0: any difference; N is the mean difference of "
        "a block of 8 x 8 pixels, in the image's own unit"
    )
    parser.add_setting("--threshold", "N", "0", number, about)
    about = "over how many percent of the pixels an event is a changed scene, as at dusk"
    percent = matching(r"100|[0-9]{1,2}(\.[0-9]{1,20})?", "percent, from 0 to 100, as in 80")
    parser.add_setting("--scene-change", "PERCENT", None, percent, about)
    about = (
        "a picture that is white where changes don't count; grey is white if it is at least half "
        "as bright"
    )
    parser.add_setting("--mask", "FILE", None, str, about)


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
    about = (
        "who else is told of an event: a file like recipients.toml beside the data, which counts"
    )
    parser.add_setting("--recipients", "FILE", None, str, f"{about} where no other is named")


def recipients_file(named: str | None, data: Location) -> Path | None:
    """The file of the recipients: the named one, or recipients.toml if there is such a file."""
    path = (data.directory or REPOSITORY) / "recipients.toml"
    if named:
        return Path(named)
    return path if os.path.lexists(path) else None


def recipients_of(
    parser: argparse.ArgumentParser, named: str | None, data: Location
) -> dict[str, Recipient]:
    """The recipients by name; none without a file. A file that can't be used ends it with 2."""
    file = recipients_file(named, data)
    try:
        return read_recipients(file) if file else {}
    except InvalidInput as reason:
        parser.exit(2, f"{parser.prog}: {reason}\n")
