"""Cache entries and their eviction, least recently used first; every entry can be recomputed."""

import contextlib
import errno
import fcntl
import os
import shutil
import weakref
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from tlopt.cache.folder import cache_root, read_checked_json, unwritable_message, warn_once
from tlopt.errors import SpecError

EntryKind = Literal["features", "pixels", "digests", "listings"]
KINDS: tuple[EntryKind, ...] = get_args(EntryKind)

GB = 1e9
_FEATURES_GB_MAX = 20.0
_FREE_SHARE = 0.5  # largest share of the free disk space for features
_BLOCK_BYTES = 512  # the unit of st_blocks
_ABOUT, _PLAN, _LOCK = "about.txt", "planned_bytes", "lock"


@dataclass(frozen=True)
class CacheEntry:
    """A file or folder of the cache that is evicted as a unit."""

    kind: EntryKind
    path: Path  # a folder for features, otherwise a file
    size_bytes: int  # on disk; holes in sparse files are not counted
    used: float  # last use, seconds since 1970
    about: str  # description for people


def entries(kinds: Collection[EntryKind] = KINDS) -> list[CacheEntry]:
    """Cache entries of the given kinds, least recently used first."""
    found = [_entry(kind, path) for kind in kinds for path in _items(cache_root() / kind)]
    return sorted((entry for entry in found if entry is not None), key=lambda entry: entry.used)


def evict(entry: CacheEntry) -> bool:
    """Remove an entry unless a worker is using it; return whether it is gone."""
    folder = entry.path.is_dir()
    try:
        with (entry.path / _LOCK).open("ab") if folder else entry.path.open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(entry.path, ignore_errors=True) if folder else _unlink(entry.path)
    except OSError:  # in use, or already gone
        pass
    return not entry.path.exists()


def _unlink(path: Path) -> None:
    for each in _with_sides(path):
        each.unlink(missing_ok=True)


def lock_while_alive(path: Path, owner: object) -> None:
    """Lock the file `path` against eviction while the object `owner` is alive, and mark it as used now."""
    with contextlib.suppress(OSError):  # no such file, or no file locks
        file = os.open(path, os.O_RDONLY)
        weakref.finalize(owner, os.close, file)
        fcntl.flock(file, fcntl.LOCK_SH)
        os.utime(file)


class FolderLock:
    """A shared lock on a folder of cached features that prevents its eviction.

    The lock is released when its process ends.

    Args:
        name: folder name; created if missing.
        about: description for `tlopt cache ls`.

    Raises:
        OSError: the folder cannot be created.
    """

    def __init__(self, name: str, about: str) -> None:
        self.path = cache_root() / "features" / name
        while True:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
            self.close = weakref.finalize(self, os.close, lock)  # releases the lock
            fcntl.flock(lock, fcntl.LOCK_SH)
            self._file = os.fstat(lock)
            if self.is_valid:  # otherwise it was evicted before it was locked
                break
            self.close()
        (self.path / _ABOUT).write_text(about, encoding="utf-8")
        os.utime(self.path / _ABOUT)

    @property
    def is_valid(self) -> bool:
        """True if the locked folder is still the one under its name."""
        try:
            return os.path.samestat(self._file, (self.path / _LOCK).stat())
        except OSError:
            return False

    def reserve(self, size_bytes: int) -> None:
        """Record the size in bytes that the folder may grow to."""
        (self.path / _PLAN).write_text(str(size_bytes), encoding="ascii")


def features_bytes_max() -> int:
    """Upper bound in bytes for all cached features: TLOPT_CACHE_GB_MAX, at most half of the free disk space.

    Warn if the disk is full.

    Raises:
        SpecError: TLOPT_CACHE_GB_MAX is not a non-negative number.
    """
    given = os.environ.get("TLOPT_CACHE_GB_MAX", str(_FEATURES_GB_MAX))
    try:
        wanted = float(given)
    except ValueError:
        wanted = -1.0
    if not 0 <= wanted < float("inf"):
        raise SpecError(f"TLOPT_CACHE_GB_MAX is {given!r}; allowed is a number of gigabytes from 0")
    if wanted == 0:
        return 0
    try:
        cache_root().mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(cache_root()).free + sum(e.size_bytes for e in entries(["features"]))
        if free == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        warn_once(unwritable_message(error))
        return 0
    return int(min(wanted * GB, _FREE_SHARE * free))


def make_room(size_bytes: int, besides: Path) -> int:
    """Evict unlocked features, least recently used first, and return the bytes now available.

    Call this while holding `locked(cache_root() / "features")`.

    Args:
        size_bytes: bytes wanted; the result is at most this.
        besides: the folder that needs the space; never evicted.
    """
    bytes_max = features_bytes_max()
    taken = {
        entry: max(entry.size_bytes, _planned(entry.path))
        for entry in entries(["features"])
        if entry.path != besides
    }
    for entry in list(taken):
        if sum(taken.values()) + size_bytes > bytes_max and evict(entry):
            del taken[entry]
    return max(0, min(size_bytes, bytes_max - sum(taken.values())))


def _planned(folder: Path) -> int:
    try:
        return int((folder / _PLAN).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0


def _items(folder: Path) -> list[Path]:
    """Paths of the entries in a kind's folder."""
    try:
        found = list(folder.iterdir())
    except OSError:
        return []
    main = {".rows", ".npy"} if folder.name == "pixels" else {".json"}  # .npy: written by earlier versions
    return [path for path in found if path.is_dir() or path.suffix in main]


def _with_sides(path: Path) -> list[Path]:
    """A file with its sidecar and its lock file."""
    return [path, path.with_suffix(".json"), path.with_name(path.name + ".lock")]


def _entry(kind: EntryKind, path: Path) -> CacheEntry | None:
    """The entry at `path`; None if it has been removed meanwhile."""
    files = [path, *path.rglob("*")] if path.is_dir() else _with_sides(path)
    touched = path / _ABOUT if (path / _ABOUT).is_file() else path  # touched at every use
    try:
        used = touched.stat().st_mtime
    except OSError:
        return None
    return CacheEntry(kind, path, sum(map(_size_bytes, set(files))), used, _about(path))


def _size_bytes(path: Path) -> int:
    try:
        return path.lstat().st_blocks * _BLOCK_BYTES
    except OSError:
        return 0


def _about(path: Path) -> str:
    """An entry's description, or its name if it has none that can be read."""
    try:
        if path.is_dir():
            return (path / _ABOUT).read_text(encoding="utf-8") or path.name
        return str(read_checked_json(path.with_suffix(".json"))["about"])
    except (OSError, ValueError, LookupError, TypeError):
        return path.stem
