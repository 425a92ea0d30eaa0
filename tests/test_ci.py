"""The files of continuous integration are valid, and its workflow tests what pyproject.toml promises."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = [file for file in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if file.stem != "config"]
TOOLS = Path(sys.executable).parent
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
BOUNDS = {
    requirement.name: requirement.specifier for requirement in map(Requirement, PROJECT["dependencies"])
}


def workflow() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    return loaded


def versions(kind: str) -> dict[str, str]:
    """The matrix entry of the oldest or the newest versions."""
    (entry,) = [
        e for e in workflow()["jobs"]["tests"]["strategy"]["matrix"]["include"] if e["versions"] == kind
    ]
    return entry


def asked(kind: str) -> dict[str, Requirement]:
    """The requirements of an entry of the matrix, by name, as pip parses them."""
    entry = versions(kind)
    found = [Requirement(words) for words in f"{entry['torch']} {entry['optuna']}".split()]
    return {requirement.name: requirement for requirement in found}


def bound(name: str, operator: str) -> str:
    (found,) = [s.version for s in BOUNDS[name] if s.operator == operator]
    return found


@pytest.mark.parametrize(
    ("schema", "files"), [("vendor.github-workflows", WORKFLOWS), ("vendor.github-issue-forms", FORMS)]
)
def test_files_follow_the_schema_of_the_host(schema: str, files: list[Path]) -> None:
    assert files
    command = [str(TOOLS / "check-jsonschema"), "--builtin-schema", schema, *map(str, files)]

    found = subprocess.run(command, capture_output=True, text=True)

    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize("name", ["torch", "torchvision", "optuna"])
def test_the_oldest_versions_are_the_lower_bounds(name: str) -> None:
    (pin,) = asked("oldest")[name].specifier

    assert (pin.operator, pin.version.removesuffix(".*")) == ("==", bound(name, ">="))


@pytest.mark.parametrize("name", ["torch", "optuna"])
def test_the_newest_versions_are_all_below_the_upper_bounds(name: str) -> None:
    (pin,) = asked("newest")[name].specifier

    assert (pin.operator, pin.version) == ("<", bound(name, "<"))


def test_the_oldest_python_is_the_one_that_is_required() -> None:
    assert f">={versions('oldest')['python']}" == PROJECT["requires-python"]


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_jobs_have_no_rights_but_those_they_name(file: Path) -> None:
    loaded = yaml.safe_load(file.read_text())

    assert loaded["permissions"] == {}
    assert {tuple(job["permissions"].items()) for job in loaded["jobs"].values()} == {(("contents", "read"),)}


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_actions_are_pinned_by_hash_and_say_which_release(file: Path) -> None:
    used = re.findall(r"uses: (.+)$", file.read_text(), flags=re.MULTILINE)

    assert used
    assert [line for line in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v[\d.]+", line)] == []


def test_both_definitions_run_targets_that_exist_and_miss_none() -> None:
    script = set(re.findall(r"^make ([a-z-]+)", (ROOT / ".ci" / "run").read_text(), flags=re.MULTILINE))
    hosted = set(re.findall(r"run: make ([a-z-]+)", (ROOT / ".github" / "workflows" / "ci.yml").read_text()))

    assert script == {"check", "docs", "test", "test-slow"}
    assert script <= hosted <= TARGETS
