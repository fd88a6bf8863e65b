"""The commands of python -m pipeline, which ./run_pipeline.sh takes as well."""

import re
import subprocess

import pytest
from conftest import HERE, Pipeline

from pipeline.comparison.decode import FORMAT_NAMES, FORMATS
from pipeline.operate import run
from pipeline.settings import VARIABLES

COMMANDS = (
    *("audit", "chaos", "clean", "dead-letters", "lag", "notifications", "run", "schema", "view"),
    "why",
)


@pytest.mark.parametrize("name", COMMANDS)
def test_help(lone: Pipeline, name: str) -> None:
    """Each command's --help says the same either way, and ends with 0."""
    here = lone.run_here(name, "--help")
    assert here.status == 0
    assert here.lines
    script = subprocess.run(
        [HERE / "run_pipeline.sh", name, "--help"],
        cwd=lone.data,
        env=lone.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert script.returncode == 0, script.stderr
    assert script.stdout.splitlines() == here.lines


def helps(lone: Pipeline) -> dict[str, str]:
    """What each program and command says of each of its options, in one line, by their names."""
    programs = ("image_receiving.py", "image_analysis.py", "image_event_alert.py")
    found = {}
    for name in (*programs, *(command for command in COMMANDS if command != "run")):
        text = re.sub(r"\n {20,}", "  ", lone.run_here(name, "--help", COLUMNS="999").output)
        for option, about in re.findall(
            r"^  (-?[-\w{},]+)(?: .*?)?(?:  +(.*))?$", text, re.MULTILINE
        ):
            found[f"{name} {option}"] = about
    return found


def test_help_explains_each_option(lone: Pipeline) -> None:
    """No option is only named, or has only its default; settings are in the README's words."""
    found = helps(lone)
    assert len(found) > 60
    for option, about in found.items():
        assert re.match(r"[a-z].{9}", about), option
        assert not about.startswith(("default", "as in")), option
    readme = (HERE / "README.md").read_text()
    rows = re.findall(r"^\| `[A-Z_]+` \| `(--[a-z-]+)` \|.*\| (.*) \|$", readme, re.MULTILINE)
    assert {option for option, _ in rows} == set(VARIABLES)
    for option, what in rows:
        words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", what).replace("`", "").partition(";")[0]
        abouts = [about for name, about in found.items() if name.endswith(f" {option}")]
        assert abouts, option
        assert all(about.startswith(words) for about in abouts), (option, words)


def test_help_of_a_run(lone: Pipeline) -> None:
    """It names each option that is its own, and each setting."""
    text = lone.run_here("run", "--help").output
    for option in ("--view", "--copies", "--chaos", *VARIABLES):
        assert option in text, option


def test_the_formats_are_the_same_everywhere() -> None:
    """The README, the page about pictures and --from name those that are decoded, and no others."""
    names = set(re.findall(r"\w+", FORMAT_NAMES)) - {"and"}
    assert {name.upper() for name in names} == {*FORMATS, "FITS"}
    for page in ("README.md", "docs/own_pictures.md"):
        assert FORMAT_NAMES in " ".join((HERE / page).read_text().split()), page


def test_every_command_is_listed(lone: Pipeline) -> None:
    """The list of all commands has each of them, and so has the help of run_pipeline.sh."""
    listed = lone.run_here("--help").output
    for name in COMMANDS:
        assert f"\n    {name} " in listed
        assert name in (run.__doc__ or "").partition("COMMAND    ")[2].partition("\n\n")[0]


def test_an_option_that_is_nearly_right(lone: Pipeline) -> None:
    """The line says which was meant; of one that is like none it doesn't."""
    line = lone.usage_error("image_analysis.py", "--treshold", "5")
    assert "--treshold 5; did you mean --threshold? (--help" in line
    assert "did you mean" not in lone.usage_error("lag", "--frobnicate")


def test_no_command(lone: Pipeline) -> None:
    """One line names all commands."""
    line = lone.usage_error("frobnicate")
    assert "'frobnicate' is no command" in line
    assert line.endswith(", ".join(COMMANDS))
