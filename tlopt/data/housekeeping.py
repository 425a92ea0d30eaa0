"""What the cache holds and what may go: all of it can be made again, what was used longest ago goes first."""

import fcntl
import os
import shutil
import weakref
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from tlopt.data.cache import cache_root
from tlopt.errors import SpecError

Kind = Literal["features", "pixels", "digests", "listings"]
KINDS: tuple[Kind, ...] = get_args(Kind)

GB = 1e9
_FEATURES_GB_MAX = 20.0
_FREE_SHARE = 0.5  # of the disk's free space that features may take
_BLOCK_BYTES = 512  # the unit of st_blocks
_ABOUT, _PLAN, _LOCK = "about.txt", "planned_bytes", "lock"


@dataclass(frozen=True)
class Entry:
    """One thing in the cache that is kept or removed whole."""

    kind: Kind
    path: Path  # a folder of features, a file otherwise
    size_bytes: int  # on the disk; holes in a file take none
    used: float  # seconds since 1970
    about: str


def entries(kinds: Collection[Kind] = KINDS) -> list[Entry]:
    """What the cache holds of some kinds, what was used longest ago first."""
    found = [_entry(kind, path) for kind in kinds for path in _items(cache_root() / kind)]
    return sorted((entry for entry in found if entry is not None), key=lambda entry: entry.used)


def remove(entry: Entry) -> bool:
    """Remove an entry, unless it is of features that a worker is at; returns whether it is gone.

    A worker that has pixels open keeps them until it ends.
    """
    if entry.path.is_file():
        for path in _with_sides(entry.path):
            path.unlink(missing_ok=True)
        return True
    try:
        with (entry.path / _LOCK).open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(entry.path, ignore_errors=True)
    except OSError:  # somebody holds it, or it is gone
        pass
    return not entry.path.exists()


class Held:
    """A folder of features that nobody removes while this is open, or its process lives.

    Args:
        name: of the folder.
        about: what a person wants to know of it.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, name: str, about: str) -> None:
        self.path = cache_root() / "features" / name
        while True:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
            self.close = weakref.finalize(self, os.close, lock)  # lets others remove it
            fcntl.flock(lock, fcntl.LOCK_SH)
            if (self.path / _LOCK).exists():  # else it was removed between the two
                break
            self.close()
        (self.path / _ABOUT).write_text(about, encoding="utf-8")
        os.utime(self.path / _ABOUT)

    def plan(self, size_bytes: int) -> None:
        """Say how many bytes the folder may come to."""
        (self.path / _PLAN).write_text(str(size_bytes), encoding="ascii")


def features_bytes_max() -> int:
    """Bytes that all features together may take: TLOPT_CACHE_GB_MAX, and half of what the disk could give.

    Raises:
        SpecError: TLOPT_CACHE_GB_MAX is no number of gigabytes from 0.
    """
    given = os.environ.get("TLOPT_CACHE_GB_MAX", str(_FEATURES_GB_MAX))
    try:
        wanted = float(given)
    except ValueError:
        wanted = -1.0
    if not 0 <= wanted < float("inf"):
        raise SpecError(f"TLOPT_CACHE_GB_MAX is {given!r}; allowed is a number of gigabytes from 0")
    try:
        cache_root().mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(cache_root()).free
    except OSError:
        return 0
    return int(min(wanted * GB, _FREE_SHARE * (free + sum(e.size_bytes for e in entries(["features"])))))


def room_for(size_bytes: int, besides: Path) -> int:
    """Bytes, `size_bytes` at most, that a folder of features may take.

    For them, features go that were used longest ago and that nobody is at. Hold `locked(cache_root() /
    "features")`.

    Args:
        besides: the folder that they are for.
    """
    bytes_max = features_bytes_max()
    taken = {
        entry: max(entry.size_bytes, _planned(entry.path))
        for entry in entries(["features"])
        if entry.path != besides
    }
    for entry in list(taken):
        if sum(taken.values()) + size_bytes > bytes_max and remove(entry):
            del taken[entry]
    return max(0, min(size_bytes, bytes_max - sum(taken.values())))


def _planned(folder: Path) -> int:
    try:
        return int((folder / _PLAN).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0


def _items(folder: Path) -> list[Path]:
    """What in the folder of a kind is kept or removed whole."""
    try:
        found = list(folder.iterdir())
    except OSError:
        return []
    main = {".npy"} if folder.name == "pixels" else {".json"}
    return [path for path in found if path.is_dir() or path.suffix in main]


def _with_sides(path: Path) -> list[Path]:
    """A file and those that lie beside it for its sake."""
    return [path, path.with_suffix(".json"), path.with_name(path.name + ".lock")]


def _entry(kind: Kind, path: Path) -> Entry | None:
    """The entry at `path`; None where it has gone meanwhile."""
    files = list(path.rglob("*")) if path.is_dir() else [each for each in _with_sides(path) if each.exists()]
    try:
        used = (path / _ABOUT if path.is_dir() else path).stat().st_mtime  # whoever uses it touches this file
        size = sum(file.stat().st_blocks * _BLOCK_BYTES for file in set(files))
        about = (path / _ABOUT).read_text(encoding="utf-8") if path.is_dir() else path.stem
    except OSError:
        return None
    return Entry(kind, path, size, used, about)
