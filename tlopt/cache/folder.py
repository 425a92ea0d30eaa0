"""The cache folder, its locks, and JSON files with checksums in it."""

import errno
import functools
import json
import logging
import os
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import platformdirs
from filelock import FileLock

from tlopt.errors import CacheUnwritable
from tlopt.system.atomic import write_atomically

_logger = logging.getLogger(__name__)
_FULL = (errno.ENOSPC, errno.EDQUOT)


def cache_root() -> Path:
    """The cache folder: TLOPT_CACHE, or tlopt's folder among the user's caches."""
    configured = os.environ.get("TLOPT_CACHE")
    return Path(configured).expanduser() if configured else Path(platformdirs.user_cache_dir("tlopt"))


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of `path` among all processes of this host; a process that is killed releases it.

    Raises:
        CacheUnwritable: the cache folder cannot be written.
    """
    with cache_write_errors():
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(path.name + ".lock"))
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def locked_if_possible(path: Path) -> Iterator[None]:
    """As `locked`; if the cache folder cannot be written, warn once and lock nothing."""
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(path))
        except CacheUnwritable as error:
            warn_once(str(error))
        yield


@contextmanager
def cache_write_errors() -> Iterator[None]:
    """Turn errors of writing to the cache within the block into `CacheUnwritable`."""
    try:
        yield
    except OSError as error:
        raise CacheUnwritable(unwritable_message(error)) from error


def unwritable_message(error: OSError) -> str:
    """A message on a failed write to the cache, with the cause and the cure; equal for equal causes."""
    place = "make room there, or set TLOPT_CACHE to another folder"
    cure = place if error.errno in _FULL else "set TLOPT_CACHE to a folder that can be written"
    return f"the cache {cache_root()} cannot be written ({error.strerror or error}): {cure}"


@functools.cache
def warn_once(message: str) -> None:
    """Log the message `message` as a warning, once per process; work goes on without the cache."""
    _logger.warning("%s; until then the same results take longer", message)


def write_checked_json(path: Path, value: Any) -> None:
    """Put `value` at `path` as JSON with a checksum, whole or not at all.

    Raises:
        CacheUnwritable: the cache folder cannot be written.
    """
    with cache_write_errors():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps({"crc32": _checksum(value), "value": value}))


def write_checked_json_if_possible(path: Path, value: Any) -> None:
    """As `write_checked_json`; if the cache folder cannot be written, warn once."""
    try:
        write_checked_json(path, value)
    except CacheUnwritable as error:
        warn_once(str(error))


def read_checked_json(path: Path) -> Any:
    """The value at `path`, or None if there is none or it is damaged."""
    try:
        stored = json.loads(path.read_bytes())
        return stored["value"] if stored["crc32"] == _checksum(stored["value"]) else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _checksum(value: Any) -> int:
    return zlib.crc32(json.dumps(value).encode())
