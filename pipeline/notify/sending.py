"""Sending one message to one recipient through Apprise: its text, its pictures, and its errors."""

import logging
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pipeline.errors import InvalidInput, TransientError
from pipeline.messages import Notification
from pipeline.notify.message_text import event_line, event_list, largest_change, title
from pipeline.notify.pictures import Pictures, encoded_size
from pipeline.notify.recipients import Recipient
from pipeline.settings import Location
from pipeline.store.database import Database
from pipeline.store.names import IMAGE_DATABASE, IMAGE_EVENT_ALERTS, IMAGE_EVENT_DATABASE
from pipeline.terminal import printable

MAX_PICTURES = 25_000_000  # bytes of all pictures in a message, which most mail servers take
MAX_TEXT = 4000  # characters of an alert
# An answer of a mail server, as Python's smtplib shows it: (552, b'5.3.4 too large', ...).
MAIL_ANSWER = re.compile(r"""\((\d{3}), b(['"])(.*?)\2[,)]""")
# An answer of a web server, as Apprise's channels show it: ...: Not Found, error=404.
WEB_ANSWER = re.compile(r"(?:.*: )?(.*)error=(\d+)\.?$", re.DOTALL)
CLOSED = "the server closed the connection"
# Why there is no answer, as Python's libraries show it, and in our words.
CONNECTION_FAULTS = (
    (r"Connection refused", "nothing listens there"),
    (r"not known|to resolve|No address associated", "the host's name is not known"),
    (r"timed out", "no answer in time"),
    (r"WRONG_VERSION_NUMBER|wrong version number", "the server speaks no TLS there"),
    (r"certificate verify failed", "the server's certificate is not trusted"),
    (r"closed connection|unexpectedly closed|reset by peer|Broken pipe|aborted", CLOSED),
)
# How channels say that a message is too large. Some servers only close the connection.
TOO_LARGE = re.compile(
    rf"answered (552|413)|\b5\.3\.4\b|too (large|big|long)|\bsize\b|{CLOSED}",
    re.IGNORECASE,
)


class DeliveryFailed(Exception):
    """An attempt to send failed; the text says why, without any part of the recipient's URL."""


class Abandoned(Exception):
    """The message must not be sent by this copy, or not now."""


@dataclass(frozen=True)
class Room:
    """How much room a channel has for pictures, as far as it is known."""

    size: int = MAX_PICTURES  # bytes
    reason: str = f"messages with more than {MAX_PICTURES // 10**6} MB are seldom taken"


