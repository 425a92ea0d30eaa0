"""The cache folder, its locks, and checksummed JSON files in it."""

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
    """The cache folder: TLOPT_CACHE, or `tlopt` in the user's cache directory."""
    configured = os.environ.get("TLOPT_CACHE")
    return Path(configured).expanduser() if configured else Path(platformdirs.user_cache_dir("tlopt"))


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock on `path` that excludes all other processes of this host; it ends with the process.

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
    """Like `locked`, but warn once and go unlocked if the cache folder cannot be written."""
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(path))
        except CacheUnwritable as error:
            warn_once(str(error))
        yield


@contextmanager
def cache_write_errors() -> Iterator[None]:
    """Raise any OSError of the block as `CacheUnwritable`."""
    try:
        yield
    except OSError as error:
        raise CacheUnwritable(unwritable_message(error)) from error


def unwritable_message(error: OSError) -> str:
    """Message for a failed cache write with cause and cure; identical causes give identical messages."""
    full = "free disk space there, or set TLOPT_CACHE to another folder"
    cure = full if error.errno in _FULL else "set TLOPT_CACHE to a writable folder"
    return f"the cache {cache_root()} cannot be written ({error.strerror or error}): {cure}"


@functools.cache
def warn_once(message: str) -> None:
    """Log `message` as a warning, once per process; work continues without the cache."""
    _logger.warning("%s; until then, results are the same but take longer", message)


def write_checked_json(path: Path, value: Any) -> None:
    """Write `value` to `path` atomically as JSON with a checksum.

    Raises:
        CacheUnwritable: the cache folder cannot be written.
    """
    with cache_write_errors():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps({"crc32": _checksum(value), "value": value}))


def write_checked_json_if_possible(path: Path, value: Any) -> None:
    """Like `write_checked_json`, but warn once if the cache folder cannot be written."""
    try:
        write_checked_json(path, value)
    except CacheUnwritable as error:
        warn_once(str(error))


def read_checked_json(path: Path) -> Any:
    """The value stored at `path`; None if missing or damaged."""
    try:
        stored = json.loads(path.read_bytes())
        return stored["value"] if stored["crc32"] == _checksum(stored["value"]) else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _checksum(value: Any) -> int:
    return zlib.crc32(json.dumps(value).encode())
