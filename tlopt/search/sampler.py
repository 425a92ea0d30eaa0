"""Samplers and pruners from the study file, seeded so that a search can be repeated."""

from collections.abc import Mapping, Sequence
from typing import Any, assert_never

import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from tlopt import algorithms
from tlopt.point import seed_for

Params = dict[str, Any]


class FirstThese(BaseSampler):
    """Draws given parameter sets first, each once over all workers, then what a sampler of Optuna draws.

    No trial is enqueued, so workers that start together cannot double one, and a set whose trial failed comes
    again. The sampler behind is made anew for each trial from (seed, trial number): the same study and seed
    give the same search, and no two workers draw the same point because they share a seed.
    """

    def __init__(
        self, first: Sequence[Params], behind: algorithms.Sampler, *, seed: int, study_name: str
    ) -> None:
        self._first = list(first)
        self._behind = behind
        self._seed = seed
        self._study_name = study_name
        self._of_trial: dict[int, BaseSampler] = {}

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        self._of_trial = {trial.number: self._make(study, trial)}
        return self._of_trial[trial.number].infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> Params:
        return self._of_trial[trial.number].sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        sampler = self._of_trial[trial.number]
        return sampler.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self._of_trial = {trial.number: self._make(study, trial)}
        self._of_trial[trial.number].before_trial(study, trial)

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        sampler = self._of_trial.pop(trial.number, None)
        if sampler is not None:
            sampler.after_trial(study, trial, state, values)

    def _make(self, study: optuna.Study, trial: FrozenTrial) -> BaseSampler:
        made = self._of_trial.get(trial.number)
        if made is not None:
            return made
        behind = make_sampler(self._behind, seed_for(self._seed, self._study_name, trial.number) % 2**32)
        params = next_of_first(self._first, study.get_trials(deepcopy=False), trial.number)
        if params is None:
            return behind
        return optuna.samplers.PartialFixedSampler(params, behind)


def next_of_first(first: Sequence[Params], trials: Sequence[FrozenTrial], number: int) -> Params | None:
    """The parameter set that trial `number` is to run, or None when all are taken.

    Sets that a living or finished trial holds are taken; a lower-numbered trial that has drawn nothing yet
    will take the first free one before us.
    """
    alive = [t for t in trials if t.state != TrialState.FAIL and t.number != number]
    free = [params for params in first if not any(_holds(t, params) for t in alive)]
    ahead = sum(1 for t in alive if t.number < number and not t.params and not t.state.is_finished())
    return free[ahead] if ahead < len(free) else None


def _holds(trial: FrozenTrial, params: Mapping[str, Any]) -> bool:
    return bool(trial.params) and all(
        trial.params.get(name, value) == value for name, value in params.items()
    )


def make_sampler(spec: algorithms.Sampler, seed: int) -> BaseSampler:
    """Optuna's sampler for `spec`."""
    match spec:
        case algorithms.TpeSampler():
            return optuna.samplers.TPESampler(
                n_startup_trials=spec.n_startup_trials, n_ei_candidates=spec.n_ei_candidates, seed=seed
            )
        case algorithms.RandomSampler():
            return optuna.samplers.RandomSampler(seed=seed)
        case algorithms.GpSampler():
            return optuna.samplers.GPSampler(n_startup_trials=spec.n_startup_trials, seed=seed)
        case algorithms.QmcSampler():
            return optuna.samplers.QMCSampler(scramble=True, seed=seed)
        case _:
            assert_never(spec)


def make_pruner(spec: algorithms.Pruner, *, epochs_max: int) -> BasePruner:
    """Optuna's pruner for `spec`. `min_epochs` = m lets every trial finish m epochs (steps 0 to m - 1)."""
    match spec:
        case algorithms.NoPruner():
            return optuna.pruners.NopPruner()
        case algorithms.MedianPruner():
            return optuna.pruners.MedianPruner(
                n_startup_trials=spec.n_startup_trials, n_warmup_steps=spec.min_epochs - 1
            )
        case algorithms.PercentilePruner():
            return optuna.pruners.PercentilePruner(
                spec.percentile, n_startup_trials=spec.n_startup_trials, n_warmup_steps=spec.min_epochs - 1
            )
        case algorithms.HalvingPruner():
            return optuna.pruners.SuccessiveHalvingPruner(
                min_resource=max(1, spec.min_epochs - 1), reduction_factor=spec.reduction_factor
            )
        case algorithms.HyperbandPruner():
            return optuna.pruners.HyperbandPruner(
                min_resource=max(1, spec.min_epochs - 1),
                max_resource=max(2, epochs_max - 1),
                reduction_factor=spec.reduction_factor,
            )
        case _:
            assert_never(spec)
