"""Decoded images as uint8 pixels, in a record file that all workers of a host share."""

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from tlopt.cache.eviction import lock_while_alive
from tlopt.cache.folder import (
    cache_root,
    locked_if_possible,
    read_checked_json,
    unwritable_message,
    warn_once,
    write_checked_json_if_possible,
)
from tlopt.cache.record_file import RecordFile
from tlopt.data.dataset import Data, File, Image, Sample, TestSplit
from tlopt.data.decode import DECODER, Reading, decode_rgb, quiet
from tlopt.data.digest import content_digest
from tlopt.data.files import read_regular
from tlopt.data.rgb import square
from tlopt.data.sources.builtin import open_sample, pixel_digest
from tlopt.data.threads import each
from tlopt.errors import DataError
from tlopt.system.filesystems import free_bytes
from tlopt.system.words import counted

__all__ = ["Pixels", "cache_root", "eval_size", "pixels", "training_size"]

_MEMORY_BYTES_MAX = 1 << 29  # of pixels in the memory of a worker that cannot write them to disk
_ROWS_PER_READ = 256  # in the search for missing records

Indices = NDArray[np.int64]


def eval_size(resolution: int) -> int:
    """Side in pixels of the image that is center-cropped to `resolution` for evaluation: 8/7 of it."""
    return max(resolution, round(resolution * 8 / 7))


def training_size(resolution: int) -> int:
    """Side in pixels of the image that training crops are taken from: 3/2 of `resolution`.

    A crop of half the side is then enlarged by 4/3, and the whole image reduced to 2/3.
    """
    return round(resolution * 3 / 2)


class Pixels:
    """Images as uint8 (N, size, size, 3) RGB: `pixels[indices]` is an array of those at `indices`.

    Read from a file with a checksum for each image. Missing and damaged images are decoded again; if the disk
    cannot be written, up to half a gigabyte of them stays in memory.
    """

    def __init__(self, path: Path, images: Sequence[Image], *, size: int, reading: Reading) -> None:
        self.shape = (len(images), size, size, 3)
        self._images, self._size, self._reading = images, size, reading
        self._rows = RecordFile(path, n_rows=len(images), row_bytes=size * size * 3)
        self._memory: dict[int, NDArray[np.uint8]] = {}

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def image_bytes(self) -> int:
        """Bytes of one decoded image."""
        return self._rows.row_bytes

    def __getitem__(self, indices: Indices) -> NDArray[np.uint8]:
        """The images at `indices`.

        Raises:
            DataError: an image to decode has changed or was removed since `load_data`.
        """
        out = np.empty((len(indices), *self.shape[1:]), dtype=np.uint8)
        found = self._rows.read(indices, out.reshape(len(indices), self._rows.row_bytes))
        if not found.all():
            absent = np.unique(indices[~found])
            with quiet():
                made = dict(
                    zip(
                        absent.tolist(), self._decode_and_store(absent, label="", progress=False), strict=True
                    )
                )
            for at in np.flatnonzero(~found):
                out[at] = made[int(indices[at])]
        return out

    def fill(self, wanted: Indices, *, progress: bool) -> bool:
        """Decode the images at `wanted` that are missing in the file; return False if the disk is full.

        Raises:
            DataError: as `__getitem__`.
        """
        starts = range(0, len(wanted), _ROWS_PER_READ)
        absent = np.concatenate([self._absent(wanted[at : at + _ROWS_PER_READ]) for at in starts])
        needed = len(absent) * self._rows.stride
        if needed > free_bytes(self._rows.path):  # do not fill the disk for other programs
            self._rows.write_error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        others = os.path.lexists(self._rows.path)  # other processes may be reading it
        for _ in self._decode_and_store(absent, label=f"decoding to {self._size} px", progress=progress):
            if self._rows.write_error is not None:
                if not others:  # free disk space is worth more than a partial file
                    with contextlib.suppress(OSError):
                        self._rows.path.unlink()
                return False
        return True

    def resume_writing(self) -> None:
        """Resume writing to the file after a failure, if the disk has free space again."""
        if len(self) * self._rows.stride <= free_bytes(self._rows.path):
            self._rows.write_error = None

    def _absent(self, indices: Indices) -> Indices:
        found = self._rows.read(indices, np.empty((len(indices), self._rows.row_bytes), dtype=np.uint8))
        return indices[~found]

    def _decode_and_store(
        self, indices: Indices, *, label: str, progress: bool
    ) -> Iterator[NDArray[np.uint8]]:
        """The images at `indices`, from memory or newly decoded; stores them."""

        def decoded(index: int) -> NDArray[np.uint8]:
            if index in self._memory:
                return self._memory[index]
            return _decode(self._images[index], size=self._size, reading=self._reading)

        made = each(decoded, indices.tolist(), label=label, progress=progress)
        for index, square_pixels in zip(indices.tolist(), made, strict=True):
            self._store(index, square_pixels)
            yield square_pixels

    def _store(self, index: int, square_pixels: NDArray[np.uint8]) -> None:
        self._rows.write(np.array([index]), square_pixels.reshape(1, -1))
        if self._rows.write_error is None:
            return
        warn_once(unwritable_message(self._rows.write_error))
        if (len(self._memory) + 1) * square_pixels.nbytes <= _MEMORY_BYTES_MAX:
            self._memory[index] = square_pixels


