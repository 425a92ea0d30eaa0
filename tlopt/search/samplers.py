"""Samplers and pruners of a study file, seeded for repeatable searches."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, assert_never

import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from tlopt.search import sampler_view
from tlopt.search.space import Params
from tlopt.spec import algorithms
from tlopt.spec.point import seed_for
from tlopt.storage.attributes import BEGAN, as_own, is_carried, ran_here

_CLASSIFIER, _NETWORK = "classifier", "network"
_REDRAWS_MAX = 16  # redraws of a repeated point; a small space may have no other


class InitialPointsSampler(BaseSampler):
    """A sampler that draws each initial point once over all workers, then uses a sampler of Optuna.

    A linear classifier has nothing to search, so all of them in the space are initial points, and Optuna's
    sampler sees and draws networks only.

    No trial is enqueued, so workers that start at the same time cannot duplicate a point, and a point whose
    trial failed is drawn again. For each trial a new Optuna sampler is created, seeded by (seed, trial
    number): the same study and seed give the same search, and workers do not repeat each other's points.

    Args:
        initial_points: parameters for all or part of the search space, from the study's trials so far.
        spec: the study file's record of Optuna's sampler.
        full_study: the whole study; with Hyperband, Optuna passes only the trials of one bracket.
        transform: applied to the trials before Optuna's sampler sees them; None: no change.
    """

    def __init__(
        self,
        initial_points: Callable[[Sequence[FrozenTrial]], Sequence[Params]],
        spec: algorithms.Sampler,
        *,
        seed: int,
        full_study: optuna.Study | None = None,
        transform: sampler_view.Transform | None = None,
    ) -> None:
        self._initial_points = initial_points
        self._full_study = full_study
        self._transform = transform
        self._spec = spec
        self._seed = seed
        self._began: float | None = None
        self._number = -1  # number of the trial being drawn; a worker draws one at a time
        self._given: Params | None = None
        self._sampler: BaseSampler = make_sampler(spec, seed=seed, number=0)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self._prepare(study, trial)
        self._sampler.before_trial(study, trial)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        self._prepare(study, trial)
        if self._given is not None:
            return {}
        found = self._sampler.infer_relative_search_space(self._shown(study), trial)
        return {name: distribution for name, distribution in found.items() if name != _CLASSIFIER}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> Params:
        if not search_space:
            return {}
        params = self._sampler.sample_relative(self._shown(study), trial, search_space)
        if isinstance(self._spec, algorithms.GpSampler):
            return self._without_repeats(params, study, trial, search_space)
        return params

    def _without_repeats(
        self,
        params: Params,
        study: optuna.Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> Params:
        """`params`, or a random draw if another trial has the same ones.

        On a plateau, such as one of perfect scores, a Gaussian process keeps drawing its best point.
        """
        others = [each for each in study.get_trials(deepcopy=False) if each.number != trial.number]
        random = optuna.samplers.RandomSampler(seed=seed_for(self._seed, trial.number, "redraw") % 2**32)
        for _ in range(_REDRAWS_MAX):
            if not any(_is_repeated(params, each.params) for each in others):
                break
            params = {
                name: random.sample_independent(study, trial, name, distribution)
                for name, distribution in search_space.items()
            }
        return params

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        if self._given is not None:
            return self._given[param_name]
        if param_name == _CLASSIFIER and _NETWORK in getattr(param_distribution, "choices", ()):
            return _NETWORK
        return self._sampler.sample_independent(self._shown(study), trial, param_name, param_distribution)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        self._sampler.after_trial(study, trial, state, values)

    def _shown(self, study: optuna.Study) -> optuna.Study:
        if self._transform is not None:
            study = sampler_view.view(study, self._transform)
        if isinstance(self._spec, algorithms.GpSampler):
            directions = study.directions
            return sampler_view.view(study, lambda trials: sampler_view.as_complete(trials, directions))
        return study

    def _prepare(self, study: optuna.Study, trial: FrozenTrial) -> None:
        if trial.number == self._number:
            return
        self._number = trial.number
        self._sampler = make_sampler(self._spec, seed=self._seed, number=trial.number)
        searched = self._full_study or study
        if self._began is None:  # it never changes, and each reading costs four round trips
            self._began = searched.user_attrs.get(BEGAN)
        trials = as_own(searched.get_trials(deepcopy=False), self._began)
        self._given = next_initial_point(self._initial_points(trials), trials, trial.number)


def next_initial_point(
    initial_points: Sequence[Params], trials: Sequence[FrozenTrial], number: int
) -> Params | None:
    """The initial point for trial `number`, or None if all are taken.

    A point is taken by a trial that has drawn it and has not failed. A lower-numbered trial that is still
    drawing takes the first free point that agrees with its draws so far. A trial carried over from an earlier
    study takes its own point, because its value is known. Trials that users enqueued or added take none.
    """
    alive = [
        t
        for t in trials
        if t.state != TrialState.FAIL
        and "fixed_params" not in t.system_attrs
        and (ran_here(t) or is_carried(t) or not t.state.is_finished())
    ]
    own = next((t for t in alive if t.number == number), None)
    if own is None:
        return None
    free = [
        params
        for params in initial_points
        if not any(_agrees(t, params) and _drawn(t, params) for t in alive)
    ]
    for trial in alive:
        if trial.number < number and not trial.state.is_finished():
            taken = next((p for p in free if _agrees(trial, p) and not _drawn(trial, p)), None)
            free = [params for params in free if params is not taken]
    return next((params for params in free if _agrees(own, params)), None)


def _agrees(trial: FrozenTrial, params: Params) -> bool:
    return all(trial.params.get(name, value) == value for name, value in params.items())


def _drawn(trial: FrozenTrial, params: Params) -> bool:
    return params.keys() <= trial.params.keys()


def _is_repeated(params: Params, others: Mapping[str, Any]) -> bool:
    """Whether `others` equal `params`, with numbers compared to nine digits."""
    return bool(params) and all(name in others and _is_same(params[name], others[name]) for name in params)


def _is_same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-9)
    return bool(one == other)


def make_sampler(spec: algorithms.Sampler, *, seed: int, number: int) -> BaseSampler:
    """Create Optuna's sampler for `spec`, seeded by `seed` and the trial's number."""
    own_seed = seed_for(seed, number) % 2**32
    match spec:
        case algorithms.TpeSampler():
            return optuna.samplers.TPESampler(
                n_startup_trials=spec.n_startup_trials, n_ei_candidates=spec.n_ei_candidates, seed=own_seed
            )
        case algorithms.RandomSampler():
            return optuna.samplers.RandomSampler(seed=own_seed)
        case algorithms.GpSampler():
            return optuna.samplers.GPSampler(n_startup_trials=spec.n_startup_trials, seed=own_seed)
        case algorithms.NsgaSampler():
            return optuna.samplers.NSGAIISampler(population_size=spec.population_size, seed=own_seed)
        case algorithms.GridSampler():  # its points are initial ones; this draws what an enqueued trial lacks
            return optuna.samplers.RandomSampler(seed=own_seed)
        case _:
            assert_never(spec)


def make_pruner(spec: algorithms.Pruner, *, epochs_max: int, n_linear: int = 0) -> BasePruner:
    """Create Optuna's pruner for `spec`; with `min_epochs` = m no trial is pruned before m epochs.

    Args:
        n_linear: linear classifiers among the first trials. They say nothing about the courses of networks,
            so pruning starts that much later.
    """
    match spec:
        case algorithms.NoPruner() | algorithms.PromotionPruner() | algorithms.FrontPruner():
            return optuna.pruners.NopPruner()
        case algorithms.MedianPruner():
            return optuna.pruners.MedianPruner(
                n_startup_trials=spec.n_startup_trials + n_linear, n_warmup_steps=spec.min_epochs - 1
            )
        case algorithms.PercentilePruner():
            return optuna.pruners.PercentilePruner(
                spec.percentile,
                n_startup_trials=spec.n_startup_trials + n_linear,
                n_warmup_steps=spec.min_epochs - 1,
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
