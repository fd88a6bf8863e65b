"""The settings that all programs have, from the environment and the command line.

They are checked when a program starts: a setting that makes no sense ends it with one line.
"""

import argparse
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

from pipeline.security import security_options
from pipeline.wording import did_you_mean

REPOSITORY = Path(__file__).resolve().parents[1]
USUAL_SERVER = "localhost:9092"
HOST = r"([\w.-]+|\[[0-9a-fA-F:]+\])"
PORT = r"(6553[0-5]|655[0-2]\d|65[0-4]\d\d|6[0-4]\d{3}|[1-5]\d{4}|[1-9]\d{0,3})"
# The prefix after the bucket's name has only characters that need no quoting anywhere.
URL = r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/(?!\.\.?(/|$))[\w.=-]+)*/?"
VARIABLES = {
    "--bootstrap-servers": "KAFKA_BOOTSTRAP_SERVERS",
    "--data": "PIPELINE_DATA",
    "--kafka-wait": "KAFKA_WAIT",
    "--threshold": "PIPELINE_THRESHOLD",
    "--scene-change": "PIPELINE_SCENE_CHANGE",
    "--mask": "PIPELINE_MASK",
    "--recipients": "PIPELINE_RECIPIENTS",
}


@dataclass(frozen=True)
class Location:
    """Where the four image_* directories are: in a directory, or below an object store's URL."""

    text: str  # an absolute path, or s3://BUCKET or s3://BUCKET/PREFIX

    def __str__(self) -> str:
        return self.text

    @property
    def directory(self) -> Path | None:
        """The directory; None if it is an object store's URL."""
        return None if "://" in self.text else Path(self.text)


@dataclass(frozen=True)
class Settings:
    """Where Kafka and the data are."""

    bootstrap_servers: str  # HOST:PORT, or several with commas between
    security: Mapping[str, Any] = field(repr=False)  # kafka-python's options
    kafka_wait: float  # seconds to wait for a Kafka that isn't there
    data: Location
    is_kafka_named: bool = False  # by an option or the environment; otherwise it is the usual one


class Parser(argparse.ArgumentParser):
    """A command line with the options that all programs have; an error is one line and exit 2."""

    def __init__(self, description: str, prog: str | None = None) -> None:
        super().__init__(prog=prog, description=description, allow_abbrev=False)
        server = f"{HOST}:{PORT}"
        servers = matching(f"{server}(,{server})*", "HOST:PORT, as in localhost:9092")
        seconds = matching(r"\d{1,5}(\.\d+)?", "a number of seconds, from 0 to 99999")
        where = "where the four image_* directories are: a directory, or s3://bucket/prefix"
        wait = "seconds to wait for a Kafka that isn't there"
        for option, metavar, default, check, about in (
            ("--bootstrap-servers", "HOST:PORT,...", USUAL_SERVER, servers, "where Kafka is"),
            ("--data", "DIRECTORY|URL", str(REPOSITORY), directory, where),
            ("--kafka-wait", "SECONDS", "60", seconds, wait),
        ):
            self.add_setting(option, metavar, default, check, about)
        # Without a default, so that `settings` knows whether a Kafka is named.
        self.set_defaults(bootstrap_servers=os.environ.get("KAFKA_BOOTSTRAP_SERVERS") or None)

    def add_setting(
        self,
        option: str,
        metavar: str,
        default: str | None,
        check: Callable[[str], str],
        about: str,
    ) -> None:
        """Add an option whose default an environment variable can give."""
        variable = VARIABLES[option]
        value = os.environ.get(variable) or default
        about += f"; default: {variable}, or {default or 'none'}"
        self.add_argument(option, default=value, type=check, metavar=metavar, help=about)

    def error(self, message: str) -> NoReturn:
        """End with 2 and one line, without argparse's usage above it."""
        for option, variable in VARIABLES.items():
            message = message.replace(f"argument {option}:", f"{option} or {variable}:")
        if found := re.fullmatch(r"unrecognized arguments: (--[\w-]+).*", message):
            message += did_you_mean(found[1], self._option_string_actions)
        self.exit(2, f"{self.prog}: {message} (--help lists the options)\n")

    def settings(self, options: argparse.Namespace) -> Settings:
        """The settings that the options and the environment give; a wrong one is an `error`."""
        try:
            security = security_options(os.environ)
        except ValueError as error:
            self.error(str(error))
        wait = float(options.kafka_wait)
        data = options.data if "://" in options.data else str(Path(options.data).absolute())
        servers = options.bootstrap_servers
        is_named = bool(servers) or security["security_protocol"] != "PLAINTEXT"
        return Settings(servers or USUAL_SERVER, security, wait, Location(data), is_named)


def matching(pattern: str, what: str) -> Callable[[str], str]:
    """The type of an option whose whole text must match the pattern."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text, re.ASCII):
            raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
        return text

    return check


def directory(text: str) -> str:
    """The type of an option that is an existing directory, or an object store's URL."""
    if "://" in text:
        if not re.fullmatch(URL, text):
            raise argparse.ArgumentTypeError(f"{text!r} is no s3://BUCKET or s3://BUCKET/PREFIX")
        if not find_spec("s3fs"):
            raise argparse.ArgumentTypeError(
                f"{text!r} needs s3fs; install it with pip install s3fs"
            )
        return text.rstrip("/")
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is no directory; make it, or name another")
    return text
