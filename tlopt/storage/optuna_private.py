"""What Optuna's objects keep to themselves and tlopt has to know; tests/test_optuna_facts.py guards it.

The tables are in `tables`; methods of `RDBStorage` are overridden in `patient_storage` and `service`.
"""

from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial


def trial_id(trial: optuna.Trial | FrozenTrial) -> int:
    """The trial's key in the database; storages take it in public, trials keep it private."""
    return trial._trial_id


def study_id(optuna_study: optuna.Study) -> int:
    """The study's key in the database."""
    return optuna_study._study_id


def storage_of(optuna_study: optuna.Study) -> BaseStorage:
    """The storage that the study reads and writes, caches included."""
    return optuna_study._storage


def below(storage: BaseStorage) -> BaseStorage:
    """The storage that a cached one caches, else `storage` itself."""
    return getattr(storage, "_backend", storage)


def reported(trial: optuna.Trial) -> dict[int, float]:
    """Step to value, as this process knows them: no question to the database."""
    return trial._cached_frozen_trial.intermediate_values


def fixed_params(trial: optuna.Trial) -> dict[str, Any]:
    """The parameters with which the trial was enqueued; empty for others."""
    return dict(trial._fixed_params)


def fix_params(trial: optuna.Trial, params: dict[str, Any]) -> None:
    """Have the trial draw `params` from now on where it has not drawn yet; what was enqueued stays stored."""
    trial._fixed_params = params
