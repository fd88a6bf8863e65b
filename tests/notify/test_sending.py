"""Messages reach channels that don't take all of their pictures: smaller ones, or none, and why."""

import io
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import pytest
from mail_server import PASSWORD, USER, MailServer, WebServer
from PIL import Image

from pipeline.messages import ImageEvent, Notification
from pipeline.notify.delivery import Delivery
from pipeline.notify.inbox import PendingEvent
from pipeline.notify.recipients import Recipient
from pipeline.notify.sending import DeliveryFailed, Room, Sender
from pipeline.settings import Location
from pipeline.stop_signal import StopSignal

# The mail server says so, since it is asked for a password in clear.
pytestmark = pytest.mark.filterwarnings("ignore:Requiring AUTH:UserWarning")

PATHS = ("image_database/00003.png", "image_database/00002.jpg", "image_event_database/d.jpg")
EVENT = ImageEvent(
    event_id="00003",
    image_id="00003",
    previous_image_id="00002",
    path="image_event_database/d.txt",
    image_path=PATHS[0],
    previous_image_path=PATHS[1],
    difference_path=PATHS[2],
)
NOTIFICATION = Notification(recipient="guard", event=EVENT, alert_path="image_event_alerts/a.txt")


@pytest.fixture(scope="module")
def camera() -> Image.Image:
    """A picture of a camera, 4 MB as JPEG, which doesn't compress well."""
    noise = random.Random(5).randbytes(500 * 375 * 3)
    scene = Image.frombytes("RGB", (500, 375), noise).resize((2000, 1500), Image.Resampling.NEAREST)
    return Image.blend(scene, Image.effect_noise(scene.size, 60).convert("RGB"), 0.4)


@pytest.fixture
def sender(data: Path, camera: Image.Image) -> Sender:
    """A sender, with an event of pictures of 9, 3 and 3 MB."""
    camera.save(data / PATHS[0])
    for path in PATHS[1:]:
        camera.save(data / path, "JPEG", quality=95)
    (data / "image_event_alerts/a.txt").write_text("The alert's text\n")
    return Sender(Location(str(data)))


@contextmanager
def mail_server(limit: int, *, is_limit_told: bool = True) -> Iterator[MailServer]:
    server = MailServer(limit, is_limit_told=is_limit_told)
    yield server
    server.close()


@contextmanager
def web_server(limit: int) -> Iterator[WebServer]:
    server = WebServer(limit)
    yield server
    server.close()


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAIL_USER", USER)
    monkeypatch.setenv("MAIL_PASSWORD", PASSWORD)


def recipient_at(url: str, **fields: float) -> Recipient:
    """A recipient whose channel makes no pauses between messages."""
    recipient = Recipient(url=url, **fields)  # type: ignore[arg-type]
    recipient.channel.request_rate_per_sec = 0
    return recipient


def send(sender: Sender, recipient: Recipient, room: Room | None = None) -> str:
    return sender.send(recipient, [NOTIFICATION], lambda: True, lambda _: None, room)


def sides(pictures: list[bytes]) -> list[int]:
    """The longer sides of pictures, which all open."""
    return [max(Image.open(io.BytesIO(content)).size) for content in pictures]


MADE_SMALLER = "The pictures are made smaller, since "
LEFT_OUT = "The pictures are left out, since "


@pytest.mark.parametrize(
    ("limit", "is_limit_told", "side", "line"),
    [
        (30_000_000, True, 2000, ""),
        (10_240_000, True, 1600, MADE_SMALLER),
        (5_000_000, False, 1600, MADE_SMALLER),
        (1_000_000, True, 640, MADE_SMALLER),
        (50_000, False, 0, LEFT_OUT),
    ],
)
def test_a_mail_server_with_a_limit(
    sender: Sender, limit: int, *, is_limit_told: bool, side: int, line: str
) -> None:
    """The mail comes with the largest pictures that the server takes, and says what was refused.

    The next message begins with what was taken.
    """
    with mail_server(limit, is_limit_told=is_limit_told) as server:
        guard = recipient_at(server.url("guard@example.org"))
        remark = send(sender, guard)
        tries = len(server.sizes)
        assert send(sender, guard) == remark
        assert len(server.sizes) == tries + 1
    for mail in server.mails:
        text = mail.get_body()
        assert text
        lines = text.get_content().split("\n")
        assert lines[0].strip() == "The alert's text"
        pictures = [part.get_content() for part in mail.iter_attachments()]
        assert sides(pictures) == [side] * (3 if side else 0)
        if line:
            assert lines[1].startswith(line)
            assert " MB of them were refused: the mail server answered 552" in lines[1]
            assert remark in lines[1][0].lower() + lines[1][1:]
        else:
            assert remark == "".join(lines[1:]) == ""
    assert len(server.mails) == 2


