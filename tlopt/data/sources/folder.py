"""Images in folders: which file is an image of which class and split. Nothing is read here but names."""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tlopt.data.dataset import Role
from tlopt.errors import DataError

EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".jp2"),
    *(".tga", ".ppm", ".pgm", ".pbm"),
)

EXPECTED = (
    "expected is one folder for each class with its images inside, either directly (flowers/rose/1.jpg)"
    " or in train/ and optionally val/ and test/ (flowers/train/rose/1.jpg)"
)

_ROLES: dict[str, Role] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
_JUNK = frozenset({"__macosx", "thumbs.db", "desktop.ini"})
_NAMED_AT_MOST = 5


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A file that ought to be an image."""

    path: Path
    class_name: str
    split: Role


@dataclass(frozen=True, kw_only=True)
class Tree:
    """What a folder holds."""

    class_names: tuple[str, ...]
    entries: tuple[Entry, ...]
    notices: tuple[str, ...]


def list_folder(root: Path) -> Tree:
    """The images under `root` by class and split.

    Class names are the folders' names in Unicode's composed form (NFC), sorted by code points; folders inside
    a class folder belong to the class. Hidden files and what operating systems leave behind are passed over.

    Raises:
        DataError: there is no such folder, the layout is another one, a class is empty, there is only
            one, or a class has no training images.
    """
    _check_folder(root)
    folders, strays = _children(root)
    _refuse_detection(root, folders)
    splits, others = _split_folders(root, folders)
    notices = [f"{root / name} is beside train/ and left out" for name in others]
    entries: list[Entry] = []
    for role, folder in splits.items():
        classes, beside = _children(folder)
        _refuse_detection(folder, classes)
        strays += [] if folder == root else beside
        for name in classes:
            found, odd = _class_files(folder / name, required=role in ("train", "trainval"))
            strays += odd
            class_name = unicodedata.normalize("NFC", name)
            entries += [Entry(path=path, class_name=class_name, split=role) for path in found]
    class_names = _check_classes(root, entries)
    return Tree(
        class_names=class_names,
        entries=tuple(entries),
        notices=(*notices, *_stray_notices(root, strays), *_missing_notices(class_names, entries)),
    )


def _check_folder(root: Path) -> None:
    if root.is_file():
        raise DataError(f"{root} is a file: unpack it, or name the folder; {EXPECTED}")
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder")


def _split_folders(root: Path, folders: list[str]) -> tuple[dict[Role, Path], list[str]]:
    """The folder of each split and the names beside them; `root` itself is "trainval" without split folders.

    A folder is a split's only with folders inside: beside bus/ and car/, train/ may be a class.
    """
    named = [name for name in folders if name.casefold() in _ROLES]
    if not any(_children(root / name)[0] for name in named):
        if named and len(named) == len(folders):
            raise DataError(f"{root / named[0]} holds no class folders; {EXPECTED}")
        whole = [root / name for name in folders if "train" in _children(root / name)[0]]
        if whole:
            raise DataError(f"{whole[0]} holds train/ itself: is it the folder you mean? {EXPECTED}")
        return {"trainval": root}, []
    splits: dict[Role, Path] = {}
    for name in named:
        role = _ROLES[name.casefold()]
        if role in splits:
            raise DataError(f"{splits[role]} and {root / name} name the same split: keep one of them")
        splits[role] = root / name
    if "train" not in splits:
        raise DataError(f"{root} has {', '.join(named)} and no train/; {EXPECTED}")
    if "val" not in splits:
        splits["trainval"] = splits.pop("train")
    return splits, [name for name in folders if name not in named]


def _refuse_detection(folder: Path, names: list[str]) -> None:
    lower = {name.casefold() for name in names}
    if "images" in lower and lower & {"labels", "annotations"}:
        raise DataError(
            f"{folder} has images/ beside labels/ or annotations/, the layout of detection; {EXPECTED}"
        )


def _children(folder: Path) -> tuple[list[str], list[Path]]:
    """Names of the folders in `folder`, sorted, and paths of the files, sorted; without junk."""
    try:
        with os.scandir(folder) as scan:
            entries = [entry for entry in scan if not _is_junk(entry.name)]
    except OSError as error:
        raise DataError(f"{folder} cannot be listed: {error.strerror or error}") from error
    folders = sorted(entry.name for entry in entries if entry.is_dir())
    return folders, [Path(path) for path in sorted(entry.path for entry in entries if not entry.is_dir())]


def _is_junk(name: str) -> bool:
    return name.startswith(".") or name.casefold() in _JUNK


def _class_files(folder: Path, *, required: bool) -> tuple[list[Path], list[Path]]:
    """The image files anywhere under a class folder, and the other files."""
    files = list(_walk(folder, set()))
    images = [path for path in files if _is_image(path)]
    others = [path for path in files if not _is_image(path)]
    if required and not images:
        only = f", only {_kinds(others)} files" if others else ""
        raise DataError(f"{folder}: the class folder is empty of images{only}: fill it or remove it")
    return images, others


def _walk(folder: Path, above: set[str]) -> Iterator[Path]:
    real = os.path.realpath(folder)
    if real in above:  # a link that leads back up
        return
    folders, files = _children(folder)
    yield from files
    for name in folders:
        yield from _walk(folder / name, above | {real})


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in EXTENSIONS


def _check_classes(root: Path, entries: list[Entry]) -> tuple[str, ...]:
    training = {entry.class_name for entry in entries if entry.split in ("train", "trainval")}
    for entry in entries:
        if entry.class_name not in training:
            raise DataError(
                f'{entry.path.parent}: the class "{entry.class_name}" of {entry.split} is not in train:'
                " add training images or remove the folder"
            )
    if len(training) >= 2:
        return tuple(sorted(training))
    tables = [path.name for path in _children(root)[1] if path.suffix.lower() in (".csv", ".tsv", ".json")]
    table = f"; labels in a table ({tables[0]}) are not read" if tables else ""
    count = "only one class" if training else "no class folders with images"
    raise DataError(f"{root} has {count}{table}; {EXPECTED}")


def _stray_notices(root: Path, strays: list[Path]) -> Iterator[str]:
    loose = [path for path in strays if _is_image(path)]
    others = [path for path in strays if not _is_image(path)]
    if loose:
        yield f"{len(loose)} images lie beside the class folders and are left out: {_names(root, loose)}"
    if others:
        yield f"{len(others)} files are no images by their names and are left out: {_names(root, others)}"


def _missing_notices(class_names: tuple[str, ...], entries: list[Entry]) -> Iterator[str]:
    roles = {entry.split for entry in entries}
    counts = Counter((entry.split, entry.class_name) for entry in entries)
    for role in ("val", "test"):
        missing = [name for name in class_names if not counts[role, name]]
        if role in roles and missing:
            yield f"{role} has no images of {_listed(missing)}"


def _names(root: Path, paths: list[Path]) -> str:
    return _listed([str(path.relative_to(root)) for path in paths])


def _listed(names: list[str]) -> str:
    more = [f"and {len(names) - _NAMED_AT_MOST} more"] if len(names) > _NAMED_AT_MOST else []
    return ", ".join([*names[:_NAMED_AT_MOST], *more])


def _kinds(paths: Iterable[Path]) -> str:
    return ", ".join(sorted({path.suffix.lower() or path.name for path in paths}))
