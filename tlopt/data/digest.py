"""Content digest and readability of files, paid once: both are kept by path, size and time of change."""

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tlopt.cache.folder import cache_root, locked_if_possible, read_json, write_json_if_possible
from tlopt.data.decode import DECODER, problem_of, quiet
from tlopt.data.threads import each


@dataclass(frozen=True)
class Look:
    """What a look at a file's bytes gave."""

    digest: str  # sha256, 64 hex digits; "" where the bytes could not be read
    problem: str  # why it cannot be decoded, "" if it can


def inspect(root: Path, paths: list[Path], *, progress: bool) -> list[Look]:
    """A look at every path, in order; only files that are new or changed since the last call are read.

    Where the cache folder cannot be written, every call reads them.
    """
    name = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:24]
    store = cache_root() / "digests" / f"{name}.json"
    keys = [_key(path) for path in paths]
    known = _read(store)
    if not set(keys) <= known.keys():
        with locked_if_possible(store), quiet():
            known = _read(store)
            new = {key: path for key, path in zip(keys, paths, strict=True) if key not in known}
            looks = each(_look, list(new.values()), label="reading images", progress=progress)
            known |= dict(zip(new, looks, strict=True))
            _write(store, root, {key: known[key] for key in keys})
    with suppress(OSError):  # when it was used last, for `housekeeping`
        os.utime(store)
    return [known[key] for key in keys]


def sha256(content: bytes) -> str:
    """The digest of a file's bytes, 64 hex digits."""
    return hashlib.sha256(content).hexdigest()


def _look(path: Path) -> Look:
    try:
        content = path.read_bytes()
    except OSError as error:
        return Look("", f"it cannot be read ({error.strerror or error})")
    return Look(sha256(content), problem_of(content))


def _key(path: Path) -> str:
    try:
        status = path.stat()
    except OSError:
        return f"absent {path}"
    return f"{status.st_size} {status.st_mtime_ns} {path}"


def _read(store: Path) -> dict[str, Look]:
    stored = read_json(store)
    if not isinstance(stored, dict) or stored.get("version") != DECODER:
        return {}
    return {key: Look(*look) for key, look in stored.get("looks", {}).items()}


def _write(store: Path, root: Path, looks: dict[str, Look]) -> None:
    # An unreadable file may be readable next time (permissions, a mount): only looks at bytes are kept.
    kept = {key: [look.digest, look.problem] for key, look in looks.items() if look.digest}
    write_json_if_possible(store, {"version": DECODER, "about": str(root), "looks": kept})
