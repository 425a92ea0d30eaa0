"""Images of data sets in libraries: scikit-learn's digits and torchvision's classification sets.

A data set is read once: labels and digests are stored in the cache folder, and the library is imported again
only for pixels.
"""

import functools
import hashlib
import operator
import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import PIL.Image

from tlopt.cache.folder import (
    cache_root,
    locked_if_possible,
    read_checked_json,
    write_checked_json_if_possible,
)
from tlopt.data.dataset import Image, Listing, Role, Sample, Unreadable
from tlopt.data.decode import DECODER, quiet, sample_rgb
from tlopt.data.threads import each
from tlopt.errors import DataError

# Not every data set's __getitem__ is thread-safe.
_ACCESS = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class Part:
    """One split of a library's data set; `samples[i]` is (PIL image, label)."""

    samples: Sequence[tuple[Any, Any]]
    class_names: tuple[str, ...] | None
    former_names: tuple[str, ...] | None = None  # class names of earlier versions, if different


def list_samples(source: str, *, progress: bool) -> Listing:
    """All images in "digits" or "torchvision:NAME", downloaded if necessary.

    Raises:
        DataError: the data set does not exist, cannot be fetched, or is not for classification.
        MissingExtra: torchvision needs another package for the data set.
    """
    if not source.removeprefix("torchvision:").isidentifier():
        raise DataError(
            f"{source}: torchvision: is followed by the name of a data set, as in torchvision:Flowers102"
        )
    path = cache_root() / "listings" / f"{source.replace(':', '-')}.json"
    stored = _stored(path)
    if stored is None:
        with locked_if_possible(path), quiet():
            stored = _stored(path)
            if stored is None:
                stored = {"version": DECODER, **_read_all(source, progress=progress)}
                write_checked_json_if_possible(path, stored)
    with suppress(OSError):  # time of the last use, for eviction
        os.utime(path)
    return _listing(source, stored)


def open_sample(sample: Sample) -> PIL.Image.Image:
    """The sample's image in RGB.

    Raises:
        DataError: the library cannot read it, or it is not an image.
    """
    return _fetch(sample)[0]


def pixel_digest(image: PIL.Image.Image) -> str:
    """sha256 of an RGB image's size and pixels, 64 hex digits."""
    header = f"{image.width}x{image.height}:".encode()
    return hashlib.sha256(header + image.tobytes()).hexdigest()


def _stored(path: Path) -> dict[str, Any] | None:
    """The stored result of `_read_all`; None if missing, incomplete or decoded by another rule."""
    stored = read_checked_json(path)
    whole = isinstance(stored, dict) and {"class_names", "former_names", "parts", "rows"} <= stored.keys()
    return stored if whole and stored.get("version") == DECODER else None


def _fetch(sample: Sample) -> tuple[PIL.Image.Image, Any]:
    with _ACCESS:
        samples = _part(sample.source, sample.part, cache_root()).samples
        try:
            image, label = samples[sample.index]
        # Readers raise nearly anything on damaged content.
        except Exception as error:
            raise DataError(f"{sample} cannot be read: {error}") from error
        if not isinstance(image, PIL.Image.Image):
            raise DataError(f"{sample} is not an image but {type(image).__name__}")
        return sample_rgb(image), label


def _read_all(source: str, *, progress: bool) -> dict[str, Any]:
    """Class names and, for each role, the library's split and a row (digest, label, problem) per sample."""
    parts = _parts(source)
    rows: dict[str, list[tuple[str, int, str]]] = {}
    names: tuple[str, ...] | None = None
    former: tuple[str, ...] | None = None
    for role, part in parts.items():
        opened = _part(source, part, cache_root())
        names, former = names or opened.class_names, former or opened.former_names
        samples = [Sample(source, part, index) for index in range(len(opened.samples))]
        rows[role] = list(each(_row, samples, label=f"reading {source} {part}", progress=progress))
    n_classes = 1 + max((label for part_rows in rows.values() for _, label, _ in part_rows), default=-1)
    numbers = tuple(str(label) for label in range(n_classes))
    if names is None or len(names) < n_classes:
        names = numbers
    if former is None or len(former) < n_classes:
        former = numbers
    return {"class_names": names, "former_names": former, "parts": parts, "rows": rows}


def _row(sample: Sample) -> tuple[str, int, str]:
    try:
        image, label = _fetch(sample)
    except DataError as error:
        return "", 0, str(error)
    try:
        return pixel_digest(image), operator.index(label), ""
    except TypeError as error:
        raise DataError(
            f"{sample.source} is not for classification: sample {sample.index} has the label {label!r}"
        ) from error


def _listing(source: str, stored: dict[str, Any]) -> Listing:
    images, unreadable = [], []
    for role, rows in stored["rows"].items():
        for index, (digest, label, problem) in enumerate(rows):
            origin = Sample(source, stored["parts"][role], index)
            if problem:
                unreadable.append(Unreadable(origin=origin, problem=problem))
            else:
                images.append(Image(origin=origin, label=label, digest=digest, split=role))
    return Listing(
        class_names=tuple(stored["class_names"]),
        former_names=tuple(stored["former_names"]),
        images=tuple(images),
        unreadable=tuple(unreadable),
    )


def _parts(source: str) -> dict[Role, str]:
    """The library's name of each split in the data set."""
    if source == "digits":
        return {"trainval": ""}
    from tlopt.data.sources import torchvision

    return torchvision.parts(source, cache_root())


@functools.lru_cache(maxsize=8)
def _part(source: str, part: str, cache: Path) -> Part:
    if source == "digits":
        return _digits()
    from tlopt.data.sources import torchvision

    dataset = torchvision.open_part(source, part, cache)
    classes = getattr(dataset, "classes", None)
    former = tuple(str(name) for name in classes) if isinstance(classes, (list, tuple)) else None
    return Part(samples=dataset, class_names=torchvision.class_names(dataset), former_names=former)


def _digits() -> Part:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    grey = (bunch.images * 255 / 16).round().astype("uint8")  # (1797, 8, 8), 16 is white
    samples = [
        (PIL.Image.fromarray(pixels), int(label)) for pixels, label in zip(grey, bunch.target, strict=True)
    ]
    names = tuple("0123456789")
    return Part(samples=samples, class_names=names, former_names=names)
