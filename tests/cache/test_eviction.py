"""The cache: listing, order of eviction, and entries in use, which are never evicted."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from tlopt.cache import eviction
from tlopt.cache.eviction import FolderLock, entries, evict, features_bytes_max, make_room
from tlopt.cli.main import app
from tlopt.data import load
from tlopt.data import pixels as pixel_store
from tlopt.data.decode import Reading
from tlopt.errors import SpecError
from tlopt.spec.sections import DataSpec

MB = 1_000_000
HOLDER = """
import sys
from tlopt.cache.eviction import FolderLock
held = FolderLock(sys.argv[1], "another")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TLOPT_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def make(root: Path) -> Callable[..., Path]:
    """Makes features of a size that were used so many hours ago: `make("a", n_bytes=5, hours=3)`."""

    def make(name: str, *, n_bytes: int, hours: float) -> Path:
        held = FolderLock(name, f"features {name}")
        (held.path / "block001").mkdir()
        (held.path / "block001" / "view.rows").write_bytes(os.urandom(n_bytes))
        used = (held.path / "about.txt").stat().st_mtime - hours * 3600
        os.utime(held.path / "about.txt", (used, used))
        held.close()
        return held.path

    return make


def names(*kinds: eviction.EntryKind) -> list[str]:
    return [entry.path.name for entry in entries(kinds or eviction.KINDS)]


def test_entries_come_with_size_and_use_oldest_first(make: Callable[..., Path], root: Path) -> None:
    make("new", n_bytes=2 * MB, hours=1)
    make("old", n_bytes=MB, hours=9)
    (root / "pixels").mkdir()
    np.save(root / "pixels" / "p.npy", np.zeros(MB, dtype=np.uint8))
    (root / "pixels" / "p.json").write_text("{}")

    assert names() == ["old", "new", "p.npy"]
    assert names("features") == ["old", "new"]
    sizes = [entry.size_bytes for entry in entries()]
    assert sizes == pytest.approx([MB, 2 * MB, MB], rel=0.05)
    assert entries()[0].about == "features old"


def test_a_damaged_description_hides_no_entry(make: Callable[..., Path], root: Path) -> None:
    folder = make("a", n_bytes=5, hours=1)
    (folder / "about.txt").write_bytes(b"\xb2\xff")
    (root / "pixels").mkdir(exist_ok=True)
    (root / "pixels" / "p.rows").write_bytes(b"x")
    (root / "pixels" / "p.json").write_bytes(b"\xb2\xff")

    assert sorted(entry.about for entry in entries()) == sorted([folder.name, "p"])


def test_an_empty_or_absent_cache_has_no_entries(root: Path) -> None:
    assert entries() == []
    (root / "features").mkdir()
    assert entries() == []


def test_a_hole_takes_no_room(make: Callable[..., Path]) -> None:
    os.truncate(make("sparse", n_bytes=0, hours=0) / "block001" / "view.rows", 50 * MB)

    assert entries()[0].size_bytes < MB


def test_pixels_go_with_what_lies_beside_them(root: Path) -> None:
    (root / "pixels").mkdir()
    for suffix in (".npy", ".json", ".npy.lock"):
        (root / "pixels" / f"p{suffix}").touch()

    assert evict(entries()[0])
    assert list((root / "pixels").iterdir()) == []


