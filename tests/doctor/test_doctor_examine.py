"""All checks run in order and to the end, whatever is broken, and show no password."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from looked import problem, problems, titled

from tlopt.doctor import disks, machine
from tlopt.doctor.examine import examine
from tlopt.doctor.finding import WIDTH, as_text


@pytest.fixture(autouse=True)
def _well(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without a GPU and with free disk space, in a folder of the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(disks, "free_bytes", lambda path: 10**11)
    monkeypatch.setattr(machine, "nvidia_smi", list)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)


def test_all_checks_run_in_order_and_create_nothing(tmp_path: Path) -> None:
    found = list(examine())

    assert problems(found) == []
    titles = ["python", "torch", "device", "cpu", "environment", "cache", "runs", "checkpoints"]
    titles += ["storage", "database", "studies"]
    assert list(dict.fromkeys(finding.title for finding in found)) == titles
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["given", "kept", "runs/checkpoints"])
def test_the_configured_folder_of_checkpoints_is_checked(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name != "runs/checkpoints":
        monkeypatch.setenv("TLOPT_CHECKPOINTS", str(tmp_path / "kept"))

    (found,) = titled(examine(checkpoints="given" if name == "given" else None), "checkpoints")

    assert f"free at {tmp_path}/{name}, apparently a local disk" in found.detail


def test_options_reach_their_checks(tmp_path: Path) -> None:
    found = list(examine("absent.toml", storage_url=f"{tmp_path}/other.db", runs=tmp_path / "elsewhere"))

    assert titled(found, "runs")[0].detail.endswith(f"{tmp_path}/elsewhere")
    assert titled(found, "storage")[0].detail == f"sqlite:///{tmp_path}/other.db, from --storage"
    assert "absent.toml" in problem(found).detail


def test_a_study_is_checked_even_if_its_database_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "wrong.toml").write_text("nonsense = 1")

    found = problems(examine("wrong.toml", storage_url="postgresql://me@127.0.0.1:1/x"))

    assert [finding.title for finding in found] == ["database", "study"]
    assert "nonsense" in found[1].detail


def test_an_optuna_that_cannot_be_imported_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tlopt.doctor.database", None)

    found = problem(examine())

    assert (found.title, "tlopt.doctor.database" in found.detail) == ("database", True)


def test_no_password_is_in_any_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLOPT_STORAGE", "postgresql://me:top%40secret@127.0.0.1:1/x?password=topsecret")
    monkeypatch.setenv("TLOPT_CHECKPOINTS", "ftp://me:topsecret@127.0.0.1:1/x")
    monkeypatch.setenv("TLOPT_STORAGEURL", "postgresql://me:topsecret@host/x")

    found = list(examine("absent"))

    assert {"checkpoints", "database", "environment", "study"} <= {f.title for f in problems(found)}
    assert [sign for sign in ("topsecret", "top@secret", "top%40secret") if sign in repr(found)] == []
    assert [
        sign for sign in ("topsecret", "top@secret") if sign in "".join(map(str, map(as_text, found)))
    ] == []


def test_findings_fit_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLOPT_STORAGE", "mysql://host/x")
    monkeypatch.setenv("TLOPT_CHECKPOINTS", "s4://x")
    monkeypatch.setenv("TLOPT_STORAGEURL", "x")

    lines = [line for finding in examine("absent") for line in as_text(finding).plain.splitlines()]

    assert [line for line in lines if len(line) > WIDTH and " " in line.strip()] == []


def test_the_command_ends_even_if_a_check_hangs(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "url")  # whoever opens it waits for a writer, in the kernel
    code = (
        "from tlopt.doctor import examine\n"
        "examine.DATABASE_SECONDS = 0.2\n"
        "for found in examine.examine():\n"
        "    print(found.level, found.title, found.detail)"
    )
    environment = os.environ | {"TLOPT_STORAGE_FILE": str(tmp_path / "url")}

    ended = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
        timeout=200,
    )

    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines()[-1] == "problem database no response within 0.2 s"
