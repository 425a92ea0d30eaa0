"""Folders that cannot be written, are full or on a network file system; object stores with errors."""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest
from looked import problem

from tlopt.doctor import disks
from tlopt.doctor.finding import Finding, Findings

GB = 10**9

FOLDERS: dict[str, Callable[[Path], Findings]] = {
    "--runs": disks.runs,
    "--checkpoints or TLOPT_CHECKPOINTS": lambda folder: disks.checkpoints(str(folder)),
}


def cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Finding]:
    monkeypatch.setenv("TLOPT_CACHE", str(folder))
    return list(disks.cache())


@pytest.fixture
def _roomy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every disk local, with 100 GB free."""
    monkeypatch.setattr(disks, "free_bytes", lambda path: 100 * GB)
    monkeypatch.setattr(disks, "network_filesystem", lambda path: None)


@contextlib.contextmanager
def not_root() -> Iterator[Path]:
    """A folder that cannot be written, even if the tests run as root."""
    user = os.geteuid()
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o555)
        os.seteuid(user or 65534)
        try:
            yield Path(folder)
        finally:
            os.seteuid(user)


@pytest.mark.usefixtures("_roomy")
@pytest.mark.parametrize("check", FOLDERS.values(), ids=FOLDERS)
def test_a_folder_that_does_not_exist_yet_is_ok_and_is_not_created(
    check: Callable[[Path], Findings], tmp_path: Path
) -> None:
    (found,) = check(tmp_path / "not" / "made")

    assert found.level == "ok"
    assert found.detail.startswith(f"100.0 GB free at {tmp_path}/not/made")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("_roomy")
@pytest.mark.parametrize(("variable", "check"), FOLDERS.items())
def test_the_problem_of_a_folder_without_permissions_names_the_option_for_another(
    variable: str, check: Callable[[Path], Findings]
) -> None:
    with not_root() as folder:
        found = problem(check(folder / "below"))

    assert found.detail == f"{folder}/below cannot be written: Permission denied"
    assert found.cure.endswith(f"choose another folder with {variable}")


@pytest.mark.usefixtures("_roomy")
def test_the_cache_folder_is_checked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with not_root() as folder:
        found = problem(cache(folder, monkeypatch))

    assert found.title == "cache"
    assert found.cure.endswith("TLOPT_CACHE")


@pytest.mark.usefixtures("_roomy")
def test_a_file_instead_of_a_folder_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "runs").touch()

    assert "Not a directory" in problem(disks.runs(tmp_path / "runs" / "below")).detail


@pytest.mark.parametrize(
    ("free", "level"),
    [(0.9 * GB, "problem"), (1.1 * GB, "note"), (4.9 * GB, "note"), (5.1 * GB, "ok")],
)
def test_less_than_5_gb_of_free_space_is_a_note_and_less_than_1_a_problem(
    free: float, level: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disks, "free_bytes", lambda path: free)

    (found,) = disks.runs(tmp_path)

    assert found.level == level
    assert found.detail == f"{free / GB:.1f} GB free at {tmp_path}"
    assert found.cure == ("" if level == "ok" else "free disk space, or choose another folder with --runs")


def test_a_disk_that_is_really_full_is_a_problem(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may mount")
    said = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", tmp_path], capture_output=True)
    if said.returncode != 0:
        pytest.skip(f"this machine lets us mount nothing: {said.stderr.decode().strip()}")
    try:
        (tmp_path / "all").write_bytes(bytes(64 * 1024))
        found = problem(disks.runs(tmp_path))
    finally:
        subprocess.run(["umount", tmp_path], check=True)

    assert found.detail == f"{tmp_path} cannot be written: No space left on device"
    assert "free disk space" in found.cure


# Networks


def test_a_cache_on_a_network_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disks, "network_filesystem", lambda path: "nfs4" if path == tmp_path else None)

    (found,) = [finding for finding in cache(tmp_path, monkeypatch) if "(nfs4)" in finding.detail]

    assert found.level == "note"
    assert found.cure == "set TLOPT_CACHE to a folder on a local disk"


@pytest.mark.usefixtures("_roomy")
def test_a_cache_on_a_local_disk_is_ok(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [finding.level for finding in cache(tmp_path, monkeypatch)] == ["ok"]


@pytest.mark.usefixtures("_roomy")
@pytest.mark.parametrize("form", ["{}", "file://{}", "local://{}"])
def test_the_finding_on_local_checkpoints_says_what_several_nodes_need(form: str, tmp_path: Path) -> None:
    (found,) = disks.checkpoints(form.format(tmp_path))

    assert found.level == "ok"
    assert f"free at {tmp_path}, apparently a local disk" in found.detail
    assert "workers on several nodes need a folder that all of them mount" in found.detail


@pytest.mark.usefixtures("_roomy")
def test_checkpoints_on_a_network_are_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disks, "network_filesystem", lambda path: "lustre")

    (found,) = disks.checkpoints(str(tmp_path))

    assert found.detail.endswith(f"free at {tmp_path}, shared with other machines (lustre)")


def test_the_folder_of_checkpoints_may_begin_with_a_tilde(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))

    (found,) = disks.checkpoints("~/kept")

    assert f"{tmp_path}/kept" in found.detail


# Object stores


@pytest.fixture
def _store() -> Iterator[None]:
    """An object store in memory, with one file in the bucket "full"."""
    store = fsspec.filesystem("memory")
    store.pipe_file("/full/000001/x.ckpt", b"x")
    yield
    store.rm("/full", recursive=True)


@pytest.mark.usefixtures("_store")
def test_a_store_that_responds_is_ok() -> None:
    assert list(disks.checkpoints("memory://full")) == [
        Finding("ok", "checkpoints", "memory://full responds")
    ]


@pytest.mark.usefixtures("_store")
def test_an_empty_store_is_a_note_because_its_name_may_be_wrong() -> None:
    (found,) = disks.checkpoints("memory://ful")

    assert (found.level, found.detail) == ("note", "memory://ful responds and contains nothing yet")
    assert "bucket" in found.cure
    assert not fsspec.filesystem("memory").exists("/ful")


def test_the_problem_of_a_store_without_its_package_names_the_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)

    found = problem(disks.checkpoints("s3://bucket/prefix"))

    assert "s3fs" in found.detail
    assert found.cure == "install the package that the message names"


def test_an_unknown_kind_of_store_is_a_problem() -> None:
    found = problem(disks.checkpoints("s4://bucket"))

    assert "s4" in found.detail
    assert "check address" in found.cure


def test_a_store_that_refuses_is_a_problem_without_its_password() -> None:
    found = list(disks.checkpoints("ftp://me:topsecret@127.0.0.1:1/x"))

    assert "ftp://me:***@127.0.0.1:1/x: ConnectionRefusedError" in problem(found).detail
    assert problem(found).cure == "check address, credentials and network"
    assert "topsecret" not in repr(found)
