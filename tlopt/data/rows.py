"""Records of one size in a file, each with its checksum: every process may fill it, nobody waits for another.

Read and written by calls and not through a memory map: where a mapped file is cut short, its reader is killed
by SIGBUS; a short read is only a record that is not there. The system's page cache is shared either way.
"""

import errno
import os
import struct
import zlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_HEAD = struct.Struct("<II")
_MAGIC = 0x726F7773
_RUN_BYTES_MAX = 1 << 26  # of one system call
_ENDS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EFBIG)

Bools = NDArray[np.bool_]


class Rows:
    """`n_rows` records of `row_bytes`; what is missing, torn or damaged is not there.

    Args:
        path: is made, sparse, where it is missing.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, path: Path, *, n_rows: int, row_bytes: int) -> None:
        self.path = path
        self.n_rows = n_rows
        self.row_bytes = row_bytes
        self.full = ""  # why nothing is written any more
        self._checked = np.zeros(n_rows, dtype=bool)  # a checksum costs more than a read
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    @property
    def _stride(self) -> int:
        return _HEAD.size + self.row_bytes

    def read(self, rows: NDArray[np.int64], out: NDArray[np.uint8]) -> Bools:
        """Which of `rows` are there; their bytes go to `out` (n, row_bytes), the rest of it is undefined."""
        found = np.zeros(len(rows), dtype=bool)
        # Opened for each call: blocks times views are more files than a process may have open.
        try:
            file = os.open(self.path, os.O_RDONLY)
        except OSError:
            return found
        try:
            self._read(file, rows, out, found)
        finally:
            os.close(file)
        return found

    def _read(self, file: int, rows: NDArray[np.int64], out: NDArray[np.uint8], found: Bools) -> None:
        order = np.argsort(rows, kind="stable")
        for start, end in self._runs(rows[order]):
            raw = self._read_run(file, int(rows[order[start]]), end - start)
            records = raw[: len(raw) - len(raw) % self._stride].reshape(-1, self._stride)
            for at, record in zip(order[start:end], records, strict=False):
                found[at] = self._is_whole(int(rows[at]), record)
                out[at] = record[_HEAD.size :]

    def write(self, rows: NDArray[np.int64], values: NDArray[np.uint8]) -> None:
        """Store `values` (n, row_bytes) at `rows`; where the disk is full, `full` says so from then on."""
        if self.full:
            return
        try:
            file = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o644)
            try:
                for row, value in zip(rows, values, strict=True):
                    record = _HEAD.pack(_MAGIC, zlib.crc32(value.data)) + value.tobytes()
                    written = os.pwrite(file, record, int(row) * self._stride)
                    self._checked[row] = written == len(record)
            finally:
                os.close(file)
        except OSError as error:
            if error.errno not in _ENDS:
                raise
            self.full = f"{self.path.parent} takes no more features: {error.strerror}"

    def _runs(self, rows: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
        """Start and end of each stretch of ascending `rows` that lie side by side in the file."""
        breaks = np.flatnonzero(np.diff(rows) != 1) + 1
        most = max(1, _RUN_BYTES_MAX // self._stride)
        for start, end in pairwise([0, *breaks.tolist(), len(rows)]):
            for at in range(start, end, most):
                yield at, min(at + most, end)

    def _read_run(self, file: int, row: int, n: int) -> NDArray[np.uint8]:
        raw = np.empty(n * self._stride, dtype=np.uint8)
        n_read = os.preadv(file, [raw.data], row * self._stride)
        return raw[:n_read]

    def _is_whole(self, row: int, record: NDArray[np.uint8]) -> bool:
        magic, checksum = _HEAD.unpack(record[: _HEAD.size].tobytes())
        if magic != _MAGIC:
            return False
        if not self._checked[row]:
            self._checked[row] = zlib.crc32(record[_HEAD.size :].data) == checksum
        return bool(self._checked[row])


def open_rows(path: Path, *, n_rows: int, row_bytes: int) -> Rows | None:
    """The rows at `path`; None where the file cannot be made."""
    try:
        return Rows(path, n_rows=n_rows, row_bytes=row_bytes)
    except OSError:
        return None
