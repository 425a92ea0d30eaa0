"""result.json of an export, read without torch: everything that was measured, and what was exported."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tlopt.confirmation.verdict import Verdict, from_dict
from tlopt.errors import DataError

FORMAT = 1  # of the folder; raised when an older tlopt could not use a newer export
FORMAT_WITH_BITS = 2  # where 16-bit images use fewer bits, which the first format has no word for
RESULT = "result.json"

# The keys that some command reads, with the kind of each; an earlier version's file may lack any other.
_WANTED: Mapping[str, type] = {"study": dict, "point": dict, "data": dict, "weights": dict, "verdict": dict}


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`.

    Raises:
        DataError: it is damaged; says how, and what to do.
    """
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is damaged: {error}; export it again") from error
    if not isinstance(value, dict):
        raise DataError(f"{path} is damaged: not an object; export it again")
    return value


def read_result(folder: Path) -> dict[str, Any]:
    """What result.json in the export `folder` holds, with the tables that other commands read.

    Raises:
        DataError: it is damaged, or of a newer tlopt.
    """
    path = folder / RESULT
    result = read_json(path)
    if result.get("format") not in (FORMAT, FORMAT_WITH_BITS):
        known = f"{FORMAT} and {FORMAT_WITH_BITS}"
        raise DataError(f"{path}: format {result.get('format')!r}, this tlopt reads {known} only")
    for key, kind in _WANTED.items():
        if not isinstance(result.get(key), kind):
            raise DataError(f"{path} is damaged: no table {key!r}; export it again")
    return result


def read_verdict(folder: Path) -> Verdict:
    """The verdict in the export `folder`.

    Raises:
        DataError: result.json is damaged, or of a newer tlopt.
    """
    result = read_result(folder)
    try:
        return from_dict(result["verdict"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{folder / RESULT} is damaged, {type(error).__name__}: {error}; export it again"
        ) from error
