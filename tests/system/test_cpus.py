"""Number of cores of a process, from planted control groups."""

import os
from pathlib import Path

import pytest

from tlopt.system.cpus import n_cores


@pytest.fixture(autouse=True)
def _bound_to_eight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)


def plant(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


@pytest.mark.parametrize(
    ("content", "n"),
    [
        ("max 100000\n", 8),
        ("200000 100000\n", 2),
        ("250000 100000\n", 2),
        ("50000 100000\n", 1),
        ("6400000 100000\n", 8),
    ],
)
def test_a_quota_caps_the_cores_rounded_down_to_at_least_one(tmp_path: Path, content: str, n: int) -> None:
    assert n_cores(plant(tmp_path, {"cpu.max": content})) == n


@pytest.mark.parametrize(("quota", "n"), [("-1\n", 8), ("300000\n", 3)])
def test_the_first_version_of_control_groups_has_two_files(tmp_path: Path, quota: str, n: int) -> None:
    files = {"cpu/cpu.cfs_quota_us": quota, "cpu/cpu.cfs_period_us": "100000\n"}

    assert n_cores(plant(tmp_path, files)) == n


def test_without_control_groups_the_process_has_what_it_is_bound_to(tmp_path: Path) -> None:
    assert n_cores(tmp_path / "absent") == 8


def test_without_affinity_all_cores_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)

    assert n_cores(tmp_path) == 6
