"""What `recipients.toml` says: who wants which event, when it is due, and what is wrong with it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InvalidInput
from pipeline.messages import ImageEvent
from pipeline.notify.recipients import Recipient, read_recipients

URL = "json://localhost:9/"
NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)


def recipient(**fields: object) -> Recipient:
    """A recipient with these fields."""
    return Recipient(**{"url": URL, **fields})  # type: ignore[arg-type]


def event(source: str = "", **fields: object) -> ImageEvent:
    """An event of the source, with these fields."""
    names = (f"{source}-{number:05d}" if source else f"{number:05d}" for number in (3, 2))
    image, previous = names
    fields |= {"event_id": image, "image_id": image, "previous_image_id": previous, "path": "x"}
    return ImageEvent(**fields)  # type: ignore[arg-type]


BOX = (10, 10, 20, 20)


@pytest.mark.parametrize(
    ("wishes", "happened", "reason"),
    [
        ({}, {}, ""),
        ({"sources": ["cam1", ""]}, {}, ""),
        ({"sources": ["cam1"]}, {"source": "cam1"}, ""),
        ({"sources": ["cam1"]}, {}, "source '' is none of ['cam1']"),
        ({"least_changed_share": 0.5}, {"changed_share": 0.5}, ""),
        ({"least_changed_share": 0.5}, {"changed_share": 0.25}, "0.25 of the pixels changed"),
        ({"least_changed_share": 0.5}, {}, ""),
        ({"least_rms": 5}, {"rms": 5.0}, ""),
        ({"least_rms": 5}, {"rms": 3.21}, "RMS 3.21 is under 5"),
        ({"least_rms": 5}, {}, ""),
        ({}, {"kind": "scene changed"}, ""),
        ({"scene_changes": False}, {}, ""),
        ({"scene_changes": False}, {"kind": "changed"}, ""),
        ({"scene_changes": False}, {"kind": "scene changed"}, "the scene changed"),
        ({"inside": BOX}, {"box": BOX}, ""),
        ({"inside": BOX}, {"box": (9, 10, 20, 20)}, "is not inside [10, 10, 20, 20]"),
        ({"inside": BOX}, {"box": (10, 10, 20, 21)}, "is not inside"),
        ({"inside": BOX}, {}, ""),
        ({"outside": BOX}, {"box": (0, 0, 10, 99)}, ""),
        ({"outside": BOX}, {"box": (20, 0, 30, 99)}, ""),
        ({"outside": BOX}, {"box": (0, 0, 99, 10)}, ""),
        ({"outside": BOX}, {"box": (19, 19, 30, 30)}, "is not outside [10, 10, 20, 20]"),
        ({"outside": BOX}, {"box": (0, 0, 99, 99)}, "is not outside"),
    ],
)
def test_who_wants_what(
    wishes: dict[str, object], happened: dict[str, object], reason: str
) -> None:
    """Each filter lets through what it should and says why not; what can't be judged passes."""
    said = recipient(**wishes).rejection_reason(event(**happened))  # type: ignore[arg-type]
    assert reason in said
    assert bool(reason) == bool(said)


def test_at_once() -> None:
    """Who asks for nothing else is told of each event at once, by itself."""
    anyone = recipient()
    assert anyone.due(NOON, NOON, NOON) == NOON
    assert not anyone.collects(NOON)


def test_a_cool_down() -> None:
    """After a message the next one waits, with all that has come until then; the first doesn't."""
    cool = recipient(cool_down=600)
    assert cool.due(NOON, None, NOON) == NOON
    last = NOON - timedelta(seconds=200)
    assert cool.due(NOON, last, NOON) == NOON + timedelta(seconds=400)
    assert cool.due(NOON, NOON - timedelta(hours=1), NOON) == NOON
    assert cool.collects(NOON)


