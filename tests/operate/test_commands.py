"""The commands of python -m pipeline, which ./run_pipeline.sh takes as well."""

import subprocess

import pytest
from conftest import HERE, Pipeline

from pipeline.operate import run

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


def test_every_command_is_listed(lone: Pipeline) -> None:
    """The list of all commands has each of them, and so has the help of run_pipeline.sh."""
    listed = lone.run_here("--help").output
    for name in COMMANDS:
        assert f"\n    {name} " in listed
        assert name in (run.__doc__ or "").partition("COMMAND    ")[2].partition("\n\n")[0]


def test_no_command(lone: Pipeline) -> None:
    """One line names all commands."""
    line = lone.usage_error("frobnicate")
    assert "'frobnicate' is no command" in line
    assert line.endswith(", ".join(COMMANDS))
