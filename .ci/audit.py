#!/usr/bin/env python3
"""Look for known vulnerabilities in the image's packages; the exit status is 1 if there are any.

If no advisory service responds, print that the audit was skipped; the status is then 0.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = os.environ.get("PIP_AUDIT", str(ROOT / ".venv/bin/pip-audit"))
OPTIONS = ["--no-deps", "--disable-pip", "--progress-spinner", "off", "--timeout", "10", "--format", "json"]


def main() -> int:
    """Print the vulnerabilities found and return the exit status."""
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "found.json"
        wanted = ["--output", str(found), "--requirement", str(ROOT / "docker/constraints.txt")]
        run = subprocess.run([PROGRAM, *OPTIONS, *wanted], capture_output=True, text=True, check=False)
        if not found.exists() or not found.stat().st_size:
            print("audit: skipped, no advisory service responds:", *run.stderr.strip().splitlines()[-1:])
            return 0
        packages = json.loads(found.read_text(encoding="utf-8"))["dependencies"]
    unknown = [row["name"] for row in packages if "skip_reason" in row]
    holes = [(row, hole) for row in packages for hole in row.get("vulns", [])]
    for row, hole in holes:
        cure = ", ".join(hole["fix_versions"]) or "no version yet"
        print(f"audit: {row['name']} {row['version']}: {hole['id']}, fixed in {cure}")
    n_known = len(packages) - len(unknown)
    print(f"audit: {n_known} of {len(packages)} packages looked up, {len(holes)} known vulnerabilities")
    return 1 if holes else 0


if __name__ == "__main__":
    sys.exit(main())
