"""What is wrong with the URL of a recipient, in words of ours. Nothing secret of it is shown."""

import re
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from pipeline.wording import did_you_mean

SERVICES = "https://appriseit.com/services/"
# What people write instead of the name of a channel.
MEANT = {
    "http": "json",
    "https": "jsons",
    "smtp": "mailto",
    "smtps": "mailtos",
    "telegram": "tgram",
}
MAIL = ("mailto", "mailtos")
ADDRESS = re.compile(r"(.*<)?[^\s<>@,;]+@[^\s<>@,;]+\.[^\s<>@,;]+>?")


def url_fault(url: str, address: str) -> str:
    """What is wrong with the channel's name or a mail address in it; empty if they are right.

    The `url` is as the file has it, the `address` with the values of its variables.
    """
    scheme, separator, rest = address.partition("://")
    if not re.fullmatch(r"[a-z][a-z0-9.+-]*", scheme, re.IGNORECASE):
        separator = ""
    if not separator:
        return (
            "url doesn't begin with the name of a channel, as "
            f'"mailto://user:password@example.org" does; {SERVICES} has the names'
        )
    names = _channels().schemas()
    if scheme.lower() not in names:
        meant = MEANT.get(scheme.lower(), "")
        question = f"; did you mean {meant}?" if meant else did_you_mean(scheme, names)
        # What came from a variable may be secret.
        shown = f'"{scheme}://"' if url.startswith(f"{scheme}://") else "a name"
        return f"url begins with {shown}, which is no channel{question}; {SERVICES} has the names"
    if scheme.lower() in MAIL:
        for name, value in parse_qsl(urlsplit(f"{scheme}://{rest}").query):
            for receiver in re.split("[,;]", value) if name in ("to", "cc", "bcc") else ():
                if not ADDRESS.fullmatch(receiver.strip()):
                    shown = f'"{receiver}"' if receiver in url else "something"
                    return (
                        f"url has {shown} in {name}=, which is no mail address; "
                        f"write it as in {name}=night@example.org"
                    )
    return ""


def channel_fault(address: str, said: str) -> str:
    """Why Apprise can't use an address; `said` are its own words, without any part of the URL."""
    scheme = address.partition("://")[0].lower()
    service = _channels()[scheme]
    form = str(service.templates[-1]).replace("{schema}", scheme).translate({123: "<", 125: ">"})
    if scheme in MAIL and re.search(r"Invalid ~From~|Dropped invalid", said):
        return (
            "url lacks a mail address to send from or to, or has one that is none; write it as in "
            f"{scheme}://user:password@example.org?from=me@example.org&to=night@example.org"
        )
    # Apprise's last words only say that the whole can't be used.
    cause = re.sub(r"(Unparseable|Could not load) .*", "", said).strip(" .:")
    reason = f" ({cause})" if cause else ""
    return (
        f"url isn't what {service.service_name} needs{reason}; it has the form {form}; "
        f"{service.setup_url or SERVICES} says more"
    )


def _channels() -> Any:
    """Apprise's channels by their names in a URL."""
    # The import takes a while, and a program without recipients doesn't need it.
    from apprise.plugins import N_MGR  # noqa: PLC0415

    return N_MGR
