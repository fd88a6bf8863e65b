"""What the commands set up: from nothing, on top of what is half there, and beside what runs."""

import itertools
import os
import re
import shutil
import signal
import subprocess
import threading
import tomllib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import HERE, clone_to

KEPT = ("KAFKA_", "PIPELINE_", "VIRTUAL_ENV", "PYTHONPATH")
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(KEPT)}
SETUP = 'tools/python.sh tools/in_venv.py "" -c "import kafka, msgspec"'
OFFLINE = "unshare --net sh -c 'ip link set lo up && exec python3 -c \"$TAKEN\"'"
READ_ONLY = (
    'unshare --mount sh -c \'mount --bind . . && mount -o remount,ro,bind "$PWD" && '
    'cd "$PWD" && exec ./run_pipeline.sh --count 4\''
)
TAKEN = """
import socket, subprocess, sys
with socket.create_server(("127.0.0.1", 9092)):
    sys.exit(subprocess.call(["./run_pipeline.sh", "--count", "4"]))
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A fresh clone of what is here, committed or not."""
    clone_to(tmp_path / "clone")
    subprocess.run(["git", "init", "--quiet", tmp_path / "clone"], check=True)
    subprocess.run(["git", "add", "--all"], cwd=tmp_path / "clone", check=True)
    return tmp_path / "clone"


