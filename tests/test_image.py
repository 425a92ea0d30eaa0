"""The pinned versions of the image are complete and within bounds, and exclude torch's."""

import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
DOCKER = ROOT / "docker"
# What a build for another processor or GPU brings: pip's choice, by the build arguments TORCH and PIP_ARGS.
TORCH = re.compile("torch|nvidia|triton|cuda")
PYTHON = {
    "sys_platform": "linux",
    "platform_system": "Linux",
    "platform_machine": "x86_64",
    "python_version": "3.11",
    "python_full_version": "3.11.9",
    "implementation_name": "cpython",
    "platform_python_implementation": "CPython",
}


@pytest.fixture(scope="module")
def pinned() -> dict[str, str]:
    lines = (DOCKER / "constraints.txt").read_text().split()
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}


def of_tlopt() -> list[Requirement]:
    """The requirements of pyproject.toml with the Dockerfile's extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (extras,) = re.findall('^ARG EXTRAS="(.+)"$', (DOCKER / "Dockerfile").read_text(), re.MULTILINE)
    groups = [project["optional-dependencies"][extra] for extra in extras.split(",")]
    return [Requirement(line) for group in [project["dependencies"], *groups] for line in group]


def of_distribution(requirement: Requirement) -> Iterator[Requirement]:
    """The requirements of an installed package, with its requested extras, on the image's Python."""
    for needed in map(Requirement, distribution(requirement.name).requires or []):
        environments = [PYTHON | {"extra": extra} for extra in ["", *requirement.extras]]
        if needed.marker is None or any(needed.marker.evaluate(e) for e in environments):
            yield needed


def known(requirement: Requirement, pinned: dict[str, str]) -> bool:
    """Whether what is installed here asks for what the image's version does: it is that version, or torch."""
    name = canonicalize_name(requirement.name)
    if TORCH.match(name):
        return name.startswith("torch")
    return distribution(name).version == pinned.get(name)


def asked_for(pinned: dict[str, str]) -> dict[str, Requirement]:
    """All that is asked for, by itself and who asks: as far as it is known here."""
    todo = [("tlopt", requirement) for requirement in of_tlopt()]
    found = {}
    while todo:
        asker, requirement = todo.pop()
        line = f"{asker}: {requirement}"
        if line in found:
            continue
        found[line] = requirement
        if known(requirement, pinned):
            todo += [(requirement.name, needed) for needed in of_distribution(requirement)]
    return {line: requirement for line, requirement in found.items() if not TORCH.match(requirement.name)}


def test_no_torch_is_pinned(pinned: dict[str, str]) -> None:
    assert not [name for name in pinned if TORCH.match(name)]


def test_everything_else_is_pinned_within_what_all_ask_for(pinned: dict[str, str]) -> None:
    found = asked_for(pinned)
    missing = [line for line, r in found.items() if canonicalize_name(r.name) not in pinned]

    assert "torch: filelock" in found
    assert not missing
    assert not [line for line, r in found.items() if pinned[canonicalize_name(r.name)] not in r.specifier]
