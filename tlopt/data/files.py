"""Reading of files that users name: regular files only, since others may block."""

import errno
import os
from pathlib import Path

from tlopt.errors import DataError
from tlopt.system.files import kind_of


def read_regular(path: Path) -> bytes:
    """The content of the file at `path`; links are followed.

    Raises:
        DataError: it cannot be read or is not a regular file (opening a named pipe waits for a writer). The
            message does not name the file.
    """
    try:
        # O_NONBLOCK: opening a named pipe returns at once; no effect on regular files.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if kind := kind_of(os.fstat(file.fileno()).st_mode):
                raise DataError(f"it is not a regular file but {kind}")
            return file.read()
    except OSError as error:
        raise DataError(f"it cannot be read ({_reason(path, error)})") from error
    except ValueError as error:  # a null byte in the name
        raise DataError(f"it cannot be read ({error})") from error


def _reason(path: Path, error: OSError) -> str:
    if error.errno == errno.ENOENT and os.path.islink(path):
        return f"a link to {os.readlink(path)}, which is not there"
    if error.errno == errno.ELOOP:
        return "a link that leads back to itself"
    return error.strerror or str(error)
