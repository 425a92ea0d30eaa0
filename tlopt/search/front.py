"""Fronts: trials that no other one beats in every objective, their hypervolume, and pruning by them.

Rows have a number for each objective, all of them minimised. Optuna has the front of a study as
`best_trials`, and a hypervolume only as a private function and a picture.

Trials with several objectives are pruned here, which Optuna leaves to others (optuna#3450). What a
network costs is known before its trial; only the metric is learnt epoch by epoch. A trial can be
judged while it runs, against the complete trials that cost no more in any objective: it is stopped where one
of them is ahead already and has ended higher than the trial is likely to. The gain from an epoch to the end
is taken from the complete trials: their mean gain plus `margin` standard deviations is the most to expect. A
trial that no cheaper one is ahead of is never stopped, so that each size of network keeps its own race.

Measured in benchmarks/front/README.md.
"""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod

from tlopt.spec import Study
from tlopt.spec.algorithms import FrontPruner
from tlopt.spec.objectives import Row, front_of, minimised
from tlopt.storage.attributes import TrialRecord, best_first

_GAINS_MIN = 3  # for a standard deviation that says anything
_BEYOND = 1.1  # a reference cost relative to the largest, which would dominate nothing otherwise


def hypervolume(rows: Sequence[Row], reference: Row) -> float:
    """The volume between `reference` and the rows that dominate it, in the product of the objectives' units.

    By slices along the last objective: quadratic in the rows for two objectives, cubic for three.
    """
    inside = [tuple(row) for row in rows if all(a < b for a, b in zip(row, reference, strict=True))]
    if not inside:
        return 0.0
    if len(reference) == 1:
        return reference[0] - min(row[0] for row in inside)
    inside.sort(key=lambda row: row[-1])
    ends = [row[-1] for row in inside[1:]] + [reference[-1]]
    return sum(
        (end - row[-1]) * hypervolume([each[:-1] for each in inside[:n]], reference[:-1])
        for n, (row, end) in enumerate(zip(inside, ends, strict=True), 1)
        if end > row[-1]
    )


def most_of(rows: Sequence[Row], n: int) -> list[int]:
    """Indices of at most `n` rows of a front, which dominate much of what the whole front does.

    The best row in the first objective comes first; each next one adds the most hypervolume. Objectives are
    scaled to the front's ranges, and the reference lies a tenth of a range beyond the worst values. Of equal
    rows the first alone is taken.
    """
    distinct = [i for i in range(len(rows)) if tuple(rows[i]) not in map(tuple, rows[:i])]
    if not distinct:
        return []
    scaled = dict(zip(distinct, _scaled([rows[i] for i in distinct]), strict=True))
    reference = [_BEYOND] * len(rows[0])
    taken = [min(distinct, key=lambda i: tuple(rows[i]))]
    while len(taken) < min(n, len(distinct)):
        left = [i for i in distinct if i not in taken]
        taken.append(max(left, key=lambda i: hypervolume([scaled[j] for j in (*taken, i)], reference)))
    return taken[:n]


def _scaled(rows: Sequence[Row]) -> list[tuple[float, ...]]:
    columns = list(zip(*rows, strict=True))
    lows, spans = [min(column) for column in columns], [max(column) - min(column) for column in columns]
    return [
        tuple((value - low) / (span or 1.0) for value, low, span in zip(row, lows, spans, strict=True))
        for row in rows
    ]


def front_trials(trials: Iterable[TrialRecord], study: Study) -> list[TrialRecord]:
    """The complete and feasible trials that no other one beats in every objective, best metric first."""
    ranked = best_first(trials, study.direction)
    return [ranked[i] for i in front_of([minimised(trial.values, study.direction) for trial in ranked])]


def hypervolumes(trials: Iterable[TrialRecord], study: Study) -> dict[int, float]:
    """The share of the space of objectives that the trials up to each one dominate, by number.

    The space reaches from 1.1 times the largest costs of complete trials to 0, and from an accuracy of 0 to
    1, or from the largest log-loss to 0.
    """
    ranked = sorted(best_first(trials, study.direction), key=lambda trial: trial.number)
    rows = [minimised(trial.values, study.direction) for trial in ranked]
    if not rows:
        return {}
    metric, *costs = (max(column) for column in zip(*rows, strict=True))
    worst = metric if study.direction == "minimize" else 0.0
    reference = [worst, *(_BEYOND * cost for cost in costs)]
    space = prod([metric if worst else 1.0, *reference[1:]]) or 1.0
    return {trial.number: hypervolume(rows[: n + 1], reference) / space for n, trial in enumerate(ranked)}


@dataclass(frozen=True, kw_only=True)
class Course:
    """A trial's metric by epoch, from the first, with a sign that makes higher better; and its costs."""

    values: tuple[float, ...]
    costs: tuple[float, ...]

    def is_ahead_of(self, other: "Course", epoch: int) -> bool:
        """Whether this course costs no more and is higher after `epoch`, or at its end before that."""
        cheap = all(own <= its for own, its in zip(self.costs, other.costs, strict=True))
        return cheap and self.values[min(epoch, len(self.values) - 1)] > other.values[epoch]


def is_beaten(course: Course, complete: Sequence[Course], spec: FrontPruner) -> bool:
    """Whether a running trial is stopped after its last epoch so far.

    Args:
        course: of the trial, with at least one epoch.
        complete: courses of complete and feasible trials.
    """
    epoch = len(course.values) - 1
    if epoch + 1 < spec.min_epochs or len(complete) < spec.n_startup_trials:
        return False
    gains = [other.values[-1] - other.values[epoch] for other in complete if len(other.values) > epoch + 1]
    if len(gains) < _GAINS_MIN:
        return False
    most = course.values[-1] + statistics.fmean(gains) + spec.margin * statistics.stdev(gains)
    ahead = [other for other in complete if other.is_ahead_of(course, epoch)]
    return sum(other.values[-1] > most for other in ahead) >= spec.n_better
