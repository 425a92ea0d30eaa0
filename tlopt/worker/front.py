"""Reports and pruning of trials with several objectives, which Optuna's own reports refuse (optuna#3450)."""

from collections.abc import Sequence

import optuna
from optuna.trial import FrozenTrial, TrialState

from tlopt.search.front import Course, is_beaten
from tlopt.spec import objectives
from tlopt.spec.algorithms import FrontPruner
from tlopt.storage import attributes, leases, optuna_private
from tlopt.storage.rdb import ServiceStorage
from tlopt.worker.pruning import ShouldPrune


def has_several_objectives(trial: optuna.Trial) -> bool:
    """Whether the trial's study has, so that Optuna refuses its reports."""
    return len(trial.study.directions) > 1


def report(trial: optuna.Trial, value: float, epoch: int) -> None:
    """Record the metric of a trial with several objectives after `epoch`, unless it has been already."""
    reported = list(attributes.curve_of(trial).values())
    if epoch >= len(reported):
        trial.set_user_attr(attributes.VALUES, [*reported[:epoch], value])


def front_check(optuna_study: optuna.Study, service: ServiceStorage, spec: FrontPruner) -> ShouldPrune:
    """Return a function that decides whether one trial is stopped after its last report.

    Other trials are read only after another one has finished.
    """
    study_id = optuna_private.study_id(optuna_study)
    direction = optuna_study.directions[0].name.lower()
    known, complete = -1, list[Course]()  # number of finished trials when last read, and their courses

    def prunes(trial: optuna.Trial) -> bool:
        nonlocal known, complete
        own = _course(trial, direction)
        if own is None or len(own.values) < spec.min_epochs:
            return False
        ended = service.query(lambda executor: leases.n_finished(executor, study_id))
        if ended != known:
            known, complete = ended, _complete(optuna_study, direction)
        return is_beaten(own, complete, spec)

    return prunes


def _complete(optuna_study: optuna.Study, direction: str) -> list[Course]:
    trials: Sequence[FrozenTrial] = attributes.trials_of(optuna_study, (TrialState.COMPLETE,))
    feasible = (trial for trial in trials if not attributes.violations(trial))
    return [course for trial in feasible if (course := _course(trial, direction)) is not None]


def _course(trial: optuna.Trial | FrozenTrial, direction: str) -> Course | None:
    """The trial's course; None without a report, or of a trial that other software added."""
    curve, costs = attributes.curve_of(trial), trial.user_attrs.get(attributes.COSTS)
    if not curve or not isinstance(costs, list):
        return None
    return Course(
        values=tuple(-objectives.cost(value, direction) for value in curve.values()),
        costs=tuple(map(float, costs)),
    )
