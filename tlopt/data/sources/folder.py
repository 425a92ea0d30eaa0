"""Listing of images in folders, by the names of folders and files only."""

import os
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

from tlopt.data.dataset import Role
from tlopt.data.sources.entry import (
    HEIF_EXTENSIONS,
    ROLES,
    Entries,
    Entry,
    below,
    is_image,
    left_out,
    missing_notices,
    training_classes,
)
from tlopt.errors import DataError
from tlopt.spec.sections import TABLE_SUFFIXES
from tlopt.system.words import counted, joined

EXPECTED = (
    "expected is one folder for each class with its images inside, either directly (flowers/rose/1.jpg)"
    " or in train/ and optionally val/ and test/ (flowers/train/rose/1.jpg)"
)

_OF_EXPORT = "preprocessing.json"  # a file that every export of tlopt has
_JUNK = frozenset({"__macosx", "thumbs.db", "desktop.ini"})


def list_folder(root: Path) -> Entries:
    """The images under `root` by class and split.

    Class names are the names of folders in Unicode's composed form (NFC), sorted by code points; folders
    inside a class folder belong to the class. Hidden files and files of operating systems are skipped.

    Raises:
        DataError: the folder does not exist or has another layout, there is only one class, or a class has no
            training images.
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
    class_names = _class_names(root, entries)
    notices += [*_fold_notices(splits), *_stray_notices(root, strays), *missing_notices(class_names, entries)]
    return Entries(root=root, class_names=class_names, entries=tuple(entries), notices=tuple(notices))


def _check_folder(root: Path) -> None:
    # os.path also returns False for names that are too long or contain a null byte
    if os.path.isfile(root):
        raise DataError(
            f"{root} is a file: unpack it, or name the folder, or a table of files and labels (.csv, .tsv,"
            f" .jsonl, .parquet); {EXPECTED}"
        )
    if not os.path.isdir(root):
        raise DataError(f"{root}: there is no such folder")


def _split_folders(root: Path, folders: list[str]) -> tuple[dict[Role, Path], list[str]]:
    """The folder of each split, and the other names; without split folders, `root` itself is "trainval".

    A folder for a split must contain folders: next to bus/ and car/, train/ may be a class.
    """
    named = [name for name in folders if name.casefold() in ROLES]
    if not any(_children(root / name)[0] for name in named):
        if named and len(named) == len(folders):
            raise DataError(f"{root / named[0]} holds no class folders; {EXPECTED}")
        whole = [root / name for name in folders if "train" in _children(root / name)[0]]
        if whole:
            raise DataError(f"{whole[0]} holds train/ itself: is it the folder you mean? {EXPECTED}")
        return {"trainval": root}, []
    splits: dict[Role, Path] = {}
    for name in named:
        role = ROLES[name.casefold()]
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
    is_folder = {entry.name: _is_folder(entry) for entry in entries}
    folders = sorted(name for name, is_one in is_folder.items() if is_one)
    return folders, [folder / name for name in sorted(is_folder) if not is_folder[name]]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads back to itself
        return False


def _is_junk(name: str) -> bool:
    return name.startswith(".") or name.casefold() in _JUNK


def _class_files(folder: Path, *, required: bool) -> tuple[list[Path], list[Path]]:
    """The image files anywhere under a class folder, and the other files."""
    files = list(_walk(folder, set()))
    images = [path for path in files if is_image(path)]
    others = [path for path in files if not is_image(path)]
    if required and not images:
        heif = any(path.suffix.lower() in HEIF_EXTENSIONS for path in others)
        cure = ' (pip install "tlopt[heif]" reads them)' if heif else ""
        only = f", only {_kinds(others)} files{cure}" if others else ""
        raise DataError(f"{folder}: the class folder contains no images{only}: fill it or remove it")
    return images, others


def _walk(folder: Path, above: set[str]) -> Iterator[Path]:
    real = os.path.realpath(folder)
    if real in above:  # a link that leads back up
        return
    folders, files = _children(folder)
    yield from files
    for name in folders:
        yield from _walk(folder / name, above | {real})


def _class_names(root: Path, entries: list[Entry]) -> tuple[str, ...]:
    training = training_classes(entries)
    for entry in entries:
        if entry.class_name not in training:
            raise DataError(
                f'{entry.path.parent}: the class "{entry.class_name}" of {entry.split} is not in train:'
                " add training images or remove the folder"
            )
    if len(training) >= 2:
        return training
    if (root / _OF_EXPORT).is_file():
        raise DataError(
            f"{root} is an export of tlopt, not a folder of images: tlopt predict {root} IMAGES uses its"
            f" network, and tlopt fit STUDY --against {root} compares it with the pretrained one"
        )
    tables = [path for path in _children(root)[1] if path.name.lower().endswith(TABLE_SUFFIXES)]
    table = f'; if the labels are in {tables[0].name}, name it: source = "{tables[0]}"' if tables else ""
    count = "only one class" if training else "no class folders with images"
    raise DataError(f"{root} has {count}{table}; {EXPECTED}")


def _fold_notices(splits: dict[Role, Path]) -> Iterator[str]:
    """A notice if all class folders contain the same folders, which may be the classes or folds."""
    for folder in splits.values():
        names = _children(folder)[0]
        inner = {tuple(_children(folder / name)[0]) for name in names}
        inside = inner.pop()
        if len(names) > 1 and not inner and len(inside) > 1:
            yield (
                f"each of the classes {joined(names)} holds the same folders ({joined(inside)}): if those are"
                " the classes and these are folds, label the images by a table and keep folds together by"
                " group_column"
            )
            return


def _stray_notices(root: Path, strays: list[Path]) -> Iterator[str]:
    loose = [path for path in strays if is_image(path)]
    others = [path for path in strays if not is_image(path)]
    if loose:
        yield (
            f"{counted(len(loose), 'image lies', 'images lie')} beside the class folders, left out:"
            f" {below(root, loose)}"
        )
    if others:
        yield left_out(root, others)


def _kinds(paths: Iterable[Path]) -> str:
    return ", ".join(sorted({path.suffix.lower() or path.name for path in paths}))
