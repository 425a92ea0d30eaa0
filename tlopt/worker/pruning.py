"""When the pruner is asked: one look at all other trials costs more than all of a trial's reports."""

from collections.abc import Callable

import optuna
from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner, PercentilePruner, SuccessiveHalvingPruner

from tlopt.storage import leases, optuna_private
from tlopt.storage.rdb import ServiceStorage

ShouldPrune = Callable[[optuna.Trial], bool]


def pruning_check(optuna_study: optuna.Study, service: ServiceStorage, *, min_epochs: int) -> ShouldPrune:
    """A function that tells whether the study's pruner stops one trial after its last report.

    It answers as `should_prune` with fewer queries: none before `min_epochs` are finished, and the other
    trials are read again only when one more has ended, where the pruner compares with ended ones. While
    reports cannot be written, nothing is pruned.
    """
    study_id = optuna_private.study_id(optuna_study)
    known = -1  # ended trials at the last look

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