def pixels(
    data: Data | TestSplit,
    *,
    size: int,
    reading: Reading,
    wanted: Indices | None = None,
    progress: bool = False,
) -> Pixels:
    """The images, in the order of `data.images`.

    The first call for this content decodes them, in one process at a time.

    Args:
        wanted: images to decode now, None for all; others are decoded when first read.
        progress: whether to show a progress bar on stderr.

    Raises:
        DataError: an image has changed or was removed since `load_data`.
    """
    path = cache_root() / "pixels" / f"{_key(data.images, size, reading)}.rows"
    found = Pixels(path, data.images, size=size, reading=reading)
    wanted = np.arange(len(found)) if wanted is None else wanted
    which = hashlib.sha256(wanted.tobytes()).hexdigest()[:32]
    if which not in _filled(path):
        with locked_if_possible(path), quiet():
            filled = _filled(path)
            if which not in filled and found.fill(wanted, progress=progress):
                # Written last: the sidecar marks these images as complete.
                filled |= {which: len(wanted)}
                about = f"{counted(max(filled.values()), 'image')}, {size} pixels"
                with contextlib.suppress(FileNotFoundError):  # the cache was deleted meanwhile
                    stored = {"bytes": path.stat().st_size, "about": about, "filled": filled}
                    write_checked_json_if_possible(_sidecar(path), stored)
    lock_while_alive(path, found)
    return found


def _key(images: Sequence[Image], size: int, reading: Reading) -> str:
    rule = [size, reading.resize, reading.bits]
    meaning = json.dumps([DECODER, rule, [image.digest for image in images]])
    return hashlib.sha256(meaning.encode()).hexdigest()[:32]


def _sidecar(path: Path) -> Path:
    return path.with_suffix(".json")


def _filled(path: Path) -> dict[str, int]:
    """Sizes of the completely written sets of images, by key; empty if the file is truncated."""
    try:
        stored = read_checked_json(_sidecar(path))
        if isinstance(stored, dict) and stored["bytes"] <= path.stat().st_size:
            return {str(which): int(n) for which, n in stored["filled"].items()}
    # missing, damaged or from another version
    except (OSError, LookupError, TypeError, ValueError, AttributeError):
        pass
    return {}


def _decode(image: Image, *, size: int, reading: Reading) -> NDArray[np.uint8]:
    origin = image.origin
    opened = _open_file(origin.path, image.digest, size, reading) if isinstance(origin, File) else None
    if isinstance(origin, Sample):
        sample = open_sample(origin)
        opened = sample if pixel_digest(sample) == image.digest else None
    if opened is None:
        raise DataError(f"{origin} has changed since it was first read: start again")
    return square(opened, size=size, resize=reading.resize)


def _open_file(path: Path, digest: str, size: int, reading: Reading) -> PIL.Image.Image | None:
    """The image in the file at `path`, None if its content has changed."""
    try:
        content = read_regular(path)
    except DataError as error:
        raise DataError(f"{path} is gone or changed: {error}") from error
    try:
        decoded = decode_rgb(content, size, reading)
    except DataError:
        return None
    return decoded.image if content_digest(content, revised=decoded.revised) == digest else None
