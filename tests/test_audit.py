"""The audit of continuous integration fails on a known vulnerability and is skipped without a service."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

AUDIT = Path(__file__).parents[1] / ".ci/audit.py"
CLEAN = {"name": "jinja2", "version": "3.1.6", "vulns": []}
HOLE = {
    "name": "jinja2",
    "version": "2.10",
    "vulns": [{"id": "PYSEC-2019-217", "fix_versions": ["2.10.1"], "aliases": [], "description": ""}],
}
UNKNOWN = {"name": "torch", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("found", "status", "words"),
    [
        ([CLEAN, UNKNOWN], 0, "1 of 2 packages looked up, 0 known vulnerabilities"),
        ([HOLE, CLEAN], 1, "jinja2 2.10: PYSEC-2019-217, fixed in 2.10.1"),
        ([UNKNOWN], 0, "0 of 1 packages looked up"),
        (None, 0, "skipped, no advisory service responds: no route"),
    ],
)
def test_what_the_service_says_decides(
    found: list[dict[str, object]] | None, status: int, words: str, tmp_path: Path
) -> None:
    program = tmp_path / "pip-audit"
    answer = tmp_path / "answer.json"
    answer.write_text(json.dumps({"dependencies": found, "fixes": []}))
    copies = f'cp "{answer}" "$2"' if found is not None else "true"
    program.write_text(
        f'#!/bin/sh\nwhile [ $# -gt 0 ]; do [ "$1" = --output ] && {copies}; shift; done\n'
        "echo no route >&2\nexit 1\n"
    )
    program.chmod(0o755)
    run = subprocess.run(
        [sys.executable, AUDIT],
        env=os.environ | {"PIP_AUDIT": str(program)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, words in run.stdout) == (status, True), run.stdout + run.stderr
