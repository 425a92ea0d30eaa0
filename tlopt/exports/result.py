"""result.json of an export: all measurements, and the exported point. Needs no torch."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tlopt.confirmation.verdict import Verdict
from tlopt.confirmation.verdict_json import from_dict
from tlopt.errors import DataError

FORMAT = 1  # version of the folder's format, raised if an older tlopt cannot use a newer export
FORMAT_WITH_BITS = 2  # for 16-bit images with fewer significant bits, unknown to format 1
FORMAT_COMPACT = 3  # for networks with fewer channels than their backbone, unknown to formats 1 and 2
FORMAT_ENSEMBLE = 4  # for several networks as one, unknown to formats 1 to 3
RESULT = "result.json"

# Keys that commands read, with their types; files of earlier versions may lack all others.
_REQUIRED: Mapping[str, type] = {"study": dict, "point": dict, "data": dict, "weights": dict, "verdict": dict}


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`.

    Raises:
        DataError: the file is damaged; says how and what to do.
    """
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is damaged: {error}; export again") from error
    if not isinstance(value, dict):
        raise DataError(f"{path} is damaged: not an object; export again")
    return value


def read_result(folder: Path) -> dict[str, Any]:
    """The content of result.json in the export `folder`, checked for the tables that commands read.

    Raises:
        DataError: the file is damaged or written by a newer tlopt.
    """
    path = folder / RESULT
    result = read_json(path)
    if result.get("format") not in (FORMAT, FORMAT_WITH_BITS, FORMAT_COMPACT, FORMAT_ENSEMBLE):
        known = f"{FORMAT} to {FORMAT_ENSEMBLE}"
        raise DataError(
            f"{path}: format {result.get('format')!r} is unknown; this tlopt reads {known}; upgrade tlopt"
        )
    for key, kind in _REQUIRED.items():
        if not isinstance(result.get(key), kind):
            raise DataError(f"{path} is damaged: no table {key!r}; export again")
    return result


def read_exported_verdict(folder: Path) -> Verdict:
    """The verdict in the export `folder`.

    Raises:
        DataError: result.json is damaged or written by a newer tlopt.
    """
    result = read_result(folder)
    try:
        return from_dict(result["verdict"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{folder / RESULT} is damaged ({type(error).__name__}: {error}); export again"
        ) from error
