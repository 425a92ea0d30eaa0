"""Every image decoded once: uint8 pixels in a file that all workers of a host map into memory."""

import contextlib
import hashlib
import json
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlopt.data.cache import cache_root, locked, read_json, replacing, write_json, writing
from tlopt.data.digest import sha256
from tlopt.data.image import RULE_VERSION, Resize, open_rgb, quiet, square
from tlopt.data.pool import each
from tlopt.data.records import Data, File, Image, TestSplit
from tlopt.data.source_samples import open_sample, pixel_digest
from tlopt.errors import DataError

__all__ = ["cache_root", "pixels", "store_size"]

_SPOTS = 8  # images whose checksums are compared when a store is opened


def store_size(resolution: int) -> int:
    """Pixels a side to store for a network that sees `resolution`: 8/7 of it, the usual margin of a crop."""
    return max(resolution, round(resolution * 8 / 7))


def pixels(data: Data | TestSplit, *, size: int, resize: Resize, progress: bool = False) -> NDArray[np.uint8]:
    """The images as a read-only memory map, uint8 (N, size, size, 3) RGB, in the order of `data.images`.

    Built at the first call for this content, by one process however many ask; a damaged file is built again.

    Args:
        progress: a bar on stderr while images are decoded.

    Raises:
        DataError: an image changed or went away since `load`, or the cache folder cannot hold the pixels.
    """
    path = cache_root() / "pixels" / f"{_key(data.images, size, resize)}.npy"
    shape = (len(data.images), size, size, 3)
    if (found := _open(path, shape)) is not None:
        return found
    with locked(path):
        if (found := _open(path, shape)) is not None:
            return found
        _build(path, shape, data.images, resize, progress=progress)
        if (found := _open(path, shape)) is not None:
            return found
    raise DataError(f"{path} is damaged right after it was written: set TLOPT_CACHE to another disk")


def _key(images: Sequence[Image], size: int, resize: Resize) -> str:
    meaning = json.dumps([RULE_VERSION, size, resize, [image.digest for image in images]])
    return hashlib.sha256(meaning.encode()).hexdigest()[:32]


def _open(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
    """The finished store at `path`, or None if it is absent or damaged."""
    sidecar = read_json(path.with_suffix(".json"))
    try:
        found: NDArray[np.uint8] = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    if found.shape != shape or found.dtype != np.uint8 or sidecar != _sidecar(path, found):
        return None
    with contextlib.suppress(OSError):  # when it was used last, for `housekeeping`
        os.utime(path)
    return found


def _sidecar(path: Path, stored: NDArray[np.uint8]) -> dict[str, Any]:
    spots = np.linspace(0, len(stored) - 1, _SPOTS).astype(int)
    return {
        "bytes": path.stat().st_size,
        "crc32": [zlib.crc32(stored[spot].tobytes()) for spot in spots],
    }


def _build(
    path: Path, shape: tuple[int, ...], images: Sequence[Image], resize: Resize, *, progress: bool
) -> None:
    size = shape[1]

    def decoded(image: Image) -> NDArray[np.uint8]:
        return _decode(image, size=size, resize=resize)

    path.with_suffix(".json").unlink(missing_ok=True)
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    with quiet(), writing(path, int(np.prod(shape))), replacing(path) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for square_pixels in each(decoded, images, label=f"decoding to {size} px", progress=progress):
            # Written in order, not through the map: a full disk is then an error and not a SIGBUS.
            file.write(square_pixels.data)
    # The sidecar comes last: it says that the pixels are whole.
    write_json(path.with_suffix(".json"), _sidecar(path, np.load(path, mmap_mode="r")))


def _decode(image: Image, *, size: int, resize: Resize) -> NDArray[np.uint8]:
    origin = image.origin
    if isinstance(origin, File):
        try:
            content = origin.path.read_bytes()
        except OSError as error:
            raise DataError(f"{origin} cannot be read any more: {error.strerror or error}") from error
        same = sha256(content) == image.digest
        opened = open_rgb(content, size) if same else None
    else:
        opened = open_sample(origin)
        same = pixel_digest(opened) == image.digest
    if opened is None or not same:
        raise DataError(f"{origin} has changed since it was first read: start again")
    return square(opened, size=size, resize=resize)
