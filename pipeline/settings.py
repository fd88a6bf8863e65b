"""What the stages are told by the environment and the command line, checked at the start."""

import argparse
import os
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

REPOSITORY = Path(__file__).resolve().parents[1]
HOST = r"([\w.-]+|\[[0-9a-fA-F:]+\])"
PORT = r"(6553[0-5]|655[0-2]\d|65[0-4]\d\d|6[0-4]\d{3}|[1-5]\d{4}|[1-9]\d{0,3})"
# What comes after the bucket's name needs no quoting anywhere.
URL = r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/(?!\.\.?(/|$))[\w.=-]+)*/?"
VARIABLES = {
    "--bootstrap-servers": "KAFKA_BOOTSTRAP_SERVERS",
    "--data": "PIPELINE_DATA",
    "--kafka-wait": "KAFKA_WAIT",
    "--threshold": "PIPELINE_THRESHOLD",
    "--mask": "PIPELINE_MASK",
    "--recipients": "PIPELINE_RECIPIENTS",
}
CHOICES = {
    "KAFKA_SECURITY_PROTOCOL": ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"),
    "KAFKA_SASL_MECHANISM": ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"),
}
SASL = {  # as the user says it: as kafka-python does
    "KAFKA_SASL_MECHANISM": "sasl_mechanism",
    "KAFKA_SASL_USERNAME": "sasl_plain_username",
    "KAFKA_SASL_PASSWORD": "sasl_plain_password",
}
SSL = {
    "KAFKA_SSL_CAFILE": "ssl_cafile",
    "KAFKA_SSL_CERTFILE": "ssl_certfile",
    "KAFKA_SSL_KEYFILE": "ssl_keyfile",
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


class Parser(argparse.ArgumentParser):
    """A command line with the options that all stages have; an error is one line and exit 2."""

    def __init__(self, description: str, prog: str | None = None) -> None:
        super().__init__(prog=prog, description=description, allow_abbrev=False)
        server = f"{HOST}:{PORT}"
        servers = matching(f"{server}(,{server})*", "HOST:PORT, as in localhost:9092")
        seconds = matching(r"\d{1,5}(\.\d+)?", "a number of seconds, from 0 to 99999")
        for option, metavar, default, check in (
            ("--bootstrap-servers", "HOST:PORT,...", "localhost:9092", servers),
            ("--data", "DIRECTORY|URL", str(REPOSITORY), directory),
            ("--kafka-wait", "SECONDS", "60", seconds),
        ):
            self.add_setting(option, metavar, default, check)

    def add_setting(
        self,
        option: str,
        metavar: str,
        default: str | None,
        check: Callable[[str], str] = str,
        about: str = "",
    ) -> None:
        """An option that the environment can give, too."""
        variable = VARIABLES[option]
        value = os.environ.get(variable) or default
        about += f"default: {variable}, or {default or 'none'}"
        self.add_argument(option, default=value, type=check, metavar=metavar, help=about)

    def error(self, message: str) -> NoReturn:
        """End with 2 and one line, without argparse's usage above it."""
        for option, variable in VARIABLES.items():
            message = message.replace(f"argument {option}:", f"{option} or {variable}:")
        self.exit(2, f"{self.prog}: {message} (--help lists the options)\n")

    def settings(self, options: argparse.Namespace) -> Settings:
        """The settings that these options and the environment make; ends with 2 on a bad one."""
        try:
            security = _security(os.environ)
        except ValueError as error:
            self.error(str(error))
        wait = float(options.kafka_wait)
        data = options.data if "://" in options.data else str(Path(options.data).absolute())
        return Settings(options.bootstrap_servers, security, wait, Location(data))


def matching(pattern: str, what: str) -> Callable[[str], str]:
    """An option's type: text that matches the pattern whole."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text, re.ASCII):
            raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
        return text

    return check


def directory(text: str) -> str:
    """An option's type: a directory that is there, or an object store's URL."""
    if "://" in text:
        if not re.fullmatch(URL, text):
            raise argparse.ArgumentTypeError(f"{text!r} is no s3://BUCKET or s3://BUCKET/PREFIX")
        if not find_spec("s3fs"):
            raise argparse.ArgumentTypeError(
                f"{text!r} needs s3fs; install it with pip install -r requirements-s3.txt"
            )
        return text.rstrip("/")
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is no directory; make it, or name another")
    return text


def _security(environment: Mapping[str, str]) -> dict[str, Any]:
    """kafka-python's options for the `KAFKA_*` variables; what would be ignored is an error."""
    given = {name: environment[name] for name in (*SASL, *SSL) if environment.get(name)}
    protocol = environment.get("KAFKA_SECURITY_PROTOCOL") or "PLAINTEXT"
    used = (SASL if "SASL" in protocol else {}) | (SSL if protocol.endswith("SSL") else {})
    for name, value in {**given, "KAFKA_SECURITY_PROTOCOL": protocol}.items():
        if name in CHOICES and value not in CHOICES[name]:
            raise ValueError(f"{name}: {value!r} is none of {', '.join(CHOICES[name])}")
        if name in given and name not in used:
            raise ValueError(f"{name} is set, but KAFKA_SECURITY_PROTOCOL={protocol} ignores it")
        if name in SSL and not os.access(value, os.R_OK):
            raise ValueError(f"{name}: {value!r} is no file that can be read")
    for name in SASL:
        if name in used and name not in given:
            raise ValueError(f"{name} is not set, but KAFKA_SECURITY_PROTOCOL={protocol} needs it")
    _check_certificates(*(given.get(name) for name in SSL))
    options = {option: given[name] for name, option in used.items() if name in given}
    return {"security_protocol": protocol, **options}


def _check_certificates(authority: str | None, certificate: str | None, key: str | None) -> None:
    """Read the files once: kafka-python would take a wrong one for a Kafka that is away."""
    if key and not certificate:
        raise ValueError("KAFKA_SSL_KEYFILE is set without KAFKA_SSL_CERTFILE; set both")
    try:
        ssl.create_default_context(cafile=authority)
    except (OSError, ValueError) as error:
        raise ValueError(f"KAFKA_SSL_CAFILE: {authority!r} has no certificate in PEM") from error
    if certificate:
        try:
            # With an empty password OpenSSL doesn't ask the terminal for one.
            ssl.create_default_context().load_cert_chain(certificate, key, password="")
        except (OSError, ValueError) as error:
            raise ValueError(
                f"KAFKA_SSL_CERTFILE, KAFKA_SSL_KEYFILE: {certificate!r}, {key or certificate!r}: "
                "no certificate and its key, in PEM and without a password"
            ) from error
