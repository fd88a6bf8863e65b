"""The recipients: who hears of which image events, and when, as `recipients.toml` says.

    [night-shift]
    url = "mailtos://${MAIL_USER}:${MAIL_PASSWORD}@mail.example.org?to=night@example.org"
    sources = ["cam1"]
    quiet_hours = "22:00-07:00"
    time_zone = "Europe/Berlin"

Nothing here reads a topic, sends a message or looks at the clock.
"""

import logging
import os
import re
from datetime import UTC, datetime, time, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote, unquote
from zoneinfo import ZoneInfo, available_timezones

from msgspec import Meta, Struct

from pipeline.messages import ImageEvent, Measure, Pixels, Share, Source
from pipeline.notify.channels import channel_fault, url_fault
from pipeline.terminal import printable
from pipeline.wording import did_you_mean, percent_of

if TYPE_CHECKING:
    from apprise import NotifyBase

HOUR = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]"
VARIABLE = r"\$\{([^}]*)\}"
# To wait for a server: a message whose answer comes too late would be sent twice.
ANSWER_SECONDS = 20.0

Region = tuple[Pixels, Pixels, Pixels, Pixels]  # left, top, right, bottom
Seconds = Annotated[float, Meta(ge=0, le=86400)]


class Recipient(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, dict=True):
    """A recipient: a table of `recipients.toml`."""

    url: str  # for Apprise; ${NAME} is the value of an environment variable, which keeps secrets
    sources: Annotated[list[Source], Meta(min_length=1)] | None = None
    least_changed_share: Share = 0
    least_rms: Measure = 0
    scene_changes: bool = True  # whether to be told of events of the kind `scene changed`
    inside: Region | None = None  # must contain the changed box
    outside: Region | None = None  # must not touch the changed box
    quiet_hours: str = ""
    time_zone: str = "UTC"
    cool_down: Seconds = 0  # between two messages
    digest: Seconds = 0  # to collect events for a message, from its first event on
    give_up_after: Seconds = 3600
    attach: bool = True  # the pictures, if the channel can carry files

    def __post_init__(self) -> None:
        for name, region in (("inside", self.inside), ("outside", self.outside)):
            if region and not (region[0] < region[2] and region[1] < region[3]):
                raise ValueError(
                    f"{name} is {list(region)}; it goes left, top, right, bottom, with left less "
                    "than right and top less than bottom"
                )
        try:
            ZoneInfo(self.time_zone)
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(
                f'time_zone is "{self.time_zone}"; it must be a place, as in "Europe/Berlin", or '
                f'"UTC"{did_you_mean(self.time_zone, available_timezones())}'
            ) from error
        if self.quiet_hours:
            hours = re.fullmatch(rf"({HOUR})-({HOUR})", self.quiet_hours, re.ASCII)
            if not hours or hours[1] == hours[2]:
                raise ValueError(
                    f'quiet_hours is "{self.quiet_hours}"; it must be a time from and a time to, '
                    '00:00 to 23:59, as in "22:00-07:00"'
                )
        _ = self.channel

    def rejection_reason(self, event: ImageEvent) -> str:
        """Why the recipient doesn't want this event; empty if it does.

        The event of another program may lack a value. A condition on that value is then met.
        """
        share, box = event.changed_share, event.box
        if self.sources is not None and event.source not in self.sources:
            return f"source {event.source!r} is none of {self.sources}"
        if share is not None and share < self.least_changed_share:
            least = percent_of(self.least_changed_share)
            return f"{percent_of(share)} of the pixels changed, which is under {least}"
        if event.rms is not None and event.rms < self.least_rms:
            return f"RMS {event.rms:.4g} is under {self.least_rms:g}"
        if event.kind == "scene changed" and not self.scene_changes:
            return "the scene changed, and scene_changes is false"
        return self._rejected_box(box) if box else ""

    def _rejected_box(self, box: Region) -> str:
        """Why the recipient doesn't want an event with this changed box; empty if it does."""
        if self.inside and not _is_inside(box, self.inside):
            return f"the changed box {list(box)} is not inside {list(self.inside)}"
        if self.outside and _touches(box, self.outside):
            return f"the changed box {list(box)} is not outside {list(self.outside)}"
        return ""

    def due(self, since: datetime, last: datetime | None, now: datetime) -> datetime:
        """When to send an event that waits `since` then: `now` or later.

        `last` is the time of the recipient's last message.
        """
        due = max(now, since + timedelta(seconds=self.digest))
        if last:
            due = max(due, last + timedelta(seconds=self.cool_down))
        return self._quiet_until(due) or due

    def collects(self, since: datetime) -> bool:
        """Whether an event that waits `since` then shares a message with others that wait."""
        return bool(self.digest or self.cool_down or self._quiet_until(since))

    def _quiet_until(self, at: datetime) -> datetime | None:
        """The end of the quiet hours that the time is in; None if it is outside of them."""
        if not self.quiet_hours:
            return None
        zone = ZoneInfo(self.time_zone)
        start, end = map(time.fromisoformat, self.quiet_hours.split("-"))
        local = at.astimezone(zone)
        now = local.time()
        if not (start <= now < end if start < end else now >= start or now < end):
            return None
        day = local.date() + timedelta(days=int(now >= end))
        # When the clock is changed, an hour comes twice, or never; `fold` names both readings of
        # a time in it, of which the later counts.
        ends = (datetime.combine(day, end.replace(fold=fold), zone) for fold in (0, 1))
        return max(moment.astimezone(UTC) for moment in ends)

    @cached_property
    def address(self) -> str:
        """The URL with the values of its variables. Raises `ValueError` if a variable is unset."""
        for name in self._variables:
            if not os.environ.get(name):
                raise ValueError(f"url needs the environment variable {name}, which is not set")
        if whole := re.fullmatch(VARIABLE, self.url):
            return os.environ[whole[1]]
        return re.sub(VARIABLE, lambda found: quote(os.environ[found[1]], safe=""), self.url)

    @cached_property
    def channel(self) -> "NotifyBase":
        """Apprise's object for the URL. Raises `ValueError` if Apprise can't use the URL."""
        # The import takes a while, and a program without recipients doesn't need it.
        import apprise  # noqa: PLC0415

        if fault := url_fault(self.url, self.address):
            raise ValueError(fault)
        # Apprise stores nothing on disk, and sends in the thread that asks it to.
        asset = apprise.AppriseAsset(storage_mode="memory", async_mode=False, service_timeout=0)
        capture: Any = apprise.LogCapture  # which has no types
        with capture(level=logging.WARNING, fmt="%(message)s") as log:
            channel = apprise.Apprise.instantiate(self.address, asset=asset)
            logged = log.getvalue()
        if channel is None or logged or not len(channel):
            raise ValueError(channel_fault(self.address, self.redacted(logged)))
        port = getattr(channel, "port", None)
        if isinstance(port, int) and not 0 < port < 2**16:
            raise ValueError(f"url has the port {port}; a port is a number from 1 to 65535")
        if len(channel) > 1 or getattr(channel, "cc", None) or getattr(channel, "bcc", None):
            # Apprise only says whether all of them were reached.
            raise ValueError(
                "url names several receivers, of whom those that were reached would be told again "
                "when another one can't be; make a table for each"
            )
        channel.optional = False  # or Apprise would report a failure as a success
        if "rto=" not in self.address:
            channel.socket_read_timeout = ANSWER_SECONDS
        if "cto=" not in self.address:
            channel.socket_connect_timeout = ANSWER_SECONDS
        return channel

    def redacted(self, text: str) -> str:
        """The text in one line, with *** for each part of the URL, since any may be secret."""
        for variable in self._variables:
            for value in (os.environ[variable], quote(os.environ[variable], safe="")):
                text = re.sub(re.escape(value), "***", text, flags=re.IGNORECASE)
        text = re.sub(r"\w+://\S*|[^\s\"'<>()]*@[^\s\"'<>()]*", "***", text)
        scheme, _, rest = self.address.partition("://")
        parts = re.split(r"[^\w%.~+-]+", rest or scheme)
        for part in sorted({*parts, *map(unquote, parts)}, key=len, reverse=True):
            if len(part) > 2:
                text = re.sub(rf"(?<!\w){re.escape(part)}(?!\w)", "***", text, flags=re.IGNORECASE)
        return printable(" ".join(text.split()))

    @property
    def _variables(self) -> list[str]:
        return re.findall(VARIABLE, self.url)


def _is_inside(box: Region, region: Region) -> bool:
    left, top, right, bottom = region
    return left <= box[0] and top <= box[1] and box[2] <= right and box[3] <= bottom


def _touches(box: Region, region: Region) -> bool:
    left, top, right, bottom = region
    return box[0] < right and left < box[2] and box[1] < bottom and top < box[3]