def test_a_digest() -> None:
    """An event waits for others, and never longer than that."""
    digest = recipient(digest=3600)
    assert digest.due(NOON, None, NOON) == NOON + timedelta(hours=1)
    late = NOON + timedelta(hours=5)
    assert digest.due(NOON, None, late) == late
    assert digest.collects(NOON)


@pytest.mark.parametrize(
    ("hours", "zone", "at", "until"),
    [
        ("22:00-07:00", "UTC", "2026-07-01T21:59", ""),
        ("22:00-07:00", "UTC", "2026-07-01T22:00", "2026-07-02T07:00"),
        ("22:00-07:00", "UTC", "2026-07-02T06:59", "2026-07-02T07:00"),
        ("22:00-07:00", "UTC", "2026-07-02T07:00", ""),
        ("12:00-13:00", "UTC", "2026-07-01T12:30", "2026-07-01T13:00"),
        ("22:00-07:00", "Europe/Berlin", "2026-07-01T20:00", "2026-07-02T05:00"),
        ("22:00-07:00", "Europe/Berlin", "2026-12-01T20:30", ""),
        # The clock goes from 2:00 to 3:00, and half past two never comes; later it comes twice.
        ("22:00-02:30", "Europe/Berlin", "2026-03-29T00:45", "2026-03-29T01:30"),
        ("22:00-02:30", "Europe/Berlin", "2026-10-25T00:15", "2026-10-25T01:30"),
        ("22:00-02:30", "Europe/Berlin", "2026-10-25T01:15", "2026-10-25T01:30"),
    ],
)
def test_quiet_hours(hours: str, zone: str, at: str, until: str) -> None:
    """What comes in them is due at their end, in the recipient's time zone, in one message."""
    quiet = recipient(quiet_hours=hours, time_zone=zone)
    came = datetime.fromisoformat(f"{at}+00:00")
    assert quiet.due(came, None, came) == datetime.fromisoformat(f"{until or at}+00:00")
    assert quiet.collects(came) == bool(until)


@given(
    st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)),
    st.sampled_from(["UTC", "Europe/Berlin", "Australia/Lord_Howe", "America/St_Johns"]),
    st.times(),
    st.times(),
)
def test_quiet_hours_always_end(at: datetime, zone: str, start: object, end: object) -> None:
    """Whatever the clocks do, a message is due within a day and some, and not before `now`."""
    hours = f"{start:%H:%M}-{end:%H:%M}"
    if len(set(hours.split("-"))) == 2:
        due = recipient(quiet_hours=hours, time_zone=zone).due(at, None, at)
        assert at <= due <= at + timedelta(hours=26)