class Sender:
    """Sends messages, with what the mock databases know of their events."""

    def __init__(self, data: Location) -> None:
        self._databases = {
            name: Database(data, name)
            for name in (IMAGE_DATABASE, IMAGE_EVENT_DATABASE, IMAGE_EVENT_ALERTS)
        }
        # What was learned of each channel, by its URL: the next message to it begins there.
        self._rooms: dict[str, Room] = {}
        # Without a handler, Python would print what libraries log, with addresses in it.
        logging.getLogger().addHandler(logging.NullHandler())
        # Apprise logs only at this level why it could not connect.
        logging.getLogger("apprise").setLevel(logging.DEBUG)

    def send(
        self,
        recipient: Recipient,
        notifications: Sequence[Notification],
        may_send: Callable[[], bool],
        wait: Callable[[float], None],
        room: Room | None = None,
    ) -> str:
        """Send one message about these events; returns what is to be said of its pictures.

        Pictures for which the channel has no room are made smaller, then left out: its `room` is
        half of what it has refused. The text is sent in any case, and only once. `may_send` is
        asked at the last moment; if it says no, `Abandoned` is raised. Raises `DeliveryFailed` if
        the recipient can't be reached, and whatever Apprise's channels raise.
        """
        text, pictures = self._body(notifications), None
        if recipient.attach and recipient.channel.attachment_support:
            pictures = Pictures(largest_change(notifications), self._databases)
        room = room or self._rooms.get(recipient.url, Room())
        while True:
            attached = pictures.fitting(room.size) if pictures else {}
            lines = [text, *(pictures.missing if pictures else ())]
            remark = pictures.change_to(attached) if pictures else ""
            if remark:
                remark += f", since {room.reason}"
                lines.append(f"{remark[0].upper()}{remark[1:]}.")
            failure, is_taken = self._send_once(
                recipient,
                title(notifications),
                "\n".join(lines),
                attached,
                may_send=may_send,
                wait=wait,
            )
            if not failure:
                self._rooms[recipient.url] = room
                return remark
            size = encoded_size(attached)
            smaller = Room(size // 2, f"{size / 10**6:.1f} MB of them were refused: {failure}")
            if is_taken:  # the channel sends the pictures after the text
                self._rooms[recipient.url] = smaller
                return f"pictures are missing, since {failure}"
            if not attached or not TOO_LARGE.search(failure):
                raise DeliveryFailed(failure)
            room = smaller
            # The next message needs no pause: this one was not taken.
            recipient.channel._last_io_datetime = None

    def _send_once(
        self,
        recipient: Recipient,
        subject: str,
        body: str,
        pictures: Mapping[str, bytes],
        *,
        may_send: Callable[[], bool],
        wait: Callable[[float], None],
    ) -> tuple[str, bool]:
        """Why sending failed, and whether the channel took the text; empty if all is sent."""
        # The import takes a while, which only those with recipients shall wait for.
        import apprise  # noqa: PLC0415

        channel = recipient.channel
        with tempfile.TemporaryDirectory(prefix="image-pipeline-") as directory:
            files = [Path(directory, name) for name in pictures]
            for file, content in zip(files, pictures.values(), strict=True):
                file.write_bytes(content)
            sender = apprise.Apprise(asset=channel.asset)
            sender.add(channel)
            # Apprise would pause between two messages of a channel only after `may_send` is asked,
            # and the answer might change in the pause. So the pause is made here.
            since_last = datetime.now() - (channel._last_io_datetime or datetime.min)
            wait(channel.request_rate_per_sec - since_last.total_seconds())
            if not may_send():
                raise Abandoned
            result = sender.notify(
                title=subject,
                body=body,
                body_format=apprise.NotifyFormat.TEXT,
                attach=[f"file://{quote(str(file))}" for file in files] or None,
                log_level=logging.DEBUG,
            )
        if result:
            return "", True
        logged = [entry for entry in result.logs() if not entry.message.startswith("Response")]
        # Apprise's channels say so of each part of a message that they have sent.
        is_taken = any(x.level == "INFO" and x.message.startswith("Sent ") for x in logged)
        return _failure(recipient, logged), is_taken and bool(pictures)

    def _body(self, notifications: Sequence[Notification]) -> str:
        """The text of the message: the alert's own, or a list if there are several events."""
        if len(notifications) > 1:
            return event_list(notifications)
        notification = notifications[0]
        try:
            # Read without retries: while a disk is away, the recipient would not be notified.
            alert = self._databases[IMAGE_EVENT_ALERTS].files.read(notification.alert_path)
        except (InvalidInput, TransientError) as reason:
            return f"{event_line(notification.event)}\nThe alert is gone: {printable(str(reason))}"
        lines = alert.decode(errors="replace")[:MAX_TEXT].splitlines()
        return "\n".join(map(printable, lines))


def _failure(recipient: Recipient, logged: Sequence[Any]) -> str:
    """Why a channel failed, from what it has logged, without any part of the recipient's URL."""
    for entry in logged:
        if answer := MAIL_ANSWER.search(entry.message):
            return f"the mail server answered {answer[1]} {recipient.redacted(answer[3])}"
    reasons = [x.message for x in logged if x.level in ("WARNING", "ERROR", "CRITICAL")]
    if reasons and (answer := WEB_ANSWER.search(reasons[-1])):
        words = recipient.redacted(answer[1].strip(" ,"))
        return f"the server answered {answer[2]}" + (f" {words}" if words else "")
    for entry in logged:
        if entry.message.startswith("Socket Exception: "):
            for pattern, words in CONNECTION_FAULTS:
                if re.search(pattern, entry.message):
                    return words
            # The library requests wraps the cause in other errors; the cause comes last.
            cause = entry.message.rpartition(": ")[2].removesuffix('"))')
            return f"the connection failed: {recipient.redacted(cause)}"
    return recipient.redacted("".join(reasons[-1:])) or "the channel gave no reason"
