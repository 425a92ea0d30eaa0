"""A lock of one process on a file, which ends with the process."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def only_process(file: Path) -> Iterator[None]:
    """Hold a lock on `file` within the block, and remove the file after it.

    Raises:
        BlockingIOError: another process holds it.
        OSError: the file cannot be written, or its file system has no locks.
    """
    descriptor = _locked(file)
    try:
        yield
    finally:
        with suppress(OSError):
            file.unlink()  # before the lock ends: whoever opens it from now on opens another file
        os.close(descriptor)


def _locked(file: Path) -> int:
    while True:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # another process has just removed the folder
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), os.stat(file)):
                return descriptor
        except FileNotFoundError:  # removed between opening and locking
            pass
        except OSError as error:
            os.close(descriptor)
            error.filename = str(file)
            raise
        os.close(descriptor)