def test_a_refused_mail_is_followed_at_once(sender: Sender) -> None:
    """Apprise's pause of 5.5 s between two mails is for mails that were taken."""
    pauses: list[float] = []
    with mail_server(5_000_000) as server:
        guard = Recipient(url=server.url("guard@example.org"))
        sender.send(guard, [NOTIFICATION], lambda: True, pauses.append)
        assert len(server.mails) == 1
    assert len(pauses) == 2
    assert max(pauses) <= 0


@pytest.mark.parametrize("does", ["take", "hang up"])
def test_a_web_server_with_a_limit(sender: Sender, does: str) -> None:
    """An answer 413 is understood, and so is a connection that ends while the message is sent."""
    with web_server(3_000_000) as server:
        server.does = does
        guard = recipient_at(server.url())
        remark = send(sender, guard)
        assert send(sender, guard) == remark
    assert remark.startswith("the pictures are made smaller, since ")
    assert [len(one["attachments"]) for one in server.got] == [3, 3]
    assert all(
        "The alert's text\nThe pictures are made smaller" in x["message"] for x in server.got
    )
    assert sum(size > 3_000_000 for size in server.sizes) < 3


def test_a_channel_that_takes_the_text_and_refuses_the_pictures(sender: Sender, data: Path) -> None:
    """It is told once, and the next message has pictures that it takes."""
    Image.new("RGB", (9, 9)).save(data / PATHS[0])  # goes with the text
    with web_server(2_000_000) as server:
        guard = recipient_at(f"ntfy://127.0.0.1:{server.port}/topic")
        assert send(sender, guard).startswith("pictures are missing, since ")
        assert len(server.queries) == 1
        assert send(sender, guard).startswith("the pictures are made smaller, since ")
    assert len(server.queries) == 1 + 3
    assert sum("message=" in query for query in server.queries) == 2


def test_pictures_that_are_refused_in_other_words(sender: Sender) -> None:
    """Before a message is given up it is sent without them; so is the next one, at once."""
    with web_server(1_000_000) as server:
        server.does = "forbid"
        guard = recipient_at(server.url(), give_up_after=0)
        with pytest.raises(DeliveryFailed, match="the server answered 403"):
            send(sender, guard)
        pending = PendingEvent(NOTIFICATION, datetime.now(UTC), {}, time.monotonic())
        for _ in range(2):
            delivery = Delivery("guard", guard, 0, [pending], None)
            delivery.run(partial(send, sender, guard), Mock(StopSignal))
            assert delivery.outcome.startswith(
                "00003  told guard; the pictures are left out, since the message could not be sent"
            )
    assert len(server.sizes) == 1 + 2 + 1
    assert [one["attachments"] for one in server.got] == [[], []]


@pytest.mark.parametrize(
    ("does", "url", "words"),
    [
        ("refuse", "json://127.0.0.1:{}/", "the server answered 503 Servers are overloaded."),
        ("drop", "json://127.0.0.1:{}/", "the server closed the connection"),
        ("take", "jsons://127.0.0.1:{}/", "the server speaks no TLS there"),
        ("take", "json://127.0.0.1:1/", "nothing listens there"),
        ("take", "json://no-such-host.invalid/", "the host's name is not known"),
        ("take", "mailto://u:p@h.org:1?smtp=127.0.0.1&to=a@x.org", "nothing listens there"),
        ("take", "mailto://u:p@no-host.invalid?from=b@x.org&to=a@x.org", "the host's name is not"),
    ],
)
def test_why_it_failed(data: Path, does: str, url: str, words: str) -> None:
    """It is said in plain words, without any part of the address."""
    with web_server(10**9) as server:
        server.does = does
        recipient = recipient_at(url.format(server.port), attach=False)
        with pytest.raises(DeliveryFailed) as failed:
            send(Sender(Location(str(data))), recipient)
    assert str(failed.value).startswith(words)


def test_a_text_that_is_refused(sender: Sender) -> None:
    """Where the text alone is too large, too, it is tried again, and nothing else is learned."""
    with mail_server(0, is_limit_told=False) as server:
        guard = recipient_at(server.url("guard@example.org"))
        with pytest.raises(DeliveryFailed, match=r"^the mail server answered 552 5\.3\.4 Error"):
            send(sender, guard)
        server.limit = 10**8
        assert send(sender, guard) == ""


def test_a_picture_that_no_message_has_room_for(sender: Sender, data: Path) -> None:
    """It isn't sent in vain, but made smaller at once; a file that is no picture is left out."""
    (data / PATHS[2]).write_bytes(bytes(26_000_000))
    with mail_server(30_000_000) as server:
        remark = send(sender, recipient_at(server.url("guard@example.org")))
    assert remark.endswith("messages with more than 25 MB are seldom taken")
    (mail,) = server.mails
    assert sides([part.get_content() for part in mail.iter_attachments()]) == [1600, 1600]