def test_room_is_made_by_what_was_used_longest_ago(
    make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TLOPT_CACHE_GB_MAX", "0.010")
    paths = [make(name, n_bytes=3 * MB, hours=hours) for name, hours in (("a", 3), ("b", 2), ("c", 1))]

    assert make_room(5 * MB, paths[2].parent / "mine") == 5 * MB
    assert names() == ["c"]


def test_where_there_is_room_nothing_goes(make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLOPT_CACHE_GB_MAX", "0.010")
    path = make("a", n_bytes=3 * MB, hours=3)

    assert make_room(6 * MB, path.parent / "mine") == 6 * MB
    assert names() == ["a"]


def test_the_folder_that_needs_space_is_not_counted_and_not_evicted(
    make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TLOPT_CACHE_GB_MAX", "0.004")
    path = make("mine", n_bytes=3 * MB, hours=3)

    assert make_room(9 * MB, path) == 4 * MB
    assert names() == ["mine"]


def test_features_that_a_worker_locks_stay_with_their_planned_size(
    make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TLOPT_CACHE_GB_MAX", "0.010")
    held = FolderLock("held", "held")
    held.reserve(7 * MB)

    assert make_room(9 * MB, held.path.parent / "mine") == pytest.approx(3 * MB, rel=0.02)
    assert names() == ["held"]

    held.close()
    assert make_room(9 * MB, held.path.parent / "mine") == 9 * MB
    assert names() == []


def test_another_process_holds_until_it_is_killed(root: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, "shared"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        mine = FolderLock("shared", "mine")
        mine.close()
        while_held = evict(entries()[0])
        process.send_signal(signal.SIGKILL)
    assert not while_held
    assert evict(entries()[0])


@pytest.mark.parametrize("value", ["-1", "many", "inf", "nan", ""])
def test_a_bound_that_is_no_size_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("TLOPT_CACHE_GB_MAX", value)

    with pytest.raises(SpecError, match="TLOPT_CACHE_GB_MAX"):
        features_bytes_max()


def test_features_leave_half_of_what_the_disk_has(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLOPT_CACHE_GB_MAX", "1e9")
    disk = os.statvfs(root)

    assert features_bytes_max() == pytest.approx(disk.f_bavail * disk.f_frsize / 2, rel=0.05)


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["cache", *arguments], env={"COLUMNS": "80"})
    assert result.exit_code == 0, result.output
    return result.output


def test_the_list_names_kind_size_and_use(make: Callable[..., Path]) -> None:
    make("a", n_bytes=12 * MB, hours=50)

    said = run("ls")

    assert "features a" in said
    assert "12.0 MB" in said
    assert max(map(len, said.splitlines()[:-2])) <= 80
    assert "2 days ago" in said


@pytest.mark.skipif(shutil.which("du") is None, reason="there is no du")
def test_sizes_are_those_of_du(make: Callable[..., Path], root: Path) -> None:
    path = make("a", n_bytes=3 * MB + 1, hours=0)
    os.truncate(path / "block001" / "view.rows", 50 * MB)  # a hole

    (entry,) = entries()
    said = subprocess.run(["du", "-s", "-B1", path], capture_output=True, text=True, check=True).stdout

    assert entry.size_bytes == int(said.split()[0])
    free = shutil.disk_usage(root).free
    assert "removed 1 of 1: 3.0 MB" in run("clean")
    assert shutil.disk_usage(root).free - free == pytest.approx(entry.size_bytes, abs=20 * MB)  # others write


def test_pixels_that_a_worker_has_open_stay(folder: Callable[..., Path], cache: Path) -> None:
    data = load.load_data(DataSpec(source=str(folder(5, 5))), seed=7)
    pixels = pixel_store.pixels(data, size=8, reading=Reading(resize="crop"))

    said = run("clean")
    assert "removed 1 of 2" in said
    assert "in use: 8 images, 8 pixels" in said
    assert len(pixels[np.arange(8)]) == 8

    del pixels
    assert "removed 1 of 1" in run("clean")
    assert not list((cache / "pixels").iterdir())


def test_the_list_says_how_many_images_are_decoded(folder: Callable[..., Path], cache: Path) -> None:
    data = load.load_data(DataSpec(source=str(folder(5, 5))), seed=7)

    pixel_store.pixels(data, size=8, reading=Reading(resize="crop"), wanted=np.arange(3))
    assert [entry.about for entry in entries(["pixels"])] == ["3 images, 8 pixels"]

    pixel_store.pixels(data, size=8, reading=Reading(resize="crop"))
    pixel_store.pixels(data, size=8, reading=Reading(resize="crop"), wanted=np.arange(5))
    assert [entry.about for entry in entries(["pixels"])] == ["8 images, 8 pixels"]


def test_the_list_says_of_which_folder_digests_are(folder: Callable[..., Path], cache: Path) -> None:
    source = folder(5, 5)
    load.load_data(DataSpec(source=str(source)), seed=7)

    assert [entry.about for entry in entries(["digests"])] == [str(source)]


def test_cleaning_takes_what_is_old_and_not_in_use(make: Callable[..., Path]) -> None:
    make("old", n_bytes=MB, hours=50)
    make("new", n_bytes=MB, hours=1)
    held = FolderLock("held", "a study that runs")

    assert "removed 1 of 1" in run("clean", "--unused-days", "2")
    assert set(names()) == {"new", "held"}
    said = run("clean")
    assert "removed 1 of 2" in said
    assert "in use: a study that runs" in said
    held.close()
    run("clean", "--kind", "pixels")
    assert names() == ["held"]


def test_an_unknown_kind_is_refused() -> None:
    caught = CliRunner().invoke(app, ["cache", "ls", "--kind", "pixel"]).exception

    assert isinstance(caught, SpecError)
    assert "features, pixels, digests, listings" in str(caught)