GOOD = f'[night]\nurl = "{URL}"\n'
WRONG: list[tuple[str | bytes, int, str]] = [
    (GOOD + 'least_rms = "5"', 3, "Expected `float`, got `str` - at `$.night.least_rms`"),
    (GOOD + "\n\nquiet = 5\n[x]\nurl = 'json://h'", 5, "unknown field `quiet` - at `$.night`"),
    (GOOD + "least_changed_share = 1.5", 3, "Expected `float` <= 1.0"),
    (GOOD + "least_rms = nan", 3, "Expected `float` >= 0.0"),
    (GOOD + "cool_down = -1", 3, "`$.night.cool_down`"),
    (GOOD + "digest = 1e9", 3, "Expected `float` <= 86400.0"),
    (GOOD + "attach = 1", 3, "Expected `bool`"),
    (GOOD + "sources = []", 3, "length >= 1"),
    (GOOD + 'sources = ["Cam 1"]', 3, "`$.night.sources[0]`"),
    (GOOD + "inside = [5,\n0,\n2, 9]\nattach = true", 5, "inside is [5, 0, 2, 9]"),
    (GOOD + "outside = [0, 0, 2]", 3, "length 4"),
    (GOOD + 'quiet_hours = "25:00-07:00"', 3, "quiet_hours '25:00-07:00' is no time from and to"),
    (GOOD + 'quiet_hours = "07:00-07:00"', 3, "quiet_hours '07:00-07:00'"),
    (GOOD + 'time_zone = "Mars/North"', 3, "time_zone 'Mars/North' is none"),
    (GOOD + 'time_zone = "../../etc/passwd"', 3, "time_zone '../../etc/passwd' is none"),
    (GOOD + GOOD, 3, "twice"),
    ("[night]\nleast_rms = 5\n", 1, "missing required field `url` - at `$.night`"),
    ('[night]\nurl = "json://${NOT_SET}"', 2, "environment variable NOT_SET, which is not set"),
    ('[night]\nurl = "carrier-pigeon://coop"', 2, "url can't be used by Apprise"),
    ('[night]\nurl = "mailto://me:pw@localhost?to=nobody"', 2, "url can't be used by Apprise"),
    ('[night]\nurl = "mailto://me:pw@h.org?to=a@x.org,b@x.org"', 2, "names several receivers"),
    ('[night]\nurl = "mailto://me:pw@h.org?to=a@x.org&cc=b@x.org"', 2, "names several receivers"),
    (GOOD + f"least_rms = 1{'0' * 5000}", 3, "5001 digits"),
    ('["the night"]\nurl = "json://h"', 1, "'the night' is no name"),
    ("night = 1", 1, "Expected `object`, got `int` - at `$.night`"),
    ("[night", 1, "Expected ']'"),
    ('\n\n[night]\n"\\u001b[31m" = 5\nurl = "json://h"', 4, "unknown field"),
]


@pytest.mark.parametrize(("content", "line", "reason"), WRONG)
def test_a_wrong_file(tmp_path: Path, content: str, line: int, reason: str) -> None:
    """It says in one line which line of the file is wrong and why."""
    path = tmp_path / "recipients.toml"
    path.write_text(content)
    with pytest.raises(InvalidInput) as said:
        read_recipients(path)
    assert str(said.value).startswith(f"{path}, line {line}: ")
    assert reason in str(said.value)
    assert str(said.value).isprintable()


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"\xff\xfe", "can't decode"), (b"a = " + b"[" * 9999, "brackets"), (None, "no file")],
)
def test_what_is_no_file_of_text(tmp_path: Path, content: bytes | None, reason: str) -> None:
    """Neither bytes, nor a directory, nor endless nesting has a line; it says so all the same."""
    path = tmp_path / "recipients.toml"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(InvalidInput, match=reason):
        read_recipients(path)


def test_an_empty_file(tmp_path: Path) -> None:
    """Nobody is a recipient, as without a file."""
    (tmp_path / "recipients.toml").write_text("# nobody yet\n")
    assert read_recipients(tmp_path / "recipients.toml") == {}


SECRET = "p@ss/w%rd:#?&"  # noqa: S105 (the test's)
QUOTED = "p%40ss%2Fw%25rd%3A%23%3F%26"


@pytest.mark.parametrize(
    "url",
    [
        "json://me:${SECRET}@h/",
        "json://h/${SECRET}",
        "json://h/?token=${SECRET}&x=y",
        "${WHOLE}",
        f"json://me:{QUOTED}@h/",
    ],
)
def test_secrets(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """A secret is one piece of the URL whatever is in it; nothing of the URL is ever shown."""
    monkeypatch.setenv("SECRET", SECRET)
    monkeypatch.setenv("WHOLE", f"json://me:{QUOTED}@h/")
    secret = recipient(url=url)
    if "?" not in url and "h/$" not in url:
        assert (secret.channel.user, secret.channel.password) == ("me", SECRET)
    assert QUOTED in secret.address
    for part in (secret.address, secret.address.partition("://")[2], SECRET, QUOTED):
        shown = secret.redacted(f"it failed: {part} and ({part!r})")
        assert shown.startswith("it failed: ")
        assert "***" in shown
        assert "ss/w" not in shown
        assert "p%40ss" not in shown
