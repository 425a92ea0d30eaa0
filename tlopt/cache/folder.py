"""The folder with everything that can be made again, and how files come into it whole."""

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
from tlopt.system.atomic import write_whole

_logger = logging.getLogger(__name__)
_FULL = (errno.ENOSPC, errno.EDQUOT)


def cache_root() -> Path:
    """The folder of digests, pixel stores and fetched data sets: TLOPT_CACHE, or the user's cache folder."""
    configured = os.environ.get("TLOPT_CACHE")
    return Path(configured).expanduser() if configured else Path(platformdirs.user_cache_dir("tlopt"))


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold `path` alone among all processes of this host; a killed holder's lock is free.

    Raises:
        CacheUnwritable: the cache folder cannot be written.
    """
    with writing():
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(path.name + ".lock"))
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def locked_if_possible(path: Path) -> Iterator[None]:
    """As `locked`; where the cache folder cannot be written, that is said once and nothing is locked."""
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(path))
        except CacheUnwritable as error:
            complain(str(error))
        yield


@contextmanager
def writing() -> Iterator[None]:
    """The errors of writing into the cache, within, as `CacheUnwritable`."""
    try:
        yield
    except OSError as error:
        raise CacheUnwritable(unwritable(error)) from error


def unwritable(error: OSError) -> str:
    """That the cache takes nothing more, why, and what to do; the same words for the same cause."""
    place = "make room there, or set TLOPT_CACHE to another folder"
    cure = place if error.errno in _FULL else "set TLOPT_CACHE to a folder that can be written"
    return f"the cache {cache_root()} takes no more ({error.strerror or error}): {cure}"


@functools.cache
def complain(unwritable: str) -> None:
    """Say `unwritable`, once in this process, to whoever reads its errors; work goes on without the cache."""
    _logger.warning("%s; until then the same results take longer", unwritable)


def write_json(path: Path, value: Any) -> None:
    """Put `value` at `path` as JSON with a checksum, whole or not at all.

    Raises:
        CacheUnwritable: the cache folder cannot be written.
    """
    with writing():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps({"crc32": _checksum(value), "value": value}))


def write_json_if_possible(path: Path, value: Any) -> None:
    """As `write_json`; where the cache folder cannot be written, that is said once."""
    try:
        write_json(path, value)
    except CacheUnwritable as error:
        complain(str(error))


def read_json(path: Path) -> Any:
    """The value at `path`, or None if there is none or it is damaged."""
    try:
        stored = json.loads(path.read_bytes())
        return stored["value"] if stored["crc32"] == _checksum(stored["value"]) else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _checksum(value: Any) -> int:
    return zlib.crc32(json.dumps(value).encode())
