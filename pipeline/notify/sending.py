"""Sending one message to one recipient through Apprise: its text, its pictures, and its errors."""

import logging
import re
import tempfile
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

from pipeline.errors import InvalidInput, TransientError
from pipeline.messages import ImageEvent, Notification
from pipeline.notify.message_text import event_line, event_list, largest_change, title
from pipeline.notify.recipients import Recipient
from pipeline.settings import Location
from pipeline.store.database import Database
from pipeline.store.names import IMAGE_DATABASE, IMAGE_EVENT_ALERTS, IMAGE_EVENT_DATABASE, digest
from pipeline.terminal import printable

MAX_ATTACHED = 20 * 2**20  # bytes of all pictures of a message
MAX_TEXT = 4000  # characters of an alert


class DeliveryFailed(Exception):
    """An attempt to send failed; the text says why, without any part of the recipient's URL."""


class Abandoned(Exception):
    """The message must not be sent by this copy, or not now."""


class Sender:
    """Sends messages, with what the mock databases know of their events."""

    def __init__(self, data: Location) -> None:
        self._databases = {
            name: Database(data, name)
            for name in (IMAGE_DATABASE, IMAGE_EVENT_DATABASE, IMAGE_EVENT_ALERTS)
        }
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
    ) -> None:
        """Send one message about these events.

        `may_send` is asked at the last moment; if it says no, `Abandoned` is raised. Raises
        `DeliveryFailed` if the recipient can't be reached, and whatever Apprise's channels raise.
        """
        # The import takes a while, which only those with recipients shall wait for.
        import apprise  # noqa: PLC0415

        channel = recipient.channel
        with tempfile.TemporaryDirectory(prefix="image-pipeline-") as directory:
            lines: list[str] = []
            files: list[Path] = []
            if recipient.attach and channel.attachment_support:
                lines, files = self._pictures(largest_change(notifications), Path(directory))
            body = "\n".join([self._body(notifications), *lines])
            sender = apprise.Apprise(asset=channel.asset)
            sender.add(channel)
            # Apprise would pause between two messages of a channel only after `may_send` is asked,
            # and the answer might change in the pause. So the pause is made here.
            since_last = datetime.now() - (channel._last_io_datetime or datetime.min)
            wait(channel.request_rate_per_sec - since_last.total_seconds())
            if not may_send():
                raise Abandoned
            result = sender.notify(
                title=title(notifications),
                body=body,
                body_format=apprise.NotifyFormat.TEXT,
                attach=[f"file://{quote(str(file))}" for file in files] or None,
                log_level=logging.DEBUG,
            )
        if result:
            return
        logged = [entry for entry in result.logs() if not entry.message.startswith("Response")]
        reasons = [x.message for x in logged if x.level in ("WARNING", "ERROR", "CRITICAL")]
        # The library requests wraps the cause in other errors; the cause comes last.
        causes = [
            entry.message.rpartition(": ")[2].removesuffix('"))')
            for entry in logged
            if entry.message.startswith("Socket Exception: ")
        ]
        reason = recipient.redacted(": ".join(reasons[-1:] + causes[-1:]))
        raise DeliveryFailed(reason or "it failed")

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

    def _pictures(self, event: ImageEvent, directory: Path) -> tuple[list[str], list[Path]]:
        """The event's pictures as files, and a line for each that can't be attached."""
        lines: list[str] = []
        files: list[Path] = []
        size = 0
        # The event of another program may lack the paths of the images, which have these names.
        image = event.image_path or f"{IMAGE_DATABASE}/{event.image_id}.jpg"
        previous = event.previous_image_path or f"{IMAGE_DATABASE}/{event.previous_image_id}.jpg"
        for database, path, sha256 in (
            (IMAGE_DATABASE, image, None),
            (IMAGE_DATABASE, previous, None),
            (IMAGE_EVENT_DATABASE, event.difference_path, event.difference_sha256),
        ):
            if path is None:
                continue
            try:
                content = self._databases[database].files.read(path)
                if sha256 not in (None, digest(content)):
                    raise InvalidInput(f"{path} has other bytes than when it was stored")
                if size + len(content) > MAX_ATTACHED:
                    raise InvalidInput(f"{path} is too large, {len(content)} bytes")
                # The name becomes part of a header, and not every channel quotes it.
                file = directory / re.sub(r"[^\w.-]", "_", Path(path).name, flags=re.ASCII)
                file.write_bytes(content)
            except (InvalidInput, TransientError, OSError) as reason:
                lines.append(f"Not attached: {printable(str(reason))}")
                continue
            if file not in files:
                files.append(file)
                size += len(content)
        return lines, files
