"""Make .venv have what uv.lock pins, where that is still to do, and become a program in it.

    python3 tools/in_venv.py GROUPS PROGRAM [ARGUMENTS]

What is in requirements.txt is always installed. GROUPS are the dependency groups of pyproject.toml
that are installed as well: their names with commas between them, or an empty text.

pip, which comes with Python, fetches uv, and uv fetches and installs everything else. Only Python's
standard library is used here, since nothing is installed yet when this runs.
"""

import ast
import fcntl
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import IO

HERE = Path(__file__).resolve().parents[1]
LOCK = HERE / "uv.lock"
VENV = HERE / ".venv"
PYTHON = VENV / "bin" / "python"
PIP = (str(PYTHON), "-I", "-m", "pip")
UV = (str(PYTHON), "-I", "-m", "uv")
LOG = VENV / "install.log"  # exists while an installation runs, and after one that failed
REQUIREMENTS = VENV / "requirements.txt"


def is_usable() -> bool:
    """Whether .venv was made whole, by a Python that is still there and still the same version."""
    try:
        ended = subprocess.run([PYTHON, "-I", "-c", "import uv"], capture_output=True, check=False)
    except OSError:
        return False
    return ended.returncode == 0


def stamps(groups: str) -> list[Path]:
    """The uv.lock from which requirements.txt and each of the groups were installed, as copies."""
    names = ["requirements", *filter(None, groups.split(","))]
    return [VENV / f"installed-{name}" for name in names]


def is_installed(groups: str) -> bool:
    """Whether nothing is left to do."""
    installed = [stamp.read_bytes() if stamp.exists() else b"" for stamp in stamps(groups)]
    return set(installed) == {LOCK.read_bytes()} and is_usable()


def say(line: str) -> None:
    """Say on standard error what happens."""
    print(line, file=sys.stderr, flush=True)


def make_venv() -> None:
    """Make .venv anew, with nothing but pip in it; ends the program with one line if it can't.

    The wheel of pip that comes with Python is unpacked where `ensurepip` would install it, since
    that takes 3 s. Linux distributions may keep it in a directory that is named in `sysconfig`.
    """
    try:
        import ensurepip  # noqa: PLC0415 (Debian leaves it out)
    except ImportError:
        wheels = []
    else:
        bundled = Path(ensurepip.__file__).with_name("_bundled")
        wheels = [*Path(sysconfig.get_config_var("WHEEL_PKG_DIR") or bundled).glob("pip-*.whl")]
    if not wheels:
        sys.exit(
            f"{sys.executable} has no venv module; install it (Debian, Ubuntu: "
            "apt install python3-venv), then run this again"
        )
    venv.create(VENV, clear=True)
    for packages in VENV.glob("lib/python*/site-packages"):
        shutil.unpack_archive(wheels[-1], packages, "zip")


def pip_settings() -> dict[str, str]:
    """What the user's files and environment tell pip, by the name of pip's option."""
    listed = subprocess.run([*PIP, "config", "list"], capture_output=True, text=True, check=True)
    settings = {"cert": os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")}
    for section in ("global", "install", ":env:"):  # as in pip, the last of them counts
        lines = re.findall(rf"^{section}\.(\S+?)=(.+)$", listed.stdout, re.MULTILINE)
        settings |= {name: ast.literal_eval(value) for name, value in lines}
    return {name: value for name, value in settings.items() if value}


def uv_options(settings: dict[str, str]) -> Iterator[str]:
    """Pip's settings as options of uv, which doesn't read them.

    Like pip, uv then takes a package from any of the indexes; its hash is that of uv.lock anyway.
    """
    yield "--index-strategy=unsafe-best-match"
    if "cert" in settings:
        yield f"--cert={settings['cert']}"
    if settings.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        yield "--no-index"
    for name in ("index-url", "extra-index-url", "find-links", "trusted-host"):
        for value in settings.get(name, "").split():
            # pip passes over a directory that isn't there, and uv fails.
            if name != "find-links" or "://" in value or Path(value).exists():
                yield f"--{name}={value}"


def run(command: list[str], environment: dict[str, str], stdout: IO[str], stderr: IO[str]) -> None:
    """Run a step of the installation; ends the program with one line if the step fails."""
    ended = subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        check=False,
    )
    if ended.returncode != 0:
        lines = LOG.read_text(errors="replace").splitlines() or ["the lines above say why"]
        errors = [line for line in lines if line.lower().startswith("error")] or lines
        sys.exit(
            f"cannot install the packages in {LOCK}: {errors[-1]}; "
            f"check the network and {LOG}, then run this again"
        )


def install(groups: str) -> None:
    """Install what is missing; packages that are there and right stay untouched."""
    if not is_usable():
        make_venv()
    # A package that was being installed when an earlier installation ended may be half there.
    again = ["--force-reinstall"] if LOG.exists() else []
    settings = pip_settings()
    environment = dict(os.environ)
    if "proxy" in settings:
        environment["ALL_PROXY"] = settings["proxy"]
    with LOG.open("w") as log:
        # pip's progress goes to its standard output, and uv's to its standard error.
        progress = sys.stderr if sys.stderr.isatty() else log
        say("[1/2] fetching uv, which installs the packages")
        pinned = tomllib.loads(LOCK.read_text())["package"]
        uv = next(package for package in pinned if package["name"] == "uv")
        hashes = [f"--hash={wheel['hash']}" for wheel in uv["wheels"]]
        REQUIREMENTS.write_text(" ".join([f"uv=={uv['version']}", *hashes]))
        pip = [*PIP, "install", "--require-hashes", "--retries=2", "--disable-pip-version-check"]
        run([*pip, *again, f"--requirement={REQUIREMENTS}"], environment, progress, log)
        say("[2/2] installing the packages")
        chosen = [f"--group={group}" for group in filter(None, groups.split(","))]
        export = [*UV, "export", "--project", str(HERE), "--frozen", "--no-default-groups"]
        run([*export, *chosen, f"--output-file={REQUIREMENTS}"], environment, log, log)
        packages = [*UV, "pip", "install", f"--python={PYTHON}", "--require-hashes", "--no-deps"]
        packages += [*uv_options(settings), *again, f"--requirement={REQUIREMENTS}"]
        run(packages, environment, log, progress)
    LOG.unlink()
    for stamp in stamps(groups):
        stamp.write_bytes(LOCK.read_bytes())


def main() -> None:
    """Install, then become the program."""
    groups, *program = sys.argv[1:]
    try:
        if not is_installed(groups):
            with (HERE / ".venv.lock").open("w") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    say(f"waiting for another program that installs into {VENV}")
                    fcntl.flock(lock, fcntl.LOCK_EX)
                if not is_installed(groups):  # by the other program
                    install(groups)
    except (OSError, subprocess.SubprocessError) as error:
        sys.exit(f"cannot make {VENV}: {error}; make room and make {HERE} writable")
    except KeyboardInterrupt:
        sys.exit(130)
    os.execv(PYTHON, [str(PYTHON), *program])


if __name__ == "__main__":
    main()
