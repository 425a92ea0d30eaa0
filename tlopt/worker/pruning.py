"""Pruning with few queries: reading all other trials costs more than all of one trial's reports."""

from collections.abc import Callable

import optuna
from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner, PercentilePruner, SuccessiveHalvingPruner

from tlopt.storage import leases, optuna_private
from tlopt.storage.rdb import ServiceStorage

ShouldPrune = Callable[[optuna.Trial], bool]


def pruning_check(optuna_study: optuna.Study, service: ServiceStorage, *, min_epochs: int) -> ShouldPrune:
    """Return a function that decides whether one trial is pruned after its last report.

    It gives the same answers as `should_prune` with fewer queries: none before `min_epochs` epochs, and for
    pruners that compare with finished trials, other trials are read only after another one has finished.
    While reports cannot be written, nothing is pruned.
    """
    study_id = optuna_private.study_id(optuna_study)
    known = -1  # number of finished trials when last read

    def prunes(trial: optuna.Trial) -> bool:
        nonlocal known
        match optuna_study.pruner:
            case NopPruner():
                return False
            case _ if service.unsent(optuna_private.trial_id(trial)) or not _reached(trial, min_epochs):
                return False
            case MedianPruner() | PercentilePruner():
                ended = service.query(lambda executor: leases.n_finished(executor, study_id))
                if ended != known:
                    known = ended
                    return trial.should_prune()
                with service.unchanged():
                    return trial.should_prune()
            case HyperbandPruner() | SuccessiveHalvingPruner() | _:
                return trial.should_prune()

    return prunes


def _reached(trial: optuna.Trial, min_epochs: int) -> bool:
    return len(optuna_private.reported_values(trial)) >= min_epochs
