"""Record files: written records are read back; missing and damaged ones count as missing."""

import errno
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlopt.cache.record_file import RecordFile, disk_bytes_max

N_ROWS, ROW_BYTES = 20, 24


def values(rows: np.ndarray) -> np.ndarray:
    """Planted bytes of each row."""
    return (rows[:, None] * 7 + np.arange(ROW_BYTES)).astype(np.uint8)


def read(store: RecordFile, *rows: int) -> tuple[list[bool], np.ndarray]:
    out = np.zeros((len(rows), ROW_BYTES), dtype=np.uint8)
    return store.read(np.array(rows), out).tolist(), out


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "view.rows"


@pytest.fixture
def full(path: Path) -> Path:
    """The file with every row written."""
    rows = np.arange(N_ROWS)
    opened(path).write(rows, values(rows))
    return path


def opened(path: Path) -> RecordFile:
    return RecordFile(path, n_rows=N_ROWS, row_bytes=ROW_BYTES)


@settings(max_examples=50)
@given(
    written=st.lists(st.integers(0, N_ROWS - 1), max_size=N_ROWS),
    asked=st.lists(st.integers(0, N_ROWS - 1), min_size=1, max_size=30),
)
def test_written_records_are_read_in_any_order_and_the_others_are_missing(
    tmp_path_factory: pytest.TempPathFactory, written: list[int], asked: list[int]
) -> None:
    path = tmp_path_factory.mktemp("rows") / "view.rows"
    rows = np.array(written, dtype=np.int64)
    opened(path).write(rows, values(rows))

    found, out = read(opened(path), *asked)

    assert found == [row in written for row in asked]
    assert (out[found] == values(np.array(asked))[found]).all()


def test_another_process_reads_what_is_written_later(path: Path) -> None:
    writer, reader = opened(path), opened(path)
    assert read(reader, 3)[0] == [False]

    writer.write(np.array([3]), values(np.array([3])))

    assert read(reader, 3)[0] == [True]


@pytest.mark.parametrize("keep_bytes", [0, 5, 40, 32 * 10 - 1])
def test_rows_behind_a_truncation_are_not_there_and_the_others_stay(full: Path, keep_bytes: int) -> None:
    store = opened(full)
    assert all(read(store, *range(N_ROWS))[0])

    os.truncate(full, keep_bytes)

    whole = keep_bytes // (ROW_BYTES + 8)
    assert read(store, *range(N_ROWS))[0] == [row < whole for row in range(N_ROWS)]
    assert read(opened(full), *range(N_ROWS))[0] == [row < whole for row in range(N_ROWS)]


@pytest.mark.parametrize("at", [0, 5, 8, 31])
def test_a_row_with_one_other_byte_is_not_there(full: Path, at: int) -> None:
    content = bytearray(full.read_bytes())
    content[4 * (ROW_BYTES + 8) + at] ^= 1
    full.write_bytes(content)

    assert read(opened(full), *range(N_ROWS))[0] == [row != 4 for row in range(N_ROWS)]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE])
