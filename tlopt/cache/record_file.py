"""Files of fixed-size checksummed records that any number of processes fill without locks.

Records are read and written with system calls rather than a memory map: truncating a mapped file kills its
readers with SIGBUS, while a short read is just a missing record. The page cache is shared either way.
"""

import errno
import os
import shutil
import struct
import time
import zlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_HEAD = struct.Struct("<II")
_MAGIC = 0x726F7773
_RUN_BYTES_MAX = 1 << 26  # per system call
_BLOCK_BYTES = 4096  # of common file systems; a partly written block takes all of it
_CLOCK_NS = 100_000_000  # two changes closer together may get the same timestamp

Bools = NDArray[np.bool_]
Stamp = tuple[int, ...]


class RecordFile:
    """A file of `n_rows` records of `row_bytes` each; torn and damaged records count as missing.

    Args:
        path: created as a sparse file by the first write.
    """

    def __init__(self, path: Path, *, n_rows: int, row_bytes: int) -> None:
        self.path = path
        self.n_rows = n_rows
        self.row_bytes = row_bytes
        self.write_error: OSError | None = None  # why writing stopped
        # A checksum costs as much as a read, so verify each row once until the file changes.
        self._checked = np.zeros(n_rows, dtype=bool)
        self._stamp: Stamp | None = None  # of the file when rows were verified

    @property
    def stride(self) -> int:
        """Bytes per record in the file, including the checksum."""
        return _HEAD.size + self.row_bytes

    def read(self, rows: NDArray[np.int64], out: NDArray[np.uint8]) -> Bools:
        """Read `rows` into `out` (n, row_bytes) and return which exist; `out` is undefined for the others."""
        found = np.zeros(len(rows), dtype=bool)
        # Opened per call: blocks times views can exceed the open-file limit.
        try:
            file = os.open(self.path, os.O_RDONLY)
        except OSError:
            return found
        try:
            self._trust(_stamp(file))
            self._read(file, rows, out, found)
            if _stamp(file) != self._stamp:
                self._stamp = None  # verified rows may have changed
        except OSError:  # a disk error, or a folder at this path
            found[:] = False
        finally:
            os.close(file)
        return found

    def _trust(self, stamp: Stamp | None) -> None:
        """Discard verification results if the file has changed since."""
        if stamp is None or stamp != self._stamp:
            self._checked[:] = False
            self._stamp = stamp

    def _read(self, file: int, rows: NDArray[np.int64], out: NDArray[np.uint8], found: Bools) -> None:
        order = np.argsort(rows, kind="stable")
        for start, end in self._runs(rows[order]):
            raw = self._read_run(file, int(rows[order[start]]), end - start)
            records = raw[: len(raw) - len(raw) % self.stride].reshape(-1, self.stride)
            for at, record in zip(order[start:end], records, strict=False):
                found[at] = self._is_whole(int(rows[at]), record)
                out[at] = record[_HEAD.size :]

    def write(self, rows: NDArray[np.int64], values: NDArray[np.uint8]) -> None:
        """Write `values` (n, row_bytes) at `rows`; do nothing after a `write_error`."""
        if self.write_error is not None:
            return
        try:
            file = self._writable()
            try:
                for row, value in zip(rows, values, strict=True):
                    _write_whole(
                        file,
                        _HEAD.pack(_MAGIC, zlib.crc32(value.data)) + value.tobytes(),
                        int(row) * self.stride,
                    )
            finally:
                os.close(file)
        except OSError as error:
            self.write_error = error

    def _writable(self) -> int:
        """Open the file for writing, replacing anything else this user has at its path."""
        flags = os.O_WRONLY | os.O_CREAT
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return os.open(self.path, flags, 0o644)
        except (IsADirectoryError, PermissionError):
            if self.path.lstat().st_uid != os.geteuid():
                raise
        shutil.rmtree(self.path) if self.path.is_dir() else self.path.unlink()
        return os.open(self.path, flags, 0o644)

    def _runs(self, rows: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
        """Yield (start, end) of each run of consecutive values in the ascending `rows`."""
        breaks = np.flatnonzero(np.diff(rows) != 1) + 1
        most = max(1, _RUN_BYTES_MAX // self.stride)
        for start, end in pairwise([0, *breaks.tolist(), len(rows)]):
            for at in range(start, end, most):
                yield at, min(at + most, end)

    def _read_run(self, file: int, row: int, n: int) -> NDArray[np.uint8]:
        raw = np.empty(n * self.stride, dtype=np.uint8)
        n_read = os.preadv(file, [raw.data], row * self.stride)
        return raw[:n_read]

    def _is_whole(self, row: int, record: NDArray[np.uint8]) -> bool:
        magic, checksum = _HEAD.unpack(record[: _HEAD.size].tobytes())
        if magic != _MAGIC:
            return False
        if not self._checked[row]:
            self._checked[row] = zlib.crc32(record[_HEAD.size :].data) == checksum
        return bool(self._checked[row])


def disk_bytes_max(row_bytes: int, *, n_written: int, n_rows: int) -> int:
    """Upper bound in bytes on disk for any `n_written` of a file's `n_rows` rows."""
    stride = _HEAD.size + row_bytes
    blocks_per_row = (stride - 2) // _BLOCK_BYTES + 2  # the first and last may hold nothing else
    blocks_in_all = -(-n_rows * stride // _BLOCK_BYTES)
    return _BLOCK_BYTES * min(n_written * blocks_per_row, blocks_in_all)


def _stamp(file: int) -> Stamp | None:
    """Values that change with the file; None if it changed too recently to notice a further change."""
    state = os.fstat(file)
    if time.time_ns() - state.st_ctime_ns < _CLOCK_NS:
        return None
    return state.st_dev, state.st_ino, state.st_size, state.st_ctime_ns


def _write_whole(file: int, record: bytes, offset: int) -> None:
    """Write all of `record` at `offset`.

    Raises:
        OSError: the disk is full; part of the record may have been written.
    """
    if os.pwrite(file, record, offset) != len(record):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
