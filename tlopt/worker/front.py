"""Reports, pauses and pruning of trials with several objectives: Optuna has none for them (optuna#3450)."""

import optuna

from tlopt.search.front import Courses, FrontPauses, course_of, courses_of, is_beaten
from tlopt.spec.algorithms import FrontPruner
from tlopt.storage import attributes, leases, optuna_private
from tlopt.storage.rdb import ServiceStorage
from tlopt.worker.pruning import Pause, ShouldPrune


def has_several_objectives(trial: optuna.Trial) -> bool:
    """Whether the trial's study has, so that Optuna refuses its reports."""
    return len(trial.study.directions) > 1


def report(trial: optuna.Trial, value: float, epoch: int) -> None:
    """Record the metric of a trial with several objectives after `epoch`, unless it has been already."""
    reported = list(attributes.curve_of(trial).values())
    if epoch >= len(reported):
        trial.set_user_attr(attributes.VALUES, [*reported[:epoch], value])


def front_check(
    optuna_study: optuna.Study, service: ServiceStorage, spec: FrontPruner, pauses: FrontPauses | None
) -> ShouldPrune:
    """Return a function that decides whether one trial is stopped after its last report, or raises `Pause`.

    Other trials are read only after another one has finished, and after the epochs at which trials pause.
    """
    study_id = optuna_private.study_id(optuna_study)
    direction = optuna_study.directions[0].name.lower()
    n_known, known = -1, Courses(complete=())  # number of finished trials when last read, and courses then

    def prunes(trial: optuna.Trial) -> bool:
        nonlocal n_known, known
        own = course_of(trial, direction)
        if own is None or len(own.values) < spec.min_epochs:
            return False
        n_epochs = len(own.values)
        if n_epochs == attributes.promotion_of(trial, "ended"):
            return True
        ended = service.query(lambda executor: leases.n_finished(executor, study_id))
        if ended != n_known:
            n_known, known = ended, courses_of(attributes.trials_of(optuna_study), direction)
        if is_beaten(own, known, spec):
            return True
        if pauses is not None and _pauses_now(optuna_study, trial, pauses, n_epochs):
            raise Pause(n_epochs)
        return False

    return prunes


def _pauses_now(optuna_study: optuna.Study, trial: optuna.Trial, pauses: FrontPauses, n_epochs: int) -> bool:
    if n_epochs <= attributes.promotion_of(trial, "passed"):
        return False
    if n_epochs not in pauses.rungs(attributes.network_epochs(trial)):
        return False
    return pauses.at_rung(attributes.trials_of(optuna_study), trial.number, n_epochs) == "pause"