def shell(command: str, directory: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """A command as someone types it who has neither Kafka nor Docker, nor our environment."""
    return subprocess.run(
        ["sh", "-c", command],
        cwd=directory,
        env=CLEAN | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.slow
def test_a_fresh_clone(clone: Path) -> None:
    """Nothing is needed but Python, and git sees nothing of a run and of its clean-up."""
    first = shell("./run_pipeline.sh", clone)
    assert first.returncode == 0, first.stdout + first.stderr
    assert (clone / "image_event_alerts" / "image_event_alert_00007.txt").exists()
    status = ["git", "status", "--porcelain", "--untracked-files=all"]
    told = subprocess.run(status, cwd=clone, capture_output=True, text=True, check=True).stdout
    assert not [line for line in told.splitlines() if not line.startswith("A  ")]
    assert shell("./clean_image_dirs.sh", clone).returncode == 0
    told = subprocess.run(status, cwd=clone, capture_output=True, text=True, check=True).stdout
    assert not [line for line in told.splitlines() if not line.startswith("A  ")]


def test_no_python(clone: Path, tmp_path: Path) -> None:
    """One line says what to install."""
    (tmp_path / "bin").mkdir()
    for name in ("sh", "dirname", "readlink"):
        (tmp_path / "bin" / name).symlink_to(str(shutil.which(name)))
    ended = shell("./run_pipeline.sh", clone, PATH=str(tmp_path / "bin"))
    assert ended.returncode == 1
    assert ended.stderr.startswith("no Python 3.11 or newer")
    assert ended.stderr.count("\n") == 1


def test_no_venv_module(clone: Path, tmp_path: Path) -> None:
    """One line says what to install, as on a Debian without python3-venv."""
    (tmp_path / "ensurepip.py").write_text("raise ImportError('left out')")
    ended = shell("./run_pipeline.sh", clone, PYTHONPATH=str(tmp_path))
    assert ended.returncode == 1
    assert "has no venv module" in ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.slow
def test_no_network(clone: Path) -> None:
    """One line says that PyPI can't be reached; the next try, with a network, works."""
    away = "http://127.0.0.1:9"
    ended = shell("./run_pipeline.sh", clone, HTTPS_PROXY=away, PIP_INDEX_URL=away)
    assert ended.returncode == 1
    assert "cannot install the packages in" in ended.stderr.splitlines()[-1]
    assert "check the network" in ended.stderr.splitlines()[-1]
    assert shell("./run_pipeline.sh --help", clone).returncode == 0


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone whose path has a blank and an umlaut, in which everything is installed."""
    clone = clone_to(tmp_path_factory.mktemp("a clone für alle") / "clone")
    first = shell("./run_pipeline.sh --count 4", clone)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "\033" not in first.stderr
    assert "\r" not in first.stderr
    return clone


def killed_while_installing(clone: Path) -> None:
    """Kill an installation as soon as it fetches packages."""
    shutil.rmtree(clone / ".venv")
    command = ["sh", "-c", SETUP]
    process = subprocess.Popen(
        command, cwd=clone, env=CLEAN, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stderr
    with process.stderr as lines:
        assert any("installing the packages" in line for line in lines)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def half_a_package(clone: Path) -> None:
    """Leave what a kill between two files of a package leaves."""
    venv = clone / ".venv"
    (venv / "installed-requirements").unlink()
    (venv / "install.log").touch()
    next(venv.glob("lib/*/site-packages/msgspec/__init__.py")).unlink()


def no_uv(clone: Path) -> None:
    """Leave what a kill before uv was there leaves."""
    shutil.rmtree(next((clone / ".venv").glob("lib/*/site-packages/uv")))


def another_python(clone: Path) -> None:
    """As after an update of Python, whose directory of packages has another name."""
    (packages,) = (clone / ".venv" / "lib").glob("python3.*")
    packages.rename(packages.with_name("python3.5"))


def no_python_any_more(clone: Path) -> None:
    """As after the Python that made it was removed."""
    python = clone / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to("/gone/python3")


@pytest.mark.slow
@pytest.mark.parametrize(
    "spoil", [killed_while_installing, half_a_package, no_uv, another_python, no_python_any_more]
)
def test_a_venv_that_is_not_whole(installed: Path, spoil: Callable[[Path], None]) -> None:
    """It is made whole by the next command."""
    spoil(installed)
    ended = shell(SETUP, installed)
    assert ended.returncode == 0, ended.stderr
    assert shell(SETUP, installed).stderr == ""


@pytest.mark.slow
@pytest.mark.root
def test_no_network_in_the_second_run(installed: Path) -> None:
    """All that it needs is there. Nor does it need Kafka's own port."""
    ended = shell(OFFLINE, installed, TAKEN=TAKEN)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert re.search(r"embedded Kafka at localhost:(?!9092)", ended.stdout)


@pytest.mark.slow
@pytest.mark.root
def test_a_checkout_that_is_only_for_reading(installed: Path, clone: Path, data: Path) -> None:
    """Where something is to be installed, one line says so; else it runs, on data elsewhere."""
    refused = shell(READ_ONLY, clone)
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert f"make {clone} writable" in refused.stderr
    ended = shell(READ_ONLY, installed, PIPELINE_DATA=str(data))
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.slow
def test_two_first_runs_at_once(clone: Path) -> None:
    """The second one says that it waits, and both work."""
    runs = [
        subprocess.Popen(
            ["sh", "-c", SETUP], cwd=clone, env=CLEAN, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    said = [run.communicate()[1] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], said
    assert sum("waiting for another program" in lines for lines in said) == 1
    assert sum("installing the packages" in lines for lines in said) == 1


@pytest.mark.slow
def test_tests_beside_a_running_pipeline(installed: Path) -> None:
    """What they install besides doesn't disturb it."""
    running = subprocess.Popen(
        ["./run_pipeline.sh", "--count", "9999", "--interval", "0.1"],
        cwd=installed,
        env=CLEAN,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert running.stdout
    with running.stdout as lines:
        begun = list(itertools.takewhile(lambda line: "received" not in line, lines))
        assert shell("./run_tests.sh --version", installed).returncode == 0
        assert running.poll() is None, [*begun, *lines]
        running.send_signal(signal.SIGINT)
        said = lines.read()
    assert running.wait() == 130, said


@pytest.fixture
def index() -> Iterator[tuple[str, list[str]]]:
    """A package index with all that is in uv.lock, and the pages that were asked for."""
    packages = tomllib.loads((HERE / "uv.lock").read_text())["package"]
    files = {one["name"]: [wheel["url"] for wheel in one.get("wheels", ())] for one in packages}
    asked: list[str] = []

    class Index(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.strip("/").rpartition("/")[2]
            asked.append(name)
            links = (f'<a href="{url}">{url.rpartition("/")[2]}</a>' for url in files[name])
            page = f"<!DOCTYPE html><html><body>{''.join(links)}</body></html>".encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Index) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/simple", asked
        server.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize("by_file", [True, False])
def test_an_index_of_ones_own(
    clone: Path, index: tuple[str, list[str]], tmp_path: Path, by_file: bool
) -> None:
    """What pip is told, by a variable or by a file, holds for all packages."""
    address, asked = index
    file = tmp_path / "pip.conf"
    file.write_text(f"[global]\nindex-url = {address}\n")
    told = {"PIP_CONFIG_FILE": str(file)} if by_file else {"PIP_INDEX_URL": address}
    ended = shell(SETUP, clone, UV_CACHE_DIR=str(tmp_path / "cache"), **told)
    assert ended.returncode == 0, ended.stderr
    assert {"uv", "msgspec", "numpy"} <= set(asked)


def test_the_lock_is_that_of_the_requirements() -> None:
    """uv.lock has what requirements.txt says."""
    lines = (HERE / "requirements.txt").read_text().splitlines()
    required = {
        re.split(r"[\[=]", line)[0].lower(): line.partition("==")[2].split()[0]
        for line in lines
        if "==" in line
    }
    packages = tomllib.loads((HERE / "uv.lock").read_text())["package"]
    locked = {one["name"]: one["version"] for one in packages if "version" in one}
    ours = next(one for one in packages if one["name"] == "mock-image-pipeline")
    assert {one["name"] for one in ours["dependencies"]} == set(required)
    assert required.items() <= locked.items()
