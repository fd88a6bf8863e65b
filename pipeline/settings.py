"""What the stages are told by the environment and the command line, checked at the start."""

import argparse
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

REPOSITORY = Path(__file__).resolve().parents[1]
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
class Settings:
    """Where Kafka and the data are."""

    bootstrap_servers: tuple[str, ...]  # each HOST:PORT
    security: Mapping[str, Any] = field(repr=False)  # kafka-python's options
    kafka_wait: float  # seconds to wait for a Kafka that isn't there
    data: Path  # absolute; the four image_* directories are in it


class Parser(argparse.ArgumentParser):
    """A command line with the options that all stages have; an error is one line and exit 2."""

    def __init__(self, description: str) -> None:
        super().__init__(description=description, allow_abbrev=False)
        for option, metavar, text in (
            ("--bootstrap-servers", "HOST:PORT,…", "KAFKA_BOOTSTRAP_SERVERS or localhost:9092"),
            (
                "--data",
                "DIRECTORY",
                "has the image_* directories; PIPELINE_DATA or this repository",
            ),
            ("--kafka-wait", "SECONDS", "for a Kafka that isn't there; KAFKA_WAIT or 60"),
        ):
            self.add_argument(option, metavar=metavar, help=text)

    def error(self, message: str) -> NoReturn:
        """End with 2 and one line, without argparse's usage above it."""
        self.exit(2, f"{self.prog}: {message} (--help lists the options)\n")

    def settings(self, options: argparse.Namespace) -> Settings:
        """The settings that these options and the environment make; ends with 2 on a bad one."""

        def chosen(option: str, variable: str, default: str) -> tuple[str, str]:
            given = getattr(options, option.replace("-", "_"))
            if given is not None:
                return f"--{option}", given
            return variable, os.environ.get(variable) or default

        try:
            return Settings(
                _servers(*chosen("bootstrap-servers", "KAFKA_BOOTSTRAP_SERVERS", "localhost:9092")),
                _security(os.environ),
                _seconds(*chosen("kafka-wait", "KAFKA_WAIT", "60")),
                _directory(*chosen("data", "PIPELINE_DATA", str(REPOSITORY))),
            )
        except ValueError as error:
            self.error(str(error))


def _servers(name: str, value: str) -> tuple[str, ...]:
    servers = tuple(server.strip() for server in value.split(","))
    for server in servers:
        match = re.fullmatch(r"(?:[\w.-]+|\[[0-9a-fA-F:]+\]):(\d{1,5})", server, re.ASCII)
        if not match or not 0 < int(match[1]) < 65536:
            raise ValueError(f"{name}: {server!r} is not HOST:PORT, as in localhost:9092")
    return servers


def _seconds(name: str, value: str) -> float:
    if not re.fullmatch(r"\d{1,5}(\.\d+)?", value, re.ASCII):
        raise ValueError(f"{name}: {value!r} is not a number of seconds, from 0 to 99999")
    return float(value)


def _directory(name: str, value: str) -> Path:
    path = Path(value).expanduser().absolute()
    if not path.is_dir():
        raise ValueError(f"{name}: {value!r} is no directory; make it, or name another")
    return path


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
    options = {option: given[name] for name, option in used.items() if name in given}
    return {"security_protocol": protocol, **options}
