"""What docs/add_a_stage.md says is done here, letter by letter, and the new stage is tried."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import HERE, Pipeline, clone_to

PAGE = (HERE / "docs" / "add_a_stage.md").read_text()
STEP = re.compile(
    r"(?P<what>[Bb]elow the row of|[Bb]elow|[Aa]bove|[Rr]eplace|[Cc]reate) `(?P<where>[^`]+)`"
)


def insert(lines: list[str], number: int, code: str) -> None:
    """Put code above a line; a file must have such a line."""
    lines[number:number] = code.splitlines(keepends=True)


def follow_the_page(clone: Path) -> None:
    """Do each step of the page in a clone, in order."""
    file = clone
    for words, language, code in re.findall(
        r"(.*?)^```(\w+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL
    ):
        if language == "console":
            for command in re.findall(r"^\$ (.*)", code, re.MULTILINE):
                subprocess.run(["bash", "-c", command], cwd=clone, check=True)
            continue
        paragraph = " ".join(words.strip().split("\n\n")[-1].split())
        if named := re.search(r"In `([^`]+)`", words):
            file = clone / named[1]
        step = STEP.search(re.sub(r"In `[^`]+`", "", paragraph))
        assert step, paragraph
        what, where = step["what"].lower(), step["where"]
        if what == "create":
            (clone / where).write_text(code)
            continue
        lines = file.read_text().splitlines(keepends=True)
        start = f"| `{where}`" if what == "below the row of" else where
        found = [number for number, line in enumerate(lines) if line.strip().startswith(start)]
        assert found, f"{file.name} has no line {where!r}"
        if what == "replace":
            del lines[found[0]]
        insert(lines, found[0] + what.startswith("below"), code)
        file.write_text("".join(lines))


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone with one stage more; the steps of the page, checks included, have gone well."""
    clone = clone_to(tmp_path_factory.mktemp("clone"))
    for name in (".venv", ".mypy_cache"):
        if (HERE / name).exists():
            (clone / name).symlink_to((HERE / name).resolve())
    follow_the_page(clone)
    return clone


@pytest.mark.slow
def test_the_new_stage_is_exactly_once(clone: Path, pipeline: Pipeline) -> None:
    """It takes alerts, is killed, runs again, and each alert has one follow-up, also one twice."""
    program = str(clone / "image_follow_up.py")
    pipeline.start("image_analysis.py")
    pipeline.start("image_event_alert.py")
    stage = pipeline.start(sys.executable, program)
    pipeline.receive()
    stage.says("00003  is to be observed again")
    stage.process.kill()
    stage.ends()
    pipeline.receive("--count", "5")
    (alert, *_) = pipeline.waits_for("alerts", 4)
    audit = pipeline.start(sys.executable, "-m", "pipeline", "audit", PYTHONPATH=str(clone))
    assert audit.ends() == 0, audit
    pipeline.put("alerts", alert.value, alert.key)
    stage = pipeline.start(sys.executable, program)
    stage.says("came twice; it is followed up")
    pipeline.put("alerts", b"rubbish")
    stage.says("set aside  alerts")
    assert pipeline.ids("follow-ups") == ["00003", "00007", "00011", "00015"]
    names = [f"image_follow_up_{number:05d}.txt" for number in (3, 7, 11, 15)]
    assert pipeline.files("image_follow_ups") == names
    text = (pipeline.data / "image_follow_ups" / names[0]).read_text()
    assert text.startswith("Observe again: 00003\nAlert: image 00003 differs from image 00002\n")
    # It is seen by the command that shows what waits, and its files go with the others.
    lag = pipeline.start(sys.executable, "-m", "pipeline", "lag", PYTHONPATH=str(clone))
    assert lag.ends() == 0
    assert any(line.split()[:3] == ["image_follow_up", "1", "0"] for line in lag.lines), lag
    assert stage.stop() == 0
    environment = os.environ | {"PIPELINE_DATA": str(pipeline.data)}
    subprocess.run([clone / "clean_image_dirs.sh"], env=environment, check=True)
    assert pipeline.files("image_follow_ups") == []


@pytest.mark.slow
def test_the_whole_run_has_the_new_stage(clone: Path, pipeline: Pipeline) -> None:
    """`run` starts it with the others, and ends once it has done all."""
    run = pipeline.start(sys.executable, "-m", "pipeline", "run", PYTHONPATH=str(clone))
    assert run.ends() == 0, run
    run.says(r"image_follow_up +\| 00007  is to be observed again")
    assert pipeline.ids("follow-ups") == ["00003", "00007"]


@pytest.mark.slow
def test_the_pages_and_the_schema_know_it(clone: Path) -> None:
    """The checks of the documentation and of the schema pass in the clone."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    chosen = ["tests/test_docs.py", "tests/test_properties.py", "-k", "fields or schema or links"]
    subprocess.run([*command, "--broker=embedded", *chosen], cwd=clone, check=True)
