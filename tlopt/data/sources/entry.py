"""Image files with classes and splits from a folder or a table, before they are read."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tlopt.data.dataset import Role
from tlopt.data.decode import HEIF
from tlopt.system.words import counted, joined

PLAIN_EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".jp2"),
    *(".tga", ".ppm", ".pgm", ".pbm"),
)
HEIF_EXTENSIONS = (".heic", ".heif", ".hif")
# Without the package for HEIC, such files are left out with a notice.
EXTENSIONS = (*PLAIN_EXTENSIONS, *HEIF_EXTENSIONS) if HEIF else PLAIN_EXTENSIONS

ROLES: dict[str, Role] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A file that should be an image."""

    path: Path
    class_name: str
    split: Role
    group: str = ""  # see `dataset.Image`, as for `fold`
    fold: str = ""


@dataclass(frozen=True, kw_only=True)
class Entries:
    """The image files of a source."""

    root: Path  # folder to which paths in messages and patterns for groups are relative
    class_names: tuple[str, ...]
    entries: tuple[Entry, ...]
    notices: tuple[str, ...]


def is_image(path: Path) -> bool:
    """Whether a file has the extension of an image."""
    return path.suffix.lower() in EXTENSIONS


def below(root: Path, paths: Iterable[Path]) -> str:
    """The first few paths, relative to `root`."""
    return joined([os.path.relpath(path, root) for path in paths])


def left_out(root: Path, paths: Sequence[Path]) -> str:
    """A notice on files without a known image extension."""
    heif = [path for path in paths if path.suffix.lower() in HEIF_EXTENSIONS]
    which = counted(len(heif), "is a HEIC image", "are HEIC images")
    cure = f'; {which}, read with pip install "tlopt[heif]"' if heif else ""
    return (
        f"{counted(len(paths), 'file')} without a known image extension left out: {below(root, paths)}{cure}"
    )


def training_classes(entries: Iterable[Entry]) -> tuple[str, ...]:
    """Names of the classes that have training images, sorted by code points."""
    return tuple(sorted({entry.class_name for entry in entries if entry.split in ("train", "trainval")}))


def missing_notices(class_names: Sequence[str], entries: Iterable[Entry]) -> Iterator[str]:
    """A notice for each of val and test in which classes are missing."""
    counts = Counter((entry.split, entry.class_name) for entry in entries)
    roles = {role for role, _ in counts}
    for role in ("val", "test"):
        missing = [name for name in class_names if not counts[role, name]]
        if role in roles and missing:
            yield f"{role} has no images of {joined(missing)}"
