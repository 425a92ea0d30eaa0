"""All trials of a study as one table, for spreadsheets and data frames: CSV or Parquet."""

import csv
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TextIO

from tlopt.errors import MissingExtra, SpecError
from tlopt.spec.objectives import measured
from tlopt.storage.attributes import TrialRecord
from tlopt.system.atomic import replacing_file

_PLAIN = (
    *("number", "outcome", "value", "label", "cause", "best_epoch", "best_value", "last_epoch", "train_loss"),
    *("seconds", "worker", "device", "started", "finished"),
)


def rows(trials: Iterable[TrialRecord]) -> list[dict[str, Any]]:
    """One row per trial: its record, with violations, metrics, costs and point by name; unknown: None."""
    found = [
        {name: getattr(trial, name) for name in _PLAIN}
        | {"state": trial.state.name.lower(), "notes": "; ".join(trial.notes)}
        | {f"violation.{name}": value for name, value in trial.violations.items()}
        | {f"metric.{name}": value for name, value in trial.metrics.items()}
        | {f"cost.{name}": value for name, value in trial.inference_cost.items()}
        | {f"point.{name}": value for name, value in (trial.point or {}).items()}
        for trial in trials
    ]
    columns = list(dict.fromkeys(name for row in found for name in row))
    return [{name: row.get(name) for name in columns} for row in found]


def write_csv(table: Sequence[dict[str, Any]], file: TextIO) -> None:
    """Write `table` with a header; times as ISO 8601, unknown values empty.

    Measured numbers have six significant digits; a point's values are exact.
    """
    writer = csv.DictWriter(file, fieldnames=list(table[0]) if table else list(_PLAIN))
    writer.writeheader()
    writer.writerows({name: _csv(name, value) for name, value in row.items()} for row in table)


def write_parquet(table: Sequence[dict[str, Any]], path: Path) -> None:
    """Write `table`.

    Raises:
        MissingExtra: pyarrow is not installed.
    """
    if find_spec("pyarrow") is None:
        raise MissingExtra("Parquet needs pyarrow: pip install 'tlopt[parquet]'; .csv needs nothing")
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(list(table)), path)


def write(table: Sequence[dict[str, Any]], path: Path, *, overwrite: bool) -> None:
    """Write `table` in the format that the suffix of `path` names.

    Raises:
        SpecError: the suffix is neither .csv nor .parquet, or the file exists.
        MissingExtra: pyarrow is not installed.
    """
    if path.suffix not in (".csv", ".parquet"):
        raise SpecError(f"{path}: the suffix must be .csv or .parquet")
    if path.exists() and not overwrite:
        raise SpecError(f"{path} exists; --overwrite replaces it")
    if path.suffix == ".parquet":
        with replacing_file(path) as part:
            write_parquet(table, part)
        return
    with replacing_file(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        write_csv(table, file)


def _csv(name: str, value: Any) -> Any:
    if hasattr(value, "isoformat"):
        return value.isoformat(timespec="seconds")
    return value if name.startswith("point.") else measured(value)
