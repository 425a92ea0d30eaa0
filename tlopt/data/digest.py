"""Digests and checks of image files, cached by path, size and time of modification."""

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path

from tlopt.cache.folder import (
    cache_root,
    locked_if_possible,
    read_checked_json,
    write_checked_json_if_possible,
)
from tlopt.data.decode import DECODER, Reading, decode_rgb, quiet
from tlopt.data.files import read_regular
from tlopt.data.likeness import SIDE, sketch
from tlopt.data.threads import each
from tlopt.errors import DataError

_SKETCH_PIXELS = 2 * SIDE  # pixels per side that suffice to sketch an image


@dataclass(frozen=True)
class Inspection:
    """The result of reading one file."""

    digest: str  # see `content_digest`; "" if the file could not be read
    problem: str = ""  # why it cannot be decoded, "" if it can
    peak: int = -1  # largest value in 0..65535 for more than 8 bits, else -1
    sketch: str = ""  # see `likeness.sketch`


def inspect(root: Path, paths: list[Path], reading: Reading, *, progress: bool) -> list[Inspection]:
    """The inspection of every path, in order; reads only files that are new or changed since the last call.

    If the cache folder cannot be written, every call reads all files.
    """
    version = _version(reading)
    store = _store(root, version, "looks")
    keys = [_key(path) for path in paths]
    known = _read_inspections(store, version)
    if not set(keys) <= known.keys():
        with locked_if_possible(store), quiet():
            known = _read_inspections(store, version)
            new = {key: path for key, path in zip(keys, paths, strict=True) if key not in known}
            inspections = each(
                lambda path: _inspect_file(path, reading),
                list(new.values()),
                label="reading images",
                progress=progress,
            )
            known |= dict(zip(new, inspections, strict=True))
            # Unreadable files are not stored: they may be readable next time (permissions, a mount).
            kept = {key: list(astuple(known[key])) for key in keys if known[key].digest}
            write_checked_json_if_possible(store, {"version": version, "about": str(root), "looks": kept})
    _touch(store)
    return [known[key] for key in keys]


def pixel_digests(root: Path, paths: Sequence[Path], reading: Reading, *, progress: bool) -> list[str]:
    """sha256 of each image's decoded pixels at full size, "" if it can no longer be decoded.

    Cached like the results of `inspect`.
    """
    version = _version(reading)
    store = _store(root, version, "pixels")
    keys = [_key(path) for path in paths]
    known = _read_pixels(store, version)
    if not set(keys) <= known.keys():
        with locked_if_possible(store), quiet():
            known = _read_pixels(store, version)
            new = {key: path for key, path in zip(keys, paths, strict=True) if key not in known}
            make = partial(_pixel_digest, reading=reading)
            made = each(make, list(new.values()), label="comparing images", progress=progress)
            known |= dict(zip(new, made, strict=True))
            kept = {key: known[key] for key in keys if known[key]}
            write_checked_json_if_possible(store, {"version": version, "about": str(root), "pixels": kept})
    _touch(store)
    return [known[key] for key in keys]


def content_digest(content: bytes, *, revised: bool) -> str:
    """sha256 of a file's bytes, 64 hex digits.

    If `revised`, a marker is added: the decoding of such files has changed, and earlier studies must notice
    that their images differ.
    """
    return hashlib.sha256(content + (b"\0decoded by rule 2" if revised else b"")).hexdigest()


def _inspect_file(path: Path, reading: Reading) -> Inspection:
    try:
        content = read_regular(path)
    except DataError as error:
        return Inspection("", str(error))
    try:
        opened = decode_rgb(content, _SKETCH_PIXELS, reading)
    except DataError as error:
        return Inspection(content_digest(content, revised=False), str(error))
    return Inspection(content_digest(content, revised=opened.revised), "", opened.peak, sketch(opened.image))


def _pixel_digest(path: Path, reading: Reading) -> str:
    try:
        image = decode_rgb(read_regular(path), 1 << 20, reading).image  # larger than any JPEG: no reduction
    except DataError:
        return ""
    return hashlib.sha256(f"{image.width}x{image.height}:".encode() + image.tobytes()).hexdigest()


def _version(reading: Reading) -> str:
    # Only these keys affect an inspection; size and crop do not.
    return f"{DECODER}, {reading.bits} bits, {reading.megapixels_max:g} megapixels"


def _store(root: Path, version: str, kind: str) -> Path:
    name = hashlib.sha256(os.fsencode(os.path.realpath(root)) + f"/{version}/{kind}".encode()).hexdigest()[
        :24
    ]
    return cache_root() / "digests" / f"{name}.json"


def _key(path: Path) -> str:
    try:
        status = path.stat()
    except (OSError, ValueError):
        return f"absent {path}"
    return f"{status.st_size} {status.st_mtime_ns} {path}"


def _read_inspections(store: Path, version: str) -> dict[str, Inspection]:
    return {key: Inspection(*look) for key, look in _stored(store, version).get("looks", {}).items()}


def _read_pixels(store: Path, version: str) -> dict[str, str]:
    return dict(_stored(store, version).get("pixels", {}))


def _stored(store: Path, version: str) -> dict[str, dict[str, str]]:
    stored = read_checked_json(store)
    return stored if isinstance(stored, dict) and stored.get("version") == version else {}


def _touch(store: Path) -> None:
    with suppress(OSError):  # time of the last use, for eviction
        os.utime(store)
