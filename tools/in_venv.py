"""Make .venv from requirements files, where that is still to do, and become a program in it.

    python3 tools/in_venv.py requirements.txt,requirements-s3.txt run_pipeline.py [arguments]

For Python's standard library alone: nothing is installed yet when this runs.
"""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
VENV = HERE / ".venv"
PYTHON = VENV / "bin" / "python"


def is_usable() -> bool:
    """Whether .venv has a Python that runs: not so one half made, or made of one that has gone."""
    try:
        return subprocess.run([PYTHON, "-c", ""], check=False).returncode == 0
    except OSError:
        return False


def install(requirements: Path) -> None:
    """Make .venv have what the file says; ends the program with one line if that fails."""
    installed = VENV / f"installed-{requirements.name}"
    wanted = requirements.read_bytes()
    if installed.exists() and installed.read_bytes() == wanted and is_usable():
        return
    try:
        import ensurepip  # noqa: F401, PLC0415 (Debian leaves both out)
        import venv  # noqa: PLC0415
    except ImportError:
        sys.exit(
            f"{sys.executable} has no venv module; install it (Debian, Ubuntu: "
            "apt install python3-venv), then run this again"
        )
    if not is_usable():
        print(f"making {VENV}", file=sys.stderr, flush=True)
        venv.create(VENV, clear=True, with_pip=True)
    print(f"installing {requirements.name} from PyPI", file=sys.stderr, flush=True)
    log = VENV / "pip.log"
    with log.open("wb") as output:
        pip = [str(PYTHON), "-m", "pip", "install", "--require-hashes", "--retries", "2"]
        status = subprocess.run(
            [*pip, "--disable-pip-version-check", "-r", str(requirements)],
            stdout=output,
            stderr=output,
            check=False,
        ).returncode
    if status != 0:
        lines = log.read_text(errors="replace").splitlines()
        errors = [line for line in lines if line.startswith("ERROR")] or lines[-1:]
        sys.exit(
            f"pip can't install {requirements.name}: {' '.join(errors[-1:])}; "
            f"check the network and {log}, then run this again"
        )
    installed.write_bytes(wanted)


def main() -> None:
    """Install, then become the program."""
    requirements, *program = sys.argv[1:]
    try:
        with (HERE / ".venv.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for name in requirements.split(","):
                install(HERE / name)
    except (OSError, subprocess.SubprocessError) as error:
        sys.exit(f"cannot make {VENV}: {error}; make room and make {HERE} writable")
    except KeyboardInterrupt:
        sys.exit(130)
    os.execv(PYTHON, [str(PYTHON), *program])


if __name__ == "__main__":
    main()
