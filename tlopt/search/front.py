"""Fronts: trials that no other one beats in every objective, their hypervolume, and pruning by them.

Rows have a number for each objective, all of them minimised. Optuna has the front of a study as
`best_trials`, and a hypervolume only as a private function and a picture.

Trials with several objectives are pruned here, which Optuna leaves to others (optuna#3450). What a
network costs is known before its trial; only the metric is learnt epoch by epoch. A trial can be
judged while it runs, against the complete trials that cost no more in any objective: it is stopped where one
of them is ahead already and has ended higher than the trial is likely to, by `Courses.expected_end`. A trial
that no cheaper one is ahead of is never stopped, so that each size of network keeps its own race.

Trials pause, so that this rule is asked once better trials are complete: after `min_epochs` epochs and twice,
four times, ... as many. While others have still to begin, a trial goes on if it is in the best quarter of
those that came as far, by Pareto rank; once all have begun, those that lead most go on first, until each is
complete or stopped. A pause loses nothing by itself: it orders what is trained. But those that go on early
learn fast, and their gains say too little of others: a lead is taken to fade, and values after one epoch
to differ as much at the end.

Measured in benchmarks/front/README.md.
"""

import copy
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

import optuna
from optuna.trial import FrozenTrial, TrialState

from tlopt.search.promotion import Next, Pauses, numbers
from tlopt.spec import Study
from tlopt.spec.algorithms import FrontPruner
from tlopt.spec.objectives import Row, cost, dominates, front_of, minimised
from tlopt.storage import attributes
from tlopt.storage.attributes import TrialRecord, best_first

_FACTOR = 2  # between the epochs of two pauses
_PROMOTED = 4  # one trial in so many goes on while others have still to begin
_FADES = 0.6  # of a lead after the first epoch, until the end
_PRIOR = 3  # number of trials that the spread of values at an epoch counts as, beside the gains from it
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

    def costs_no_more_than(self, other: "Course") -> bool:
        """Whether no cost of this course is higher."""
        return all(own <= its for own, its in zip(self.costs, other.costs, strict=True))

    def is_ahead_of(self, other: "Course", epoch: int) -> bool:
        """Whether this course costs no more and is higher after `epoch`, or at its end before that."""
        value = self.values[min(epoch, len(self.values) - 1)]
        return self.costs_no_more_than(other) and value > other.values[epoch]


def course_of(trial: optuna.Trial | FrozenTrial, direction: str) -> Course | None:
    """The trial's course; None without a report, or of a trial that other software added."""
    curve, costs = attributes.curve_of(trial), trial.user_attrs.get(attributes.COSTS)
    if not curve or not isinstance(costs, list):
        return None
    return Course(
        values=tuple(-cost(value, direction) for value in curve.values()), costs=tuple(map(float, costs))
    )


@dataclass(frozen=True, kw_only=True)
class Courses:
    """What the courses of a study say of a trial that is not complete.

    Args:
        complete: courses of complete and feasible trials.
        others: courses of the other trials, paused and stopped ones among them.
    """

    complete: Sequence[Course]
    others: Sequence[Course] = ()

    def expected_end(self, course: Course) -> tuple[float, float] | None:
        """Mean and standard deviation of the value at the end of `course`; None while too few are complete.

        The mean is the value now and the mean gain of complete trials from this epoch, less a share of the
        lead over their values now, from `_FADES` at the first epoch to nothing at the end. The variance pools
        that of the gains with that of the values of all trials at this epoch, as if of `_PRIOR` trials more.
        """
        epoch = len(course.values) - 1
        longer = [other.values for other in self.complete if len(other.values) > epoch + 1]
        if len(longer) < _GAINS_MIN:
            return None
        value, now = course.values[-1], [values[epoch] for values in longer]
        gains = [values[-1] - values[epoch] for values in longer]
        left = 1 - (epoch + 1) / max(map(len, longer))
        mean = value + statistics.fmean(gains) - _FADES * left * (value - statistics.fmean(now))
        there = [each.values[epoch] for each in (*self.complete, *self.others) if len(each.values) > epoch]
        degrees = len(gains) - 1
        pooled = _PRIOR * statistics.variance(there) + degrees * statistics.variance(gains)
        return mean, math.sqrt(pooled / (_PRIOR + degrees))


def courses_of(trials: Iterable[FrozenTrial], direction: str) -> Courses:
    """The courses of the trials; those of trials that break a constraint are left out."""
    complete, others = list[Course](), list[Course]()
    for trial in trials:
        course = course_of(trial, direction)
        if course is not None and not attributes.violations(trial):
            (complete if trial.state == TrialState.COMPLETE else others).append(course)
    return Courses(complete=complete, others=others)


