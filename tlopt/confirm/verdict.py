"""What a confirmation found: candidates over the same seeds, the chosen one, its gain over the defaults."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tlopt.spec.default_names import PLAIN_LABEL, PROBE_LABEL
from tlopt.spec.point import Point


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation of `n` numbers; `std` is NaN for a single one."""

    mean: float
    std: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """The spread of at least one value."""
        std = statistics.stdev(values) if len(values) > 1 else math.nan
        return cls(statistics.fmean(values), std, len(values))


@dataclass(frozen=True, kw_only=True)
class Confirmed:
    """One candidate, run again with several seeds; lists are in the order of the seeds."""

    number: int  # its trial in the search; below 0 for a default that the search did not run
    label: str  # "trial 12", "linear probe" or "plain fine-tuning"
    point: Point
    seeds: tuple[int, ...]
    val: tuple[dict[str, float], ...]  # metrics by name; empty where a run ended without a value
    test: tuple[
        dict[str, float], ...
    ]  # empty before the test was read, and for candidates it was not read for

    def spread(self, metric: str, *, split: str = "val") -> Spread | None:
        """Of `metric` over the seeds on "val" or "test"; None where it was not measured."""
        rows = self.val if split == "val" else self.test
        return Spread.of([row[metric] for row in rows]) if rows else None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """All candidates, best on validation first; the test is read for the chosen one and the defaults only."""

    study: str
    objective: str
    direction: str  # maximize or minimize
    rows: tuple[Confirmed, ...]
    n_expected: int  # runs that the confirmation consists of
    n_finished: int
    test_readings: int  # how often the test split has been read for this study

    @property
    def finished(self) -> bool:
        """Whether every run has ended."""
        return self.n_finished >= self.n_expected

    @property
    def chosen(self) -> Confirmed:
        """The best candidate by mean validation objective; log-loss breaks ties."""
        return self.rows[0]

    def row(self, label: str) -> Confirmed | None:
        """The candidate called `label`."""
        return next((row for row in self.rows if row.label == label), None)

    def gain(self, label: str, *, split: str) -> Spread | None:
        """By how much the chosen one is better than `label`, seed by seed (positive is better)."""
        other = self.row(label)
        if other is None:
            return None
        ours = self.chosen.val if split == "val" else self.chosen.test
        theirs = other.val if split == "val" else other.test
        if not ours or len(ours) != len(theirs):
            return None
        sign = -1 if self.direction == "minimize" else 1
        return Spread.of(
            [sign * (a[self.objective] - b[self.objective]) for a, b in zip(ours, theirs, strict=True)]
        )


def ranked(rows: Sequence[Confirmed], objective: str, direction: str) -> tuple[Confirmed, ...]:
    """`rows`, best mean validation objective first, then lowest log-loss; those without a value last."""

    def key(row: Confirmed) -> tuple[bool, float, float]:
        value, loss = row.spread(objective), row.spread("log_loss")
        if value is None or loss is None:
            return (True, 0.0, 0.0)
        return (False, value.mean if direction == "minimize" else -value.mean, loss.mean)

    return tuple(sorted(rows, key=key))


def as_dict(verdict: Verdict) -> dict[str, Any]:
    """For result.json: every number, by candidate."""
    return {
        "study": verdict.study,
        "objective": verdict.objective,
        "direction": verdict.direction,
        "chosen": verdict.chosen.label,
        "test_readings": verdict.test_readings,
        "candidates": [
            {
                "label": row.label,
                "trial": row.number,
                "seeds": list(row.seeds),
                "val": list(row.val),
                "test": list(row.test),
                "point": row.point.as_dict(),
            }
            for row in verdict.rows
        ],
        "gain": {
            label: {split: _spread(verdict.gain(label, split=split)) for split in ("val", "test")}
            for label in (PROBE_LABEL, PLAIN_LABEL)
        },
    }


def from_dict(values: dict[str, Any]) -> Verdict:
    """The verdict that `as_dict` wrote."""
    rows = tuple(
        Confirmed(
            number=row["trial"],
            label=row["label"],
            point=Point.stored(row["point"], f"{row['label']} in the export of {values['study']}"),
            seeds=tuple(row["seeds"]),
            val=tuple(row["val"]),
            test=tuple(row["test"]),
        )
        for row in values["candidates"]
    )
    n_runs = sum(len(row.seeds) for row in rows)
    return Verdict(
        study=values["study"],
        objective=values["objective"],
        direction=values["direction"],
        rows=rows,
        n_expected=n_runs,
        n_finished=n_runs,
        test_readings=values["test_readings"],
    )


def _spread(spread: Spread | None) -> dict[str, float | None] | None:
    if spread is None:
        return None
    return {"mean": spread.mean, "std": None if math.isnan(spread.std) else spread.std, "n": spread.n}
