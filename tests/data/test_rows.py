"""Rows in a file: what was written is read, what is missing or damaged is not there."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlopt.data.rows import Rows, open_rows

N_ROWS, ROW_BYTES = 20, 24


def values(rows: np.ndarray) -> np.ndarray:
    """Planted bytes of each row."""
    return (rows[:, None] * 7 + np.arange(ROW_BYTES)).astype(np.uint8)


def read(store: Rows, *rows: int) -> tuple[list[bool], np.ndarray]:
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


def opened(path: Path) -> Rows:
    return Rows(path, n_rows=N_ROWS, row_bytes=ROW_BYTES)


@settings(max_examples=50)
@given(
    written=st.lists(st.integers(0, N_ROWS - 1), max_size=N_ROWS),
    asked=st.lists(st.integers(0, N_ROWS - 1), min_size=1, max_size=30),
)
def test_what_was_written_is_read_in_any_order_and_the_rest_is_not_there(
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


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_said_once_and_stops_the_writing(
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

    assert os.strerror(number) in store.full
    assert len(calls) == 1


def test_where_no_file_can_be_made_there_are_no_rows(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    assert open_rows(tmp_path / "file" / "view.rows", n_rows=N_ROWS, row_bytes=ROW_BYTES) is None


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="only Linux lists a process's files")
def test_no_file_stays_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))

    stores = [opened(tmp_path / f"{index}.rows") for index in range(50)]
    for store in stores:
        store.write(np.arange(3), values(np.arange(3)))
        assert read(store, 1)[0] == [True]

    assert len(os.listdir("/proc/self/fd")) == before
