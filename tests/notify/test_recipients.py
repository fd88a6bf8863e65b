"""What `recipients.toml` says: who wants which event, when it is due, and what is wrong with it."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InvalidInput
from pipeline.messages import ImageEvent
from pipeline.notify.recipients import Recipient
from pipeline.notify.recipients_file import ALLOWED, read_recipients

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
        (
            {"least_changed_share": 0.5},
            {"changed_share": 0.25},
            "25 % of the pixels changed, which is under 50 %",
        ),
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
SECONDS = "it must be a number of seconds, from 0 to 86400"
WRONG: list[tuple[str, int, str]] = [
    # The wrong kind of value, for each setting, and one that is out of bounds.
    ("[night]\nurl = 5", 2, 'url is no text; it must be a text, as in "mailtos://'),
    ('[night]\nurl = ["json://me:secret@h"]', 2, "url is no text; it must be a text"),
    (GOOD + 'sources = "cam1"', 3, 'sources is "cam1"; it must be a list of sources, each "" or'),
    (GOOD + "sources = []", 3, "sources is []; it must be a list of sources"),
    (GOOD + 'sources = ["Cam 1"]', 3, 'sources is ["Cam 1"]; it must be a list of sources'),
    (GOOD + 'least_changed_share = "1"', 3, 'least_changed_share is "1"; it must be a number from'),
    (GOOD + "least_changed_share = 1.5", 3, "is 1.5; it must be a number from 0 to 1"),
    (GOOD + 'least_rms = "5"', 3, 'least_rms is "5"; it must be a number, 0 or more'),
    (GOOD + "least_rms = nan", 3, "least_rms is NaN; it must be a number, 0 or more"),
    (
        GOOD + 'inside = "all"',
        3,
        'inside is "all"; it must be four whole numbers, 0 or more, as in',
    ),
    (GOOD + "inside = [0, 0, 1.5, 2]", 3, "inside is [0, 0, 1.5, 2]; it must be four whole"),
    (GOOD + "inside = [5,\n0,\n2, 9]\nattach = true", 5, "inside is [5, 0, 2, 9]; it goes left,"),
    (GOOD + "outside = [0, 0, 2]", 3, "outside is [0, 0, 2]; it must be four whole numbers"),
    (GOOD + "quiet_hours = 22", 3, 'quiet_hours is 22; it must be a text, as in "22:00-07:00"'),
    (
        GOOD + 'quiet_hours = "25:00-07:00"',
        3,
        'is "25:00-07:00"; it must be a time from and a time',
    ),
    (
        GOOD + 'quiet_hours = "07:00-07:00"',
        3,
        'quiet_hours is "07:00-07:00"; it must be a time from',
    ),
    (GOOD + 'quiet_hours = "22-7"', 3, 'as in "22:00-07:00"'),
    (GOOD + "time_zone = 2", 3, 'time_zone is 2; it must be a text, as in "Europe/Berlin"'),
    (GOOD + 'time_zone = "Mars/North"', 3, 'time_zone is "Mars/North"; it must be a place, as in'),
    (GOOD + 'time_zone = "Europe/Berln"', 3, "did you mean Europe/Berlin?"),
    (GOOD + 'time_zone = "../../etc/passwd"', 3, 'time_zone is "../../etc/passwd"; it must be'),
    (GOOD + "cool_down = -1", 3, f"cool_down is -1; {SECONDS}"),
    (GOOD + 'digest = "1h"', 3, f'digest is "1h"; {SECONDS}'),
    (GOOD + "digest = 1e9", 3, f"digest is 1000000000.0; {SECONDS}"),
    (GOOD + "give_up_after = true", 3, f"give_up_after is true; {SECONDS}"),
    (GOOD + "attach = 1", 3, "attach is 1; it must be true or false"),
    (GOOD + "digest = 2026-11-25", 3, f'digest is "2026-11-25"; {SECONDS}'),
    # Settings that there are not, or that are missing, and tables that are none.
    (
        GOOD + "\n\nrain = 5\n[x]\nurl = 'json://h'",
        5,
        "'rain' is no setting of a recipient; there",
    ),
    ('[night]\nurll = "json://h"', 2, "'urll' is no setting of a recipient; did you mean url?"),
    (GOOD + "digests = 5", 3, "'digests' is no setting of a recipient; did you mean digest?"),
    (
        '\n\n[night]\n"\\u001b[31m" = 5\nurl = "json://h"',
        4,
        "is no setting of a recipient; there are",
    ),
    ("[night]\nleast_rms = 5\n", 1, "night has no url, which says where to: a text, as in"),
    ("[night]\n", 1, "night has no url"),
    ('["the night"]\nurl = "json://h"', 1, "'the night' is no name; a recipient's name is 1 to 64"),
    ('[night.shift]\nurl = "json://h"', 1, "'shift' is a table in 'night'; a recipient's name is"),
    ('[[night]]\nurl = "json://h"', 1, "night is a list; it must be a table, as in"),
    ("night = 1", 1, "night is 1; it must be a table, as in [night]"),
    ('url = "json://h"', 1, "url is in no table; write the recipient's [name] above it"),
    # What is no TOML.
    (GOOD + GOOD, 3, "it is no TOML: there are two tables [night]; give one another name"),
    (GOOD + "digest = 1\ndigest = 2", 4, "what stands here is given twice"),
    ("[night", 1, "a table's name has no ] at its end, as in [night]"),
    ("[night]\nurl", 2, "behind a setting's name comes =, as in digest = 3600"),
    ("[night]\nurl = json://h", 2, "what stands behind = is no value; a text has quotes"),
    (GOOD + "digest = 3600 s", 3, "what stands behind the value is no part of it"),
    ('[night]\nurl = "json://h\nattach = true', 2, "a text has no quote at its end"),
    ('[night]\nurl = "json://h', 2, "a text has no quote at its end"),
    (GOOD + "sources = [1, 2", 3, "a list has no ] at its end"),
    (GOOD + "sources = [1 2]", 3, "a list has no ] at its end, or a comma is missing"),
    ('[night]\nurl = "a\\d"', 2, "a backslash in a text is written twice"),
    ("night: 5", 1, "behind a setting's name comes ="),
    ("- night", 1, "behind a setting's name comes ="),
    ("{}", 1, "here must be a [name] or name ="),
    (GOOD + f"least_rms = 1{'0' * 5000}", 3, "a number is too long"),
    # URLs.
    ('[night]\nurl = "json://${NOT_SET}"', 2, "environment variable NOT_SET, which is not set"),
    ('[night]\nurl = ""', 2, "url doesn't begin with the name of a channel, as"),
    ('[night]\nurl = "night@example.org"', 2, "url doesn't begin with the name of a channel"),
    ('[night]\nurl = "pigeon://coop"', 2, 'url begins with "pigeon://", which is no channel; '),
    (
        '[night]\nurl = "mailtoo://h"',
        2,
        'with "mailtoo://", which is no channel; did you mean mailto?',
    ),
    (
        '[night]\nurl = "https://h/x"',
        2,
        'with "https://", which is no channel; did you mean jsons?',
    ),
    ('[night]\nurl = "mailto://me:pw@h?to=nobody"', 2, 'url has "nobody" in to=, which is no mail'),
    ('[night]\nurl = "mailto://me:pw@h.org?to=a@x.org,b@"', 2, 'url has "b@" in to=, which is no'),
    ('[night]\nurl = "mailto://me:pw@h.org?to=a@x.org&cc=b"', 2, 'url has "b" in cc=, which is no'),
    (
        '[night]\nurl = "mailto://h.org?to=a@x.org"',
        2,
        "url lacks a mail address to send from or to",
    ),
    ('[night]\nurl = "mailto://me:pw@h.org/nobody"', 2, "url lacks a mail address to send from or"),
    ('[night]\nurl = "json://h:99999/"', 2, "url has the port 99999; a port is a number from 1 to"),
    ('[night]\nurl = "slack://x"', 2, "url isn't what Slack needs"),
    ('[night]\nurl = "json://"', 2, "url isn't what JSON needs; it has the form json://"),
    ('[night]\nurl = "mailto://me:pw@h.org?to=a@x.org,b@x.org"', 2, "names several receivers"),
    ('[night]\nurl = "mailto://me:pw@h.org?to=a@x.org&cc=b@x.org"', 2, "names several receivers"),
]


@pytest.mark.parametrize(("content", "line", "reason"), WRONG)
def test_a_wrong_file(tmp_path: Path, content: str, line: int, reason: str) -> None:
    """It says in one line which line of the file is wrong and why."""
    path = tmp_path / "recipients.toml"
    path.write_text(content)
    with pytest.raises(InvalidInput) as said:
        read_recipients(path)
    where, _, words = str(said.value).partition(": ")
    assert where == f"{path}, line {line}"
    assert reason in words
    assert words.isprintable()
    assert not re.search(r"Expected|`|\$\.|Dropped|Unparseable|pw|secret", words)


def test_each_setting_says_what_it_may_be() -> None:
    """So that a mistake in any of them is said in the same words."""
    assert tuple(ALLOWED) == Recipient.__struct_fields__


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"# \n\xff\xfe", "line 2: it is no text in UTF-8"),
        (b"a = " + b"[" * 9999, "brackets"),
        (None, "no file"),
    ],
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