def test_a_disk_that_takes_nothing_is_said_and_stops_the_writing(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    calls = []

    def refuse(*_: object) -> int:
        calls.append(1)
        raise OSError(number, os.strerror(number))

    store = opened(path)
    monkeypatch.setattr(os, "pwrite", refuse)
    for _ in range(3):
        store.write(np.arange(5), values(np.arange(5)))

    assert store.write_error is not None
    assert store.write_error.errno == number
    assert len(calls) == 1


def test_a_row_for_half_of_which_there_was_room_is_not_there(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, write = opened(path), os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, record, at: write(file, record[:20], at))

    store.write(np.array([2]), values(np.array([2])))

    assert store.write_error is not None
    assert read(store, 2)[0] == [False]


def test_where_no_file_can_be_made_there_are_no_rows(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = opened(tmp_path / "file" / "view.rows")

    store.write(np.arange(3), values(np.arange(3)))

    assert store.write_error is not None
    assert read(store, 1)[0] == [False]


LIMITED = """
import resource, sys, numpy as np
from pathlib import Path
from tlopt.cache.record_file import RecordFile
resource.setrlimit(resource.RLIMIT_FSIZE, (10 * 32 + 5, resource.RLIM_INFINITY))
store, rows = RecordFile(Path(sys.argv[1]), n_rows=20, row_bytes=24), np.arange(20)
store.write(rows, (rows[:, None] * 7 + np.arange(24)).astype(np.uint8))
print(store.write_error)
"""


def test_rows_for_which_the_system_has_no_room_are_not_there_and_the_others_are(path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LIMITED, str(path)], capture_output=True, text=True)

    assert done.stdout.startswith("[Errno"), done.stderr
    assert path.stat().st_size == 10 * (ROW_BYTES + 8) + 5  # the last one is torn
    assert read(opened(path), *range(N_ROWS))[0] == [row < 10 for row in range(N_ROWS)]


@pytest.mark.parametrize("row_bytes", [24, 2040, 4088, 5000, 9000])
@pytest.mark.parametrize("every", [1, 2, 5])
def test_a_file_takes_no_more_of_the_disk_than_was_foreseen(path: Path, row_bytes: int, every: int) -> None:
    rows = np.arange(0, 200, every)
    store = RecordFile(path, n_rows=200, row_bytes=row_bytes)
    store.write(rows, np.ones((len(rows), row_bytes), dtype=np.uint8))

    foreseen = disk_bytes_max(row_bytes, n_written=len(rows), n_rows=200)
    assert path.stat().st_blocks * 512 <= foreseen
    assert foreseen <= 4096 + 200 * (row_bytes + 8)  # no more than all rows side by side


def settled(path: Path) -> None:
    """Wait until the file's last change is so long ago that the next one bears another time."""
    time.sleep(max(0.0, path.stat().st_ctime + 0.15 - time.time()))


@pytest.mark.parametrize("at", [0, 5, 8, 31])
def test_a_byte_that_changes_after_its_row_was_read_is_noticed(full: Path, at: int) -> None:
    store = opened(full)
    settled(full)
    assert all(read(store, *range(N_ROWS))[0])

    with full.open("r+b") as file:
        file.seek(4 * (ROW_BYTES + 8) + at)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))

    assert read(store, *range(N_ROWS))[0] == [row != 4 for row in range(N_ROWS)]


def test_a_file_that_nobody_changes_is_checked_once(full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened(full)
    settled(full)
    assert all(read(store, *range(N_ROWS))[0])

    monkeypatch.setattr(zlib, "crc32", None)  # would be called

    assert all(read(store, *range(N_ROWS))[0])


def zeroed(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def as_a_folder(path: Path) -> None:
    path.unlink()
    (path / "with").mkdir(parents=True)


def deleted_with_its_folder(path: Path) -> None:
    shutil.rmtree(path.parent)


@pytest.mark.parametrize("damage", [zeroed, as_a_folder, deleted_with_its_folder])
@pytest.mark.parametrize("again", [True, False], ids=["opened anew", "open"])
def test_a_file_that_is_something_else_holds_nothing_and_is_made_anew(
    full: Path, damage: Callable[[Path], None], again: bool
) -> None:
    store = opened(full)
    assert all(read(store, *range(N_ROWS))[0])

    damage(full)
    store = opened(full) if again else store

    assert not any(read(store, *range(N_ROWS))[0])
    store.write(np.array([3]), values(np.array([3])))
    assert read(opened(full), 2, 3)[0] == [False, True]


UNREADABLE = """
import os, sys, numpy as np
from pathlib import Path
from tlopt.cache.record_file import RecordFile
if os.geteuid() == 0:
    os.setuid(65534)  # nothing is unreadable to root
rows, values, out = np.arange(3), np.full((3, 24), 7, np.uint8), np.empty((3, 24), np.uint8)
store = RecordFile(Path(sys.argv[1]), n_rows=20, row_bytes=24)
store.write(rows, values)
Path(sys.argv[1]).chmod(0)
print(store.read(rows, out).any(), end=" ")
store.write(rows, values)
print(store.write_error, store.read(rows, out).all())
"""


def test_a_file_that_may_not_be_read_is_made_anew() -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed to others
        Path(folder).chmod(0o777)
        command = [sys.executable, "-c", UNREADABLE, f"{folder}/view.rows"]
        found = subprocess.run(command, capture_output=True, text=True)

    assert found.stdout.strip() == "False None True", found.stderr


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="only Linux lists a process's files")
def test_no_file_stays_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))

    stores = [opened(tmp_path / f"{index}.rows") for index in range(50)]
    for store in stores:
        store.write(np.arange(3), values(np.arange(3)))
        assert read(store, 1)[0] == [True]

    assert len(os.listdir("/proc/self/fd")) == before
