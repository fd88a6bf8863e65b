"""Look for known holes in what we depend on; end with 1 if there is one.

    tools/python.sh tools/in_venv.py ci tools/scan_dependencies.py

Says plainly what couldn't be looked up, as where PyPI's database of them can't be reached: then all
that is known is that every version is pinned, with its hashes.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]


def main() -> None:
    """Look each package up."""
    with tempfile.TemporaryDirectory() as directory:
        pinned = Path(directory, "pinned.txt")
        export = [sys.executable, "-m", "uv", "export", "--frozen", "--all-groups", "--quiet"]
        subprocess.run([*export, f"--output-file={pinned}"], cwd=HERE, check=True)
        command = [sys.executable, "-m", "pip_audit", "--format=json", "--progress-spinner=off"]
        ended = subprocess.run(
            [*command, "--require-hashes", "--disable-pip", f"--requirement={pinned}"],
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
        sys.exit(
            "a dependency has a known hole; raise it: .venv/bin/uv lock --upgrade-package NAME"
        )


if __name__ == "__main__":
    main()
