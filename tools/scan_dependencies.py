"""Look for known holes in what we depend on; end with 1 if there is one.

    tools/python.sh tools/in_venv.py requirements-ci.txt tools/scan_dependencies.py

Says plainly what couldn't be looked up, as where PyPI's database of them can't be reached: then all
that is known is that every version is pinned, with its hashes.
"""

import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]


def main() -> None:
    """Look each package up."""
    files = sorted(HERE.glob("requirements*.txt"))
    command = [sys.executable, "-m", "pip_audit", "--format=json", "--progress-spinner=off"]
    command += ["--require-hashes", "--disable-pip"]
    ended = subprocess.run(
        [*command, *(f"--requirement={file}" for file in files)],
        capture_output=True,
        check=False,
        text=True,
    )
    try:
        packages = json.loads(ended.stdout)["dependencies"]
    except ValueError:
        print(f"{ended.stderr}\npip-audit ended with {ended.returncode}: nothing was looked up")
        packages = []
    unknown = [one["name"] for one in packages if "skip_reason" in one]
    holes = [(one, hole) for one in packages for hole in one.get("vulns", ())]
    for one, hole in holes:
        fixed = ", ".join(hole["fix_versions"]) or "none yet"
        print(f"{one['name']} {one['version']}: {hole['id']}; fixed in: {fixed}")
    print(
        f"{len(packages)} packages, all pinned with hashes; {len(unknown)} could not be looked up"
    )
    if holes:
        sys.exit("a dependency has a known hole: raise its version with tools/compile_requirements")


if __name__ == "__main__":
    main()
