"""Listing of images in a label table, by its columns for file, class, split, group and fold."""

import difflib
import os
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tlopt.data.dataset import Role
from tlopt.data.sources.entry import EXTENSIONS, ROLES, Entries, Entry, missing_notices, training_classes
from tlopt.data.sources.table_rows import TableRows, read_rows
from tlopt.errors import DataError
from tlopt.spec.sections import DataSpec
from tlopt.spec.text import user_path
from tlopt.system.words import counted, joined

# Column names that are recognised, in order of preference; case-insensitive.
_KNOWN: dict[str, tuple[tuple[str, ...], ...]] = {
    "file_column": (
        (
            "file_name",
            "filename",
            "file",
            "file_path",
            "filepath",
            "path",
            "image_path",
            "image_name",
            "image",
        ),
        ("image_id", "id"),
    ),
    "label_column": (("label", "class", "class_name", "category", "target"),),
    "split_column": (("split", "subset"),),
    "group_column": (("group", "group_id", "patient", "patient_id", "subject", "subject_id"),),
    "fold_column": (),  # none: a column called "fold" may belong to another study
}
_REQUIRED = {"file_column": "names the image file", "label_column": "names the class"}
_WORDS = {
    "file_column": "file",
    "label_column": "class",
    "split_column": "split",
    "group_column": "group",
    "fold_column": "fold",
}


@dataclass(frozen=True, kw_only=True)
class _Row:
    line: int
    path: Path
    label: str
    split: str  # as written in the table
    group: str
    fold: str


def list_table(spec: DataSpec) -> Entries:
    """The images in the table `spec.source`, by the columns in `spec` or else by well-known names.

    File names are relative to `images_root`, or else to the table's folder; a name without a suffix means the
    one image with this stem.

    Raises:
        DataError: the table cannot be read, a column is missing or ambiguous, or rows cannot be used; names
            their lines.
        MissingExtra: Parquet without pyarrow.
    """
    path = user_path(spec.source).absolute()
    root = user_path(spec.images_root).absolute() if spec.images_root else path.parent
    if not os.path.isdir(root):
        raise DataError(f"{root} (data.images_root): there is no such folder")
    table = read_rows(path)
    columns = _columns(path, table, spec)
    rows = _resolved(path, root, table, columns)
    roles = _roles(path, rows, has_split=bool(columns["split_column"]))
    once, doubled = _without_repeats(path, rows)
    entries = [
        Entry(
            path=row.path,
            class_name=unicodedata.normalize("NFC", row.label),
            split=roles[row.split],
            group=row.group,
            fold=row.fold,
        )
        for row in once
    ]
    class_names = _class_names(path, once, entries)
    read = ", ".join(f'{word} from "{columns[key]}"' for key, word in _WORDS.items() if columns[key])
    notices = [f"of the table, {read}", *doubled, *missing_notices(class_names, entries)]
    return Entries(root=root, class_names=class_names, entries=tuple(entries), notices=tuple(notices))


def _columns(path: Path, table: TableRows, spec: DataSpec) -> dict[str, str]:
    """The column of each key, "" if there is none."""
    if not table.rows:
        raise DataError(f"{path} has no rows")
    found = {}
    for key in _KNOWN:
        wanted = getattr(spec, key)
        # Groups are defined by a folder level or a pattern.
        skips = key == "group_column" and bool(spec.group_folder or spec.group_pattern)
        found[key] = _given(path, table, key, wanted) if wanted else "" if skips else _known(path, table, key)
    for key, column in found.items():
        if column in table.nested:
            raise DataError(
                f'{path}, line {table.nested[column]}: "{column}" holds several values'
                + (": tlopt learns one class per image" if key == "label_column" else "")
            )
    return found


def _given(path: Path, table: TableRows, key: str, wanted: str) -> str:
    if wanted in table.columns:
        return wanted
    close = difflib.get_close_matches(wanted, table.columns, n=1)
    hint = f'; did you mean "{close[0]}"?' if close else ""
    raise DataError(
        f'{path} has no column "{wanted}" (data.{key}); its columns are {joined(table.columns)}{hint}'
    )


def _known(path: Path, table: TableRows, key: str) -> str:
    for names in _KNOWN[key]:
        found = [column for column in table.columns if column.casefold() in names]
        if len(found) > 1:
            raise DataError(
                f"{path}: {' and '.join(found)} could each be the {_WORDS[key]}: choose one by data.{key}"
            )
        if found:
            return found[0]
    if key in _REQUIRED:
        raise DataError(
            f"{path}: which column {_REQUIRED[key]}? Name it by data.{key} (tlopt init --data"
            f" {key}=NAME); the columns are {joined(table.columns)}"
        )
    return ""


