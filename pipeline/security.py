"""How to connect to a secured Kafka, from the `KAFKA_*` environment variables."""

import os
import ssl
from collections.abc import Mapping
from typing import Any

CHOICES = {
    "KAFKA_SECURITY_PROTOCOL": ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"),
    "KAFKA_SASL_MECHANISM": ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"),
}
SASL = {  # variable: option of kafka-python
    "KAFKA_SASL_MECHANISM": "sasl_mechanism",
    "KAFKA_SASL_USERNAME": "sasl_plain_username",
    "KAFKA_SASL_PASSWORD": "sasl_plain_password",
}
SSL = {
    "KAFKA_SSL_CAFILE": "ssl_cafile",
    "KAFKA_SSL_CERTFILE": "ssl_certfile",
    "KAFKA_SSL_KEYFILE": "ssl_keyfile",
}


def security_options(environment: Mapping[str, str]) -> dict[str, Any]:
    """kafka-python's options for these variables.

    Raises `ValueError` if a variable is wrong or missing, or would be ignored.
    """
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
    """Load the files once: with a wrong file, kafka-python would only say that Kafka is away."""
    if key and not certificate:
        raise ValueError("KAFKA_SSL_KEYFILE is set without KAFKA_SSL_CERTFILE; set both")
    try:
        ssl.create_default_context(cafile=authority)
    except (OSError, ValueError) as error:
        raise ValueError(f"KAFKA_SSL_CAFILE: {authority!r} has no certificate in PEM") from error
    if certificate:
        try:
            # Without a password, OpenSSL would ask for one at the terminal.
            ssl.create_default_context().load_cert_chain(certificate, key, password="")
        except (OSError, ValueError) as error:
            raise ValueError(
                f"KAFKA_SSL_CERTFILE, KAFKA_SSL_KEYFILE: {certificate!r}, {key or certificate!r}: "
                "no certificate and its key, in PEM and without a password"
            ) from error
