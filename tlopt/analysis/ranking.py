"""The best points of a study as configs: confirmed ones first, then the search's; as TOML, JSON or YAML."""

import json
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from tlopt.confirmation.verdict import Spread, Verdict
from tlopt.errors import SpecError
from tlopt.search.fixed_study import fixed_study, name_of_point
from tlopt.spec import Study
from tlopt.spec.objectives import cost, measured
from tlopt.spec.point import Point
from tlopt.storage.attributes import TrialRecord, best_first
from tlopt.system.atomic import write_atomically

Format = Literal["toml", "json", "yaml"]


@dataclass(frozen=True, kw_only=True)
class Best:
    """One point with its known values."""

    label: str  # "trial 12", or the label of a default
    trial: int | None  # its number in the search; None for a default that the search did not run
    point: Point
    value: float | None  # of its trial on validation; optimistic until it is confirmed
    seconds: float | None  # of work on its trial
    confirmed: dict[str, Spread]  # the objective by split, over seeds; empty before the confirmation

    def as_dict(self, study: Study) -> dict[str, Any]:
        """Plain values for JSON, with the point's study file; see `measured` for the digits of values."""
        values = {
            "study": study.name,
            "digest": study.digest,
            "objective": study.objective,
            "label": self.label,
            "trial": self.trial,
            "value": self.value,
            "seconds": self.seconds,
            "confirmed": {
                split: {"mean": spread.mean, "std": spread.std if spread.n > 1 else None, "n": spread.n}
                for split, spread in self.confirmed.items()
            },
            "config": tomllib.loads(self.config(study)),
        }
        return dict(measured(values))

    def config(self, study: Study) -> str:
        """The study file in which this point is the only one."""
        return fixed_study(study, self.point, name=name_of_point(study, self.label))


def ranking(study: Study, trials: Sequence[TrialRecord], verdict: Verdict | None) -> list[Best]:
    """Complete points: the chosen one, confirmed ones by their mean on validation, the search's by value.

    Args:
        trials: of the search.
        verdict: of a finished confirmation; None before.

    Raises:
        StorageError: a later version wrote one of the points.
    """
    records = {trial.number: trial for trial in trials}
    rows = [] if verdict is None else list(_confirmed(verdict, records))
    known = {row.trial for row in rows}
    return rows + [_searched(t, study) for t in best_first(trials, study.direction) if t.number not in known]


def pareto(study: Study, rows: Sequence[Best]) -> list[Best]:
    """The rows that no other row beats in both value and seconds of work, fastest first."""
    timed = [
        (row.seconds, cost(row.value, study.direction), row)
        for row in rows
        if row.seconds is not None and row.value is not None
    ]
    front: list[Best] = []
    best = float("inf")
    for _, row_cost, row in sorted(timed, key=lambda item: item[:2]):
        if row_cost < best:
            front.append(row)
            best = row_cost
    return front


def configs_text(study: Study, rows: Sequence[Best], form: Format, *, several: bool) -> str:
    """`rows` as the text of one file.

    Args:
        several: write a list, even of one row; otherwise only the first row.

    Raises:
        SpecError: several points were requested as TOML, which takes one file for each.
    """
    if form == "toml" and several:
        raise SpecError("several points make several TOML files: name a folder, or use --format json or yaml")
    if form == "toml":
        return rows[0].config(study)
    value: Any = [row.as_dict(study) for row in rows] if several else rows[0].as_dict(study)
    if form == "json":
        return json.dumps(value, indent=2, allow_nan=False) + "\n"
    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True))


def write_files(
    study: Study, rows: Sequence[Best], form: Format, folder: Path, *, overwrite: bool
) -> list[Path]:
    """Write one file for each of `rows`, named by rank and label.

    Raises:
        SpecError: a file exists and may not be replaced.
    """
    named = [
        (folder / f"{rank}-{row.label.replace(' ', '-')}.{form}", row) for rank, row in enumerate(rows, 1)
    ]
    for path, _ in named:
        if path.exists() and not overwrite:
            raise SpecError(f"{path} exists; --overwrite replaces it")
    folder.mkdir(parents=True, exist_ok=True)
    for path, row in named:
        write_atomically(path, configs_text(study, [row], form, several=False))
    return [path for path, _ in named]


def _confirmed(verdict: Verdict, records: dict[int, TrialRecord]) -> Iterator[Best]:
    for row in verdict.rows:
        record = records.get(row.number)
        spreads = {split: row.spread(verdict.objective, split=split) for split in ("val", "test")}
        if spreads["val"] is not None:
            yield Best(
                label=row.label,
                trial=None if record is None else record.number,
                point=row.point,
                value=None if record is None else record.value,
                seconds=None if record is None else record.seconds,
                confirmed={split: spread for split, spread in spreads.items() if spread is not None},
            )


def _searched(trial: TrialRecord, study: Study) -> Best:
    return Best(
        label=trial.label or f"trial {trial.number}",
        trial=trial.number,
        point=Point.stored(trial.point, f"trial {trial.number} of {study.name}"),
        value=trial.value,
        seconds=trial.seconds,
        confirmed={},
    )
