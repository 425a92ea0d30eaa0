"""The study file of a follow-up study: an earlier file with other ranges, each with its reason beside it.

Only what changes is touched: order, comments and layout of the earlier file stay. TOML is edited with
tomlkit; comments are lines of text, which are inserted last and only where the file still means the same.
"""

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, assert_never

import tomlkit

from tlopt.spec.dimensions import Choice, Dimension, Fixed, Int, Log, Uniform

MARK = "# tlopt next: "  # begins each comment, so that the next follow-up takes it away
_KIND = {Int: "int", Uniform: "uniform", Log: "log"}


@dataclass(frozen=True, kw_only=True)
class NewRange:
    """The new dimension of a key of [search], or of the backbone, and the reason in one line."""

    key: str
    dimension: Dimension
    reason: str


def next_file(text: str, ranges: Sequence[NewRange], *, name: str, earlier: str, title: str) -> str:
    """The text of a study file for the study `name`, begun with the trials of `earlier`.

    Args:
        text: a valid study file.
        title: a line of comment at its head.
    """
    document = tomlkit.parse(_without_former(text))
    document["name"] = name
    document["warm_start"] = earlier
    for each in ranges:
        table: Any = document["model"] if each.key == "backbone" else document["search"]
        _set(table, each.key, each.dimension)
    edited = document.as_string()
    for each in ranges:
        section = "model" if each.key == "backbone" else "search"
        edited = _with_comment(edited, section, each.key, each.reason)
    return _with_head(edited, title)


def _set(table: Any, key: str, dimension: Dimension) -> None:
    """Replace a key's dimension, within its own table and array where its kind stays."""
    match dimension:
        case Fixed(value):
            table[key] = value
        case Choice(options):
            table[key]["choice"] = list(options)
        case Int(low, high) | Uniform(low, high) | Log(low, high):
            ends = table[key][_KIND[type(dimension)]]
            for index, value in enumerate((low, high)):
                if ends[index] != value:
                    ends[index] = value
            if isinstance(dimension, Log) and table[key].get("zero", False) != dimension.zero:
                table[key]["zero"] = False
        case _:
            assert_never(dimension)


def _with_comment(text: str, section: str, key: str, comment: str) -> str:
    """`text` with a comment above the line of a key, or at its head if there is no such line."""
    lines = text.splitlines(keepends=True)
    for index in _lines_of(lines, section, key):
        indent = re.match(r"\s*", lines[index])
        line = f"{indent[0] if indent else ''}{MARK}{comment}\n"
        edited = "".join([*lines[:index], line, *lines[index:]])
        if _same(edited, text):
            return edited
    return _with_head(text, f"{section}.{key}: {comment}")


def _lines_of(lines: Sequence[str], section: str, key: str) -> list[int]:
    """Indices of lines that seem to give the key: in its table, as a table of its own, or with dots."""
    quoted = rf"(?:{key}|\"{key}\"|'{key}')"
    found, table = [], ""
    for index, line in enumerate(lines):
        if header := re.match(r"\s*\[\s*([^\[\]]+?)\s*\]", line):
            table = header[1]
            if re.fullmatch(rf"{section}\s*\.\s*{quoted}", table):
                found.append(index)
        elif (table == section and re.match(rf"\s*{quoted}\s*[.=]", line)) or (
            not table and re.match(rf"\s*{section}\s*\.\s*{quoted}\s*[.=]", line)
        ):
            found.append(index)
    return found


def _with_head(text: str, comment: str) -> str:
    """`text` with a comment at its head, below a line that names the schema."""
    first, rest = "", text
    if text.startswith("#:schema"):
        first, mark, rest = text.partition("\n")
        first += mark or "\n"
    return f"{first}{MARK}{comment}\n{rest}"


def _without_former(text: str) -> str:
    """`text` without the comments that an earlier call has left."""
    lines = text.splitlines(keepends=True)
    edited = "".join(line for line in lines if not line.lstrip().startswith(MARK))
    return edited if _same(edited, text) else text


def _same(edited: str, text: str) -> bool:
    try:
        return tomllib.loads(edited) == tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
