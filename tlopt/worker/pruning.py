"""Pruning and pausing with few queries: reading all other trials costs more than all reports of one trial."""

from collections.abc import Callable

import optuna
from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner, PercentilePruner, SuccessiveHalvingPruner

from tlopt.search.promotion import Promotion
from tlopt.storage import attributes, leases, optuna_private
from tlopt.storage.rdb import ServiceStorage
from tlopt.system.words import counted

ShouldPrune = Callable[[optuna.Trial], bool]


class Pause(Exception):
    """The trial waits after `n_epochs` epochs until it goes on, or is pruned there."""

    def __init__(self, n_epochs: int) -> None:
        super().__init__(f"after {counted(n_epochs, 'epoch')}, until it goes on or is pruned")
        self.n_epochs = n_epochs


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


def promotion_check(
    optuna_study: optuna.Study,
    service: ServiceStorage,
    promotion: Promotion,
    n_open: Callable[[optuna.Study], int],
) -> ShouldPrune:
    """Return a function that decides whether a trial is pruned after its last report, or raises `Pause`.

    Other trials are read after the epochs at which trials are compared only. While reports cannot be written,
    the trial goes on.

    Args:
        n_open: number of trials that the study finishes.
    """

    def prunes(trial: optuna.Trial) -> bool:
        n_epochs = len(optuna_private.reported_values(trial))
        if service.unsent(optuna_private.trial_id(trial)):
            return False
        if n_epochs <= attributes.promotion_of(trial, "passed"):
            return False
        if n_epochs == attributes.promotion_of(trial, "ended"):
            return True
        if n_epochs not in promotion.rungs(attributes.network_epochs(trial)):
            return False
        trials = attributes.trials_of(optuna_study)
        decision = promotion.at_rung(trials, trial.number, n_epochs, n_open(optuna_study))
        if decision == "pause":
            raise Pause(n_epochs)
        return decision == "prune"

    return prunes
