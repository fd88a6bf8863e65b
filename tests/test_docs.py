"""The pages in docs/ say what is so: what they show is run, and what they name is there."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from conftest import HERE, Pipeline

from pipeline.messages import MESSAGE_TYPES
from pipeline.notify.recipients import Recipient
from pipeline.notify.recipients_file import read_recipients

PAGES = [
    *(HERE / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((HERE / "docs").glob("*.md")),
]
TEXTS = {path.name: path.read_text() for path in PAGES}


def blocks(page: str, language: str) -> list[str]:
    """The blocks of code of this language in a page."""
    return re.findall(rf"^```{language}\n(.*?)^```", TEXTS[page], re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """What GitHub makes of a page's headings, to be linked to."""
    headings = re.findall(r"^#+ (.*)", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", [*PAGES, HERE / "examples" / "README.md"], ids=str)
def test_links_lead_somewhere(path: Path) -> None:
    """Each link to a file or a heading of ours leads to it."""
    for target in re.findall(r"\]\(([^)]+)\)", path.read_text()):
        if target.startswith("http"):
            continue
        name, _, anchor = target.partition("#")
        found = (path.parent / name).resolve() if name else path
        assert found.exists(), f"{path.name}: {target}"
        assert not anchor or anchor in anchors(found.read_text()), f"{path.name}: {target}"


@pytest.mark.parametrize("path", PAGES[:2] + PAGES[3:], ids=lambda path: path.name)
def test_files_that_are_named_are_there(path: Path) -> None:
    """Each path of the repository that a page names in code is there."""
    folders = "|".join(entry.name for entry in HERE.iterdir() if entry.is_dir())
    for name in re.findall(rf"`((?:\./)?(?:{folders})/[\w./-]+)`", path.read_text()):
        is_made = name.startswith(("image_database", "image_event_"))
        assert is_made or (HERE / name).exists(), f"{path.name}: {name}"


def documented_commands() -> list[str]:
    """Each command line of the pages that is for run_pipeline.sh or python -m pipeline."""
    found = []
    for page, text in TEXTS.items():
        for block in (*blocks(page, "console"), *blocks(page, "sh")):
            found += re.findall(
                r"^(?:\$ )?(?:\./run_pipeline\.sh|python -m pipeline) ?(.*)", block, re.MULTILINE
            )
        found += re.findall(r"`(?:\./run_pipeline\.sh|python -m pipeline) ([a-z-][^`|\[…]*)`", text)
    return sorted(set(found))


def test_options_that_are_shown_exist() -> None:
    """Each command that a page shows is one, with options that its --help, or a program's, has."""
    helps: dict[str, str] = {}

    def help_of(*command: str) -> str:
        if " ".join(command) not in helps:
            asked = [sys.executable, *command, "--help"]
            ended = subprocess.run(asked, cwd=HERE, capture_output=True, text=True, check=True)
            helps[" ".join(command)] = ended.stdout
        return helps[" ".join(command)]

    programs = "".join(
        help_of(f"{name}.py") for name in ("image_receiving", "image_analysis", "image_event_alert")
    )
    assert len(documented_commands()) > 10
    for line in documented_commands():
        command, *options = shlex.split(line) or ["run"]
        known = programs + help_of("-m", "pipeline", "run")
        if not command.startswith("-"):
            known = help_of("-m", "pipeline", command)
        for option in [command, *options]:
            if option.startswith("--") and option != "--help":
                assert option in known, line


def test_a_consumer_of_ones_own(pipeline: Pipeline) -> None:
    """The consumer in docs/messages.md prints the alerts, in a Python without any extra codec."""
    (code,) = blocks("messages.md", "python")
    pipeline.start("image_analysis.py")
    pipeline.start("image_event_alert.py")
    pipeline.receive()
    pipeline.waits_for("alerts", 2)
    absent = "import sys; sys.modules.update(dict.fromkeys(['zstandard', 'lz4', 'snappy']))\n"
    consumer = absent + code.replace("localhost:9092", pipeline.bootstrap_servers)
    started = pipeline.start(sys.executable, "-u", "-c", consumer)
    started.says('"event_id":"00007"')
    started.process.kill()


def test_the_recipients_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example of a recipients.toml is one, and the page names each setting that there is."""
    file = tmp_path / "recipients.toml"
    (example,) = blocks("recipients.md", "toml")
    file.write_text(example)
    monkeypatch.setenv("MAIL_USER", "me")
    monkeypatch.setenv("MAIL_PASSWORD", "se/cr@et")
    assert list(read_recipients(file)) == ["night-shift", "archive"]
    settings = {field.name for field in msgspec.structs.fields(Recipient)}
    assert settings <= set(re.findall(r"`(\w+)`", TEXTS["recipients.md"]))


def test_what_proves_the_promises_is_there() -> None:
    """Each test that docs/promises.md names is one of ours."""
    named = set(re.findall(r"`(test_\w+)`", TEXTS["promises.md"]))
    ours = "".join(path.read_text() for path in (HERE / "tests").rglob("test_*.py"))
    assert len(named) > 15
    assert named <= set(re.findall(r"def (test_\w+)", ours))


def test_the_quick_run_tries_each_promise() -> None:
    """At least one test of each row of docs/promises.md isn't slow, with one parameter at least."""
    ours = "\n".join(path.read_text() for path in (HERE / "tests").rglob("test_*.py"))
    decorated = re.findall(r"((?:^@.*\n(?:^[ )\]].*\n)*)*)^def (test_\w+)", ours, re.MULTILINE)
    quick = {name for decorators, name in decorated if "@pytest.mark.slow" not in decorators}
    rows = [line for line in TEXTS["promises.md"].splitlines() if re.search(r"\| `test_", line)]
    assert len(rows) > 15
    for row in rows:
        assert quick & set(re.findall(r"`(test_\w+)`", row)), row


def test_the_fields_are_those_of_the_messages() -> None:
    """docs/messages.md names each field; those in brackets may be absent."""
    for topic, kind in MESSAGE_TYPES.items():
        row = re.search(rf"^\| `{topic}` \| (.*) \|$", TEXTS["messages.md"], re.MULTILINE)
        assert row, topic
        needed, _, optional = row[1].partition("[")
        fields = [(field.name, field.required) for field in msgspec.structs.fields(kind)]
        assert {name for name, required in fields if required} == set(re.findall("`(.+?)`", needed))
        others = {name for name, required in fields if not required}
        assert others == set(re.findall("`(.+?)`", optional))


def test_the_settings_are_all_there() -> None:
    """The README's table has each environment variable that the code asks for."""
    code = "".join(path.read_text() for path in (HERE / "pipeline").rglob("*.py"))
    asked = set(re.findall(r"\b(?:KAFKA|PIPELINE)_[A-Z_]+\b", code))
    shown = TEXTS["README.md"] + TEXTS["security.md"]
    families = tuple(re.findall(r"`(KAFKA_[A-Z]+_)…`", shown))
    for name in asked - {"KAFKA_SASL_", "KAFKA_SSL_", "KAFKA_"}:
        assert name in shown or name.startswith(families), name