def _resolved(path: Path, root: Path, table: TableRows, columns: Mapping[str, str]) -> list[_Row]:
    stems = _Stems(root)
    rows, problems = [], defaultdict(list)
    for line, cells in table.rows:
        values = {key: cells[column] if column else "" for key, column in columns.items()}
        for key in ("file_column", "label_column", "group_column", "fold_column"):
            if columns[key] and not values[key]:
                problems[f"has no {_WORDS[key]}", f"have no {_WORDS[key]}"].append((line, ""))
        name = values["file_column"]
        files = stems.find(name) if name else []
        if len(files) > 1:
            several = f"{name}: {joined([file.name for file in files])}"
            problems["names several files", "name several files each"].append((line, several))
        elif not files and name:
            problems[f"names a file that is not in {root}", f"name files that are not in {root}"].append(
                (line, name)
            )
        elif files:
            rows.append(
                _Row(
                    line=line,
                    path=files[0],
                    label=values["label_column"],
                    split=values["split_column"],
                    group=values["group_column"],
                    fold=values["fold_column"],
                )
            )
    for (one, several), where in problems.items():
        raise DataError(f"{path}: {counted(len(where), f'row {one}', f'rows {several}')}: {_lines(where)}")
    return rows


class _Stems:
    """Image files by name, with or without a suffix."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folders: dict[Path, dict[str, list[Path]]] = {}

    def find(self, name: str) -> list[Path]:
        """The file called `name`, or the images with that name and any suffix."""
        exact = Path(os.path.normpath(self._root / name))
        # lexists: a broken link is listed here and reported as unreadable later
        if os.path.lexists(exact) and not os.path.isdir(exact):
            return [exact]
        if exact.suffix.lower() in EXTENSIONS:
            return []
        if exact.parent not in self._folders:
            self._folders[exact.parent] = _by_stem(exact.parent)
        return self._folders[exact.parent].get(exact.name, [])


def _by_stem(folder: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = defaultdict(list)
    try:
        names = sorted(os.listdir(folder))
    except (OSError, ValueError):
        return found
    for name in names:
        stem, suffix = os.path.splitext(name)
        if suffix.lower() in EXTENSIONS:
            found[stem].append(folder / name)
    return found


def _roles(path: Path, rows: Sequence[_Row], *, has_split: bool) -> dict[str, Role]:
    """The role of each value in the split column."""
    if not has_split:
        return {"": "trainval"}
    unknown = [(row.line, row.split or "nothing") for row in rows if row.split.casefold() not in ROLES]
    if unknown:
        raise DataError(
            f"{path}: {counted(len(unknown), 'row has', 'rows have')} an unknown split: {_lines(unknown)};"
            f" allowed are {', '.join(ROLES)}"
        )
    roles = {row.split: ROLES[row.split.casefold()] for row in rows}
    if "train" not in roles.values():
        raise DataError(f"{path}: no row has the split train")
    if "val" not in roles.values():
        roles = {word: "trainval" if role == "train" else role for word, role in roles.items()}
    return roles


def _without_repeats(path: Path, rows: Sequence[_Row]) -> tuple[list[_Row], list[str]]:
    """The rows without repeated ones, and a notice on them.

    Rows that give one file two classes remain: `conflicts` decides about them.

    Raises:
        DataError: a file has two splits, groups or folds.
    """
    first: dict[Path, _Row] = {}
    kept, doubled, torn = [], [], []
    for row in rows:
        other = first.setdefault(row.path, row)
        if other is row or other.label != row.label:
            kept.append(row)
        elif (other.split, other.group, other.fold) == (row.split, row.group, row.fold):
            doubled.append((row.line, row.path.name))
        else:
            torn.append((row.line, f"{row.path.name}, as in line {other.line}"))
    if torn:
        raise DataError(
            f"{path}: {counted(len(torn), 'row gives', 'rows give')} a file another split, group or fold than"
            f" a row before: {_lines(torn)}"
        )
    if not doubled:
        return kept, []
    again = counted(len(doubled), "row names a file again and counts", "rows name a file again and count")
    return kept, [f"{again} once: {_lines(doubled)}"]


def _class_names(path: Path, rows: Sequence[_Row], entries: Sequence[Entry]) -> tuple[str, ...]:
    training = training_classes(entries)
    odd = [
        (row.line, row.label)
        for row, entry in zip(rows, entries, strict=True)
        if entry.class_name not in training
    ]
    if odd:
        raise DataError(
            f"{path}: {counted(len(odd), 'row of val or test has', 'rows of val or test have')} a class that"
            f" train lacks: {_lines(odd)}"
        )
    if len(training) < 2:
        raise DataError(f'{path} has only one class, "{training[0]}"')
    return training


def _lines(where: Sequence[tuple[int, str]]) -> str:
    return joined([f"line {line}" + (f" ({what})" if what else "") for line, what in where])
