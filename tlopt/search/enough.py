"""`trials = "enough"`: a search ends when many trials in a row have found nothing better.

The decision is a function of the trials with the lowest numbers, all of them finished. Their states and
values never change, so every worker decides alike at any time, and a search that is continued ends where it
would have.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import optuna
from optuna.trial import TrialState

from tlopt.spec import Study, objectives
from tlopt.spec.sections import ENOUGH_AFTER, ENOUGH_MIN
from tlopt.storage import attributes
from tlopt.storage.attributes import TrialRecord


@dataclass(frozen=True, kw_only=True)
class Enough:
    """The decision that a search has enough trials."""

    n_trials: int  # complete or pruned ones on which it rests
    best: TrialRecord  # which none of the last `ENOUGH_AFTER` trials was better than


def find_end(trials: Sequence[TrialRecord], direction: str) -> Enough | None:
    """The decision that ends the search; None while it goes on.

    Args:
        trials: of the search, by number.
        direction: of their values, maximize or minimize.
    """
    best: TrialRecord | None = None
    n_trials = n_since = 0
    for trial in trials:
        if not trial.state.is_finished():
            return None  # what it finds may come first
        n_trials += trial.counts
        n_since += trial.counts
        if _is_better(trial, best, direction):
            best, n_since = trial, 0
        if best is not None and n_trials >= ENOUGH_MIN and n_since >= ENOUGH_AFTER:
            return Enough(n_trials=n_trials, best=best)
    return None


def _is_better(trial: TrialRecord, best: TrialRecord | None, direction: str) -> bool:
    """Whether `trial` has a value better than `best`, or is the first with one."""
    if not trial.has_value or best is None:
        return trial.has_value
    assert trial.value is not None, "a complete trial has a value"
    assert best.value is not None, "a complete trial has a value"
    return objectives.is_better(trial.value, best.value, direction)


def n_planned(study: Study, trials: Sequence[TrialRecord]) -> int:
    """Number of trials of a search to finish, complete or pruned; trials that still run at its end count."""
    if isinstance(study.budget.trials, int):
        return study.budget.trials
    if find_end(trials, study.direction) is None:
        return study.budget.trials_max
    return sum(trial.counts or trial.state == TrialState.RUNNING for trial in trials)


def n_open(study: Study) -> Callable[[optuna.Study], int]:
    """`n_planned` as a function of the study in the database, which is read for `trials = "enough"` only."""
    if isinstance(study.budget.trials, int):
        return lambda _: study.budget.trials_max
    return lambda opened: n_planned(study, attributes.records_of(opened))
