"""Reading of label tables with line numbers: CSV, TSV, JSON lines and Parquet."""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlopt.data.files import read_regular
from tlopt.errors import DataError, MissingExtra
from tlopt.system.words import counted


@dataclass(frozen=True, kw_only=True)
class TableRows:
    """A table as text, with "" for missing values."""

    columns: tuple[str, ...]
    rows: tuple[
        tuple[int, dict[str, str]], ...
    ]  # number of the line (of a Parquet file the row, from 1), cells
    nested: dict[str, int]  # columns with lists or objects, and their first line


def read_rows(path: Path) -> TableRows:
    """The table in the file `path`, in the format of its suffix.

    Raises:
        DataError: the file cannot be read as such a table; names the line.
        MissingExtra: Parquet without pyarrow.
    """
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return _parquet(path)
    text = _text(path)
    if suffix in (".jsonl", ".ndjson"):
        return _collected(list(_json_lines(path, text)))
    return _delimited(path, text, "\t" if suffix == ".tsv" else None)


def _text(path: Path) -> str:
    try:
        return read_regular(path).decode("utf-8-sig")
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 ({error.reason}, byte {error.start}): save it as UTF-8"
        ) from error


def _delimited(path: Path, text: str, delimiter: str | None) -> TableRows:
    head = text.partition("\n")[0]
    # Spreadsheets write semicolons in locales with a decimal comma.
    delimiter = delimiter or (";" if ";" in head and "," not in head else ",")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[tuple[int, dict[str, str]]] = []
    columns: list[str] = []
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if not columns:
                columns = [cell.strip() for cell in cells]
            elif len(cells) != len(columns):
                raise DataError(
                    f"{path}, line {reader.line_num}: {counted(len(cells), 'value')} for"
                    f" {counted(len(columns), 'column')}"
                )
            else:
                rows.append(
                    (reader.line_num, dict(zip(columns, (cell.strip() for cell in cells), strict=True)))
                )
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}") from error
    if len(set(columns)) < len(columns):
        double = next(name for name in columns if columns.count(name) > 1)
        raise DataError(f'{path}: two columns are called "{double}": rename one')
    return TableRows(columns=tuple(columns), rows=tuple(rows), nested={})


def _json_lines(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}, line {number}: not valid JSON: {error}") from error
        if not isinstance(value, dict):
            raise DataError(f"{path}, line {number}: not a JSON object with file and label")
        yield number, value


def _parquet(path: Path) -> TableRows:
    try:
        from pyarrow import ArrowException, BufferReader, parquet
    except ImportError as error:
        raise MissingExtra(f'{path} needs pyarrow: pip install "tlopt[parquet]"') from error
    try:
        table = parquet.read_table(BufferReader(read_regular(path)))
    except (ArrowException, OSError, DataError) as error:
        raise DataError(f"{path} cannot be read as a Parquet table: {error}") from error
    return _collected(list(enumerate(table.to_pylist(), 1)))


def _collected(rows: list[tuple[int, dict[str, Any]]]) -> TableRows:
    columns = tuple(dict.fromkeys(name for _, row in rows for name in row))
    nested: dict[str, int] = {}
    for number, row in rows:
        for name, value in row.items():
            if isinstance(value, (list, tuple, dict, bytes)):
                nested.setdefault(name, number)
    return TableRows(
        columns=columns,
        rows=tuple((number, {name: _cell(row.get(name)) for name in columns}) for number, row in rows),
        nested=nested,
    )


def _cell(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case float() if value != value:  # NaN: a missing value in a data frame
            return ""
        case float() if value.is_integer():  # integers in a column with missing values
            return str(int(value))
        case _:
            return str(value).strip()