def is_beaten(course: Course, known: Courses, spec: FrontPruner) -> bool:
    """Whether a trial is stopped after its last epoch so far.

    Args:
        course: of the trial, with at least one epoch.
    """
    epoch = len(course.values) - 1
    if epoch + 1 < spec.min_epochs or len(known.complete) < spec.n_startup_trials:
        return False
    expected = known.expected_end(course)
    if expected is None:
        return False
    most = expected[0] + spec.margin * expected[1]
    ahead = [other for other in known.complete if other.is_ahead_of(course, epoch)]
    return sum(other.values[-1] > most for other in ahead) >= spec.n_better


def lead(course: Course, others: Iterable[Course], epoch: int) -> float:
    """The lead of `course` after `epoch` over the best of the others that cost no more.

    Where none does, over the lowest of all.
    """
    there = [other for other in others if len(other.values) > epoch]
    cheaper = [other.values[epoch] for other in there if other.costs_no_more_than(course)]
    lowest = min((other.values[epoch] for other in there), default=course.values[epoch])
    return course.values[epoch] - max(cheaper, default=lowest)


def by_rank(courses: Sequence[Course], epoch: int) -> list[int]:
    """Indices of `courses` by Pareto rank after `epoch`: front after front.

    Within a front, the largest lead comes first; courses with equal leads stay in order.
    """
    rows = [(-course.values[epoch], *course.costs) for course in courses]
    leads = [lead(each, (*courses[:i], *courses[i + 1 :]), epoch) for i, each in enumerate(courses)]
    better = [{j for j, other in enumerate(rows) if dominates(other, row)} for row in rows]
    left, ranked = set(range(len(rows))), list[int]()
    while left:
        front = {i for i in left if not better[i] & left}
        ranked += sorted(front, key=lambda i: (-leads[i], i))
        left -= front
    return ranked


@dataclass(frozen=True, kw_only=True)
class FrontPauses(Pauses):
    """When the trials of one study with several objectives pause, and which of them goes on.

    Args:
        pruner: of the study file.
    """

    pruner: FrontPruner

    @property
    def first(self) -> int:
        return self.pruner.min_epochs

    @property
    def factor(self) -> int:
        return _FACTOR

    def promoted(self, trials: Sequence[FrozenTrial], rung: int) -> list[FrozenTrial]:
        """The best quarter (rounded down) of the trials at `rung` by Pareto rank, the best first."""
        reached = [(trial, self._course(trial)) for trial in trials if self.is_compared(trial, rung)]
        known = [(trial, course) for trial, course in reached if course is not None]
        ranked = by_rank([course for _, course in known], rung - 1)
        return [known[i][0] for i in ranked[: len(ranked) // _PROMOTED]]

    def at_rung(self, trials: Sequence[FrozenTrial], number: int, rung: int) -> Literal["continue", "pause"]:
        """What becomes of a trial that has reached `rung` and is not beaten."""
        return "continue" if number in numbers(self.promoted(trials, rung)) else "pause"

    def over(self, trials: Sequence[FrozenTrial], paused: Sequence[FrozenTrial]) -> FrozenTrial | None:
        """The first of the paused trials that is beaten: its checkpoint is needed no longer."""
        known = courses_of(trials, self.direction)
        courses = ((trial, self._course(trial)) for trial in paused)
        return next((t for t, own in courses if own and is_beaten(own, known, self.pruner)), None)

    def following(
        self, trials: Sequence[FrozenTrial], paused: Sequence[FrozenTrial], *, n_running: int
    ) -> Next | None:
        """The one with the largest lead goes on."""
        courses = {trial.number: own for trial in trials if (own := self._course(trial)) is not None}

        def lead_of(trial: FrozenTrial) -> float:
            own = courses.get(trial.number)
            others = (course for number, course in courses.items() if number != trial.number)
            return float("-inf") if own is None else lead(own, others, len(own.values) - 1)

        return Next((max(paused, key=lead_of),))

    def as_sampled(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """`trials` with paused and stopped ones as complete, at the end that is expected of them.

        Before that is known, at their last values. Optuna's samplers take no intermediate values of trials
        with several objectives, and NSGA-II takes complete trials alone.
        """
        known = courses_of(trials, self.direction)
        return [self._as_ended(trial, known) for trial in trials]

    def _as_ended(self, trial: FrozenTrial, known: Courses) -> FrozenTrial:
        own = self._course(trial)
        stopped = trial.state == TrialState.PRUNED and not any(v > 0 for v in trial.constraints.values())
        if own is None or not (stopped or attributes.paused_at(trial)):
            return trial
        end, _ = known.expected_end(own) or (own.values[-1], 0.0)
        trial = copy.copy(trial)
        trial.state, trial.values = TrialState.COMPLETE, [-cost(end, self.direction), *own.costs]
        return trial

    def _course(self, trial: FrozenTrial) -> Course | None:
        return course_of(trial, self.direction)
