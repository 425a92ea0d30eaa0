"""Grids: every combination of listed values, or of the values of named recipes, over the same seeds.

A replicate r has one seed and one split for all points, so that points are compared in pairs. A grid is drawn
like the runs of a confirmation: its trials are initial points, each taken once over all workers.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from tlopt.errors import Refused, SpecError
from tlopt.model.facts import BackboneFacts
from tlopt.search import user_params
from tlopt.search.space import Params, decode_params, live_keys, search_space, without_idle_keys
from tlopt.spec import PerOptimizer, Study
from tlopt.spec.algorithms import GridSampler, Recipe
from tlopt.spec.dimensions import Choice, Dimension, Fixed, Int, Scalar
from tlopt.spec.point import Point
from tlopt.storage.attributes import ran_here, trials_of
from tlopt.system.words import counted

REPLICATE = "replicate"
_REPLICATES_MAX = 10_000_000  # of the distribution, which stays as it is when `repeats` is raised


@dataclass(frozen=True, kw_only=True)
class GridPoint:
    """A point of a grid, with the parameters that give it and the recipes that it belongs to."""

    params: Params  # without the replicate
    point: Point
    recipes: tuple[str, ...]  # empty in a grid without recipes


def grid_points(study: Study, facts: BackboneFacts) -> tuple[GridPoint, ...]:
    """The different points of a grid, in the order of its recipes and values.

    Combinations that mean the same, such as depths capped by each other, are one point.
    """
    assert isinstance(study.sampler, GridSampler), "the study is a grid"
    space = search_space(study)
    found: dict[Point, GridPoint] = {}
    recipes: Mapping[str, Recipe] = study.sampler.recipes or {"": {}}
    for recipe, keys in recipes.items():
        for params in _combinations(study, keys, space):
            point = decode_params(params, study, facts)
            known = found.get(point)
            names = (recipe,) if recipe else ()
            earlier = () if known is None else known.recipes
            found[point] = GridPoint(
                params=params if known is None else known.params,
                point=point,
                recipes=earlier if set(names) <= set(earlier) else (*earlier, *names),
            )
    return tuple(found.values())


def _combinations(study: Study, recipe: Recipe, space: Mapping[str, BaseDistribution]) -> Iterator[Params]:
    """Parameters of every combination of a recipe's values with the listed values of other keys."""
    assert isinstance(study.sampler, GridSampler), "the study is a grid"
    of_recipes = {key for keys in study.sampler.recipes.values() for key in keys}
    values: dict[str, tuple[Scalar, ...]] = {}
    for name, dimension in (("backbone", study.model.backbone), *study.search.items()):
        if isinstance(dimension, Fixed):
            continue
        listed = _listed(dimension)
        values[name] = recipe.get(name, listed[:1]) if name in of_recipes else listed
    for combination in product(*values.values()):
        params = dict(zip(values, combination, strict=True))
        live = live_keys(params, space)
        yield {name: params[name] for name in space if name in live}


def _listed(dimension: Dimension | PerOptimizer) -> tuple[Scalar, ...]:
    match dimension:
        case Choice(options):
            return options
        case Int(low, high):
            return tuple(range(low, high + 1))
        case _:
            raise TypeError(f"a grid has listed values only, not {dimension}")


def check_grid(study: Study, facts: BackboneFacts) -> None:
    """Check that the budget of a grid is the number of its trials.

    Raises:
        SpecError: it is not; says the number.
    """
    if not isinstance(study.sampler, GridSampler):
        return
    n_points, repeats = len(grid_points(without_idle_keys(study, facts), facts)), study.sampler.repeats
    if study.budget.trials != n_points * repeats:
        raise SpecError(
            f"budget.trials = {study.budget.trials}: the grid has {counted(n_points, 'point')} and"
            f" sampler.repeats = {repeats}; write trials = {n_points * repeats}"
        )


def open_params(study: Study, points: Sequence[GridPoint]) -> list[Params]:
    """Parameters of all trials of a grid: the first replicate of every point, then the next."""
    assert isinstance(study.sampler, GridSampler), "the study is a grid"
    return [{**each.params, REPLICATE: r} for r in range(study.sampler.repeats) for each in points]


def grid_space(study: Study) -> dict[str, BaseDistribution]:
    """Distributions of a grid's parameters: those of the search space, and the replicate."""
    return search_space(study) | {REPLICATE: IntDistribution(0, _REPLICATES_MAX)}


def encode_grid_params(given: Mapping[str, Any], study: Study) -> Params:
    """Encode parameters given by users; without a replicate, they are for the first.

    Raises:
        Refused: the message names each invalid key and value, and what is allowed.
    """
    if not given:
        return {}
    replicate = given.get(REPLICATE, 0)
    if isinstance(replicate, bool) or not isinstance(replicate, int) or not 0 <= replicate <= _REPLICATES_MAX:
        raise Refused(f"{REPLICATE} = {replicate!r}: a whole number from 0")
    own = {name: value for name, value in given.items() if name != REPLICATE}
    return user_params.encode_user_params(own, study) | {REPLICATE: replicate}


def n_open(study: Study, opened: optuna.Study) -> int:
    """Number of trials to finish: those of the grid, and those that users have enqueued beside them."""
    trials = trials_of(opened)
    return study.budget.trials_max + sum(map(_is_extra, trials))


def _is_extra(trial: FrozenTrial) -> bool:
    """Whether a trial was enqueued by a user and counts toward the budget."""
    enqueued = "fixed_params" in trial.system_attrs and trial.state != TrialState.FAIL
    return enqueued and (ran_here(trial) or not trial.state.is_finished())
