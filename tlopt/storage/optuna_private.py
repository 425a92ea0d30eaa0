"""Private parts of Optuna that tlopt relies on, each under a public name.

They are tested in tests/test_optuna_facts.py; the tables are in `schema`.
"""

import json
import logging
from collections.abc import Container
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage, RDBStorage, _CachedStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from tlopt.errors import Refused

ARTIFACT = "artifacts:"  # prefix of the attributes of files in an artifact store

_logger = logging.getLogger("tlopt.storage")


def trial_id(trial: optuna.Trial | FrozenTrial) -> int:
    """The trial's id in the database, which storages take and trials keep private."""
    return trial._trial_id


def study_id(optuna_study: optuna.Study) -> int:
    """The study's id in the database."""
    return optuna_study._study_id


def storage_of(optuna_study: optuna.Study) -> BaseStorage:
    """The study's storage, including its cache."""
    return optuna_study._storage


def artifact_ids(optuna_study: optuna.Study) -> set[str]:
    """Ids of the files that a study and its trials have in an artifact store.

    Removed ones are null, for which `optuna.artifacts.get_all_artifact_meta` raises TypeError (Optuna 5.0.0).
    """
    of_study = storage_of(optuna_study).get_study_system_attrs(study_id(optuna_study))
    every = (of_study, *(trial.system_attrs for trial in optuna_study.get_trials(deepcopy=False)))
    metas = (json.loads(row[key]) for row in every for key in row if key.startswith(ARTIFACT))
    return {meta["artifact_id"] for meta in metas if meta is not None}


def uncached(storage: BaseStorage) -> BaseStorage:
    """The storage behind a cache, or `storage` itself."""
    return getattr(storage, "_backend", storage)


def reported_values(trial: optuna.Trial) -> dict[int, float]:
    """Reported values by step as known to this process, without a query."""
    return trial._cached_frozen_trial.intermediate_values


def fixed_params(trial: optuna.Trial) -> dict[str, Any]:
    """Parameters with which the trial was enqueued; empty if it was not.

    Raises:
        Refused: the stored value is not a table of parameters.
    """
    given: object = trial._fixed_params
    if not isinstance(given, dict):
        raise Refused(f"fixed_params = {given!r}: expected are parameters by name")
    return dict(given)


def fix_params(trial: optuna.Trial, params: dict[str, Any]) -> None:
    """Make the trial draw `params` where it has not drawn yet; the stored attribute is unchanged."""
    trial._fixed_params = params


class OptunaDatabase(RDBStorage):
    """`RDBStorage` with public, overridable names for the private methods that Optuna's cache calls.

    All other methods that a study calls are public in `RDBStorage`.
    """

    def create_trial(self, study_id: int, template: FrozenTrial | None) -> FrozenTrial:
        """Create a trial; called by `ask`, `enqueue_trial` and `add_trial`."""
        return super()._create_new_trial(study_id, template)

    def write_param(
        self,
        trial_id: int,
        name: str,
        internal_value: float,
        distribution: BaseDistribution,
        previous: BaseDistribution | None,
    ) -> None:
        """Store a parameter's value; `previous` is the distribution in an earlier trial, if known."""
        super()._set_trial_param(trial_id, name, internal_value, distribution, previous)

    def read_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        also: set[int],
        newer_than: int,
    ) -> list[FrozenTrial]:
        """Read trials with an id in `also` or above `newer_than`, ordered by id."""
        return super()._get_trials(study_id, states, also, newer_than)

    def best_trial_id(self, study_id: int, direction: StudyDirection) -> int:
        """Id of the complete trial with the best value.

        Raises:
            ValueError: no trial is complete.
        """
        return super()._get_best_trial_id(study_id, direction)

    def _create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> FrozenTrial:
        return self.create_trial(study_id, template_trial)

    def _set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
        previous_distribution: BaseDistribution | None,
    ) -> None:
        self.write_param(trial_id, param_name, param_value_internal, distribution, previous_distribution)

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        return self.read_trials(study_id, states, included_trial_ids, trial_id_greater_than)

    def _get_best_trial_id(self, study_id: int, direction: StudyDirection) -> int:
        return self.best_trial_id(study_id, direction)

    def skips_reads(self) -> bool:
        """Return whether `read_trials` currently reads nothing, which leaves the cache unchanged."""
        return False

    def forget(self) -> None:
        """Discard what was read before the database was restored."""

    def still_has_trials(self, study_id: int, read: "ReadTrials") -> bool:
        """Return whether the database still has the trials read earlier."""
        raise NotImplementedError


@dataclass(frozen=True)
class ReadTrials:
    """Summary of a study's trials when read, used to detect a restored database."""

    n_trials: int
    newest_id: int  # the highest trial id
    finished_id: int  # the highest id of a finished trial; -1: none
    finished_at: datetime | None  # when that trial finished
    created: tuple[int, ...] = ()  # ids of trials created by this process since

    def with_created(self, trial_id: int) -> "ReadTrials":
        """The same with one more created trial."""
        return replace(self, created=(*self.created, trial_id))


NOTHING_READ = ReadTrials(n_trials=0, newest_id=-1, finished_id=-1, finished_at=None)


class Cache(_CachedStorage):
    """Optuna's cache of trials, extended to start over when the database is restored to an earlier state.

    Optuna reads finished trials once, by ascending ids. After a restore ids are reused: its cache would keep
    trials that no longer exist and never read those that do.
    """

    _backend: OptunaDatabase

    def __init__(self, backend: OptunaDatabase) -> None:
        super().__init__(backend)
        self._read: dict[int, ReadTrials] = {}  # by study

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        created = super().create_new_trial(study_id, template_trial)
        self._read[study_id] = self._read.get(study_id, NOTHING_READ).with_created(created)
        return created

    def _read_trials_from_remote_storage(self, study_id: int) -> None:
        if self._backend.skips_reads():
            super()._read_trials_from_remote_storage(study_id)
            return
        earlier = self._read.get(study_id)
        if earlier is not None and not self._backend.still_has_trials(study_id, earlier):
            _logger.warning("the database was restored to an earlier state: all trials are read anew")
            self.forget()
        super()._read_trials_from_remote_storage(study_id)
        self._note_read(study_id)

    def _note_read(self, study_id: int) -> None:
        with self._lock:
            known = self._studies.get(study_id)
            if known is None:  # cleared by another thread
                return
            trials = known.trials.values()
            finished = [trial for trial in trials if trial.state.is_finished()]
            last = max(finished, key=trial_id, default=None)
            self._read[study_id] = ReadTrials(
                n_trials=len(trials),
                newest_id=max(map(trial_id, trials), default=-1),
                finished_id=-1 if last is None else trial_id(last),
                finished_at=None if last is None else last.datetime_complete,
            )

    def forget(self) -> None:
        """Clear the cache."""
        with self._lock:
            self._backend.forget()
            self._read.clear()
            self._studies.clear()
            self._trial_id_to_study_id_and_number.clear()
            self._study_id_and_number_to_trial_id.clear()


def cached(database: OptunaDatabase) -> BaseStorage:
    """Wrap `database` in the cache that Optuna's studies need."""
    return Cache(database)
