"""Workers compute the same values with caches that are cold, too small, full, damaged or deleted."""

import contextlib
import os
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from service import LOSS, NO_PRUNER, Service, Started, assert_undisturbed, wait
from service import make_service as make_service

pytestmark = pytest.mark.slow

MB = 1 << 20


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@contextlib.contextmanager
def mounted(folder: Path) -> Iterator[Path]:
    """The folder as a file system of two megabytes."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if sys.platform != "linux" or os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount a file system here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def small_disk(cache: Path) -> Iterator[Path]:
    """The cache on a small disk."""
    with mounted(cache) as folder:
        yield folder


@pytest.fixture
def small_runs(tmp_path: Path) -> Iterator[Path]:
    """The folder of runs on a small disk."""
    with mounted(tmp_path / "runs") as folder:
        yield folder


@pytest.fixture
def study(service: Callable[..., Service]) -> Callable[..., Service]:
    """A study whose epochs take turns at two views."""

    def make(**changes: object) -> Service:
        here = service(**{"head": LOSS, "trials": 6, "epochs": 4, "tables": NO_PRUNER} | changes)
        here.file.write_text(here.file.read_text().replace("[data]", "[data]\nviews = 2"))
        return here

    return make


@pytest.fixture
def undamaged(
    workshop: tiny.Workshop, monkeypatch: pytest.MonkeyPatch, cache_folder: Path
) -> Callable[[Service], None]:
    """Checks that a study's trials have the values that they have without any kept feature."""

    def check(here: Service) -> None:
        monkeypatch.setenv("TLOPT_CACHE", str(cache_folder))
        monkeypatch.setenv("TLOPT_CACHE_GB_MAX", "0")
        assert_undisturbed(
            here, replace(workshop, workspace=workshop.workspace.on_device(torch.device("cpu")))
        )

    return check


def said(worker: Started) -> str:
    """Messages on stderr of a worker that ends successfully."""
    status, _, errors = worker.end()
    assert status == 0, errors
    assert "Traceback" not in errors
    return errors


def files(cache: Path) -> list[Path]:
    """The files of pixels and features that there are."""
    return [path for path in cache.rglob("*.rows") if path.exists()]


def fill(folder: Path) -> None:
    """Take every byte that the disk has."""
    with (folder / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


def assert_said_once(errors: str, cache: Path) -> None:
    """A worker has named the folder and the cure in one line."""
    (line,) = [line for line in errors.splitlines() if "cannot be written" in line]
    assert f"the cache {cache} cannot be written (No space left on device)" in line
    assert "free disk space there, or set TLOPT_CACHE to another folder" in line


@pytest.mark.parametrize("n_workers", [2, 4])
def test_workers_that_race_for_a_cold_cache_come_to_the_values_of_none(
    study: Callable[..., Service], cache: Path, undamaged: Callable[[Service], None], n_workers: int
) -> None:
    here = study(trials=8)
    for worker in [here.worker() for _ in range(n_workers)]:
        assert "cannot be written" not in said(worker)
    assert len(list((cache / "pixels").glob("*.rows"))) == 2  # to be evaluated on, and to cut crops from
    undamaged(here)


def test_a_disk_that_is_full_from_the_start(
    study: Callable[..., Service], small_disk: Path, undamaged: Callable[[Service], None]
) -> None:
    here = study()
    fill(small_disk)
    assert_said_once(said(here.worker()), small_disk)
    assert files(small_disk) == []
    undamaged(here)


def test_a_disk_that_becomes_full_while_features_are_written(
    study: Callable[..., Service], small_disk: Path, undamaged: Callable[[Service], None]
) -> None:
    here = study(epochs=8)
    worker = here.worker()
    wait(lambda: any("block" in str(path) for path in files(small_disk)), "features")
    fill(small_disk)
    assert_said_once(said(worker), small_disk)
    undamaged(here)


def test_a_disk_that_is_smaller_than_what_could_be_kept_is_not_filled(
    study: Callable[..., Service], small_disk: Path, undamaged: Callable[[Service], None]
) -> None:
    here = study()
    assert "cannot be written" not in said(here.worker())
    assert shutil.disk_usage(small_disk).free > MB / 2
    undamaged(here)


def test_a_folder_of_runs_without_any_room(
    study: Callable[..., Service], cache: Path, small_runs: Path, undamaged: Callable[[Service], None]
) -> None:
    here = study(trials=3)
    fill(small_runs)
    assert said(here.worker()).count(f"no logs can be written to {small_runs}/stripes/trials") == 1
    assert not list(small_runs.rglob("*.png")), "an empty picture is none"
    undamaged(here)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "emptied": lambda path: os.truncate(path, 0),
    "zeroed": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "noise": lambda path: path.write_bytes(os.urandom(path.stat().st_size)),
    "flipped": lambda path: _flip(path),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "gone": lambda path: path.unlink(),
    "folder gone": lambda path: shutil.rmtree(path.parent.parent),
}


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for at in range(20, len(content), 1000):
        content[at] ^= 4
    with path.open("r+b") as file:  # in place, as a bad disk would
        file.write(content)


def damage_all_the_time(cache: Path, until: threading.Event) -> None:
    """Damage one file after the other in turn until the event."""
    drawn = random.Random(5)
    while not until.wait(0.15):
        with contextlib.suppress(OSError, IndexError):
            DAMAGES[drawn.choice(list(DAMAGES))](drawn.choice(files(cache)))


def test_files_that_are_damaged_while_two_workers_run(
    study: Callable[..., Service], cache: Path, undamaged: Callable[[Service], None]
) -> None:
    here, over = study(trials=10, epochs=8), threading.Event()
    vandal = threading.Thread(target=damage_all_the_time, args=(cache, over))
    vandal.start()
    try:
        for worker in [here.worker(), here.worker()]:
            said(worker)
    finally:
        over.set()
        vandal.join()
    undamaged(here)


def test_files_that_are_damaged_between_two_runs_are_made_again(
    study: Callable[..., Service], cache: Path, undamaged: Callable[[Service], None], tmp_path: Path
) -> None:
    said(study(trials=3).worker())
    sizes = {path: path.stat().st_size for path in files(cache)}
    kinds = [name for name in DAMAGES if name != "folder gone"]
    assert len(sizes) >= len(kinds)
    for index, path in enumerate(sorted(sizes)):
        DAMAGES[kinds[index % len(kinds)]](path)

    here = study(url=f"sqlite:///{tmp_path}/again.db", trials=3)  # the same points
    said(here.worker())

    assert {path: path.stat().st_size for path in files(cache)} == sizes
    undamaged(here)
