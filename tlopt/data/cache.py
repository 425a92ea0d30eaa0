"""The folder with everything that can be made again, and how files come into it whole."""

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import platformdirs
from filelock import FileLock

from tlopt.errors import DataError


def cache_root() -> Path:
    """The folder of digests, pixel stores and fetched data sets: TLOPT_CACHE, or the user's cache folder."""
    configured = os.environ.get("TLOPT_CACHE")
    return Path(configured).expanduser() if configured else Path(platformdirs.user_cache_dir("tlopt"))


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold `path` alone among all processes of this host; a killed holder's lock is free.

    Raises:
        DataError: the cache folder cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(path.name + ".lock"))
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def writing(path: Path, size_bytes: int = 0) -> Iterator[None]:
    """Translate the errors of writing `path`, for which `size_bytes` are needed, to `DataError`."""
    try:
        yield
    except OSError as error:
        raise DataError(_cannot_write(path, size_bytes, error)) from error


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes `path`'s place when the block ends well, synced to disk, and else leaves no trace.

    One writer at a time: hold `locked(path)`.
    """
    part = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Put `value` at `path` as JSON, whole or not at all.

    Raises:
        DataError: the cache folder cannot be written.
    """
    with writing(path), replacing(path) as file:
        file.write(json.dumps(value).encode())


def read_json(path: Path) -> Any:
    """The value at `path`, or None if there is none or it is damaged."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def _cannot_write(path: Path, size_bytes: int, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        needed = f"; {size_bytes:,} bytes are needed" if size_bytes else ""
        return f"the disk is full at {path.parent}{needed}: make room, or set TLOPT_CACHE to another folder"
    return f"{path} cannot be written ({error.strerror or error}): set TLOPT_CACHE to a folder that can"
