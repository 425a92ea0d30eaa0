"""Synthetic search problems in which part of the space cannot be trained."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FixedTrial

from benchmarks.defaults.replay import read
from benchmarks.defaults.surrogate import DISTRIBUTIONS, features, fit_surrogate
from tlopt.model.facts import BackboneFacts
from tlopt.search.defaults import defaults
from tlopt.search.space import suggest
from tlopt.spec import loads
from tlopt.spec.point import Point

STUDY = loads(
    """
    name = "failed-points"
    data.source = "none"
    model.backbone = "resnet50"
    budget = { trials = 100, epochs = 8 }
    [search]
    optimizer = "sgd"
    transfer_depth = { int = [0, 17] }
    freeze_depth = { int = [0, 17] }
    lr = { log = [1e-3, 1.0] }
    lr_ratio = { log = [1e-2, 1.0] }
    l2_sp = { log = [1e-3, 10.0], zero = true }
    l2 = { log = [1e-6, 1e-1], zero = true }
    batch_size = { choice = [8, 16, 32, 64, 128, 256] }
    """,
    "failed_points.py",
)
FACTS = BackboneFacts(
    n_blocks={"resnet50": 17},
    transferable=True,
    resolution={"resnet50": 224},
    batch_norm={"resnet50": True},
    plain_lr={"resnet50": {"sgd": 0.01}},
)


def accuracy(point: Point) -> float:
    """Smooth; best at low freeze depths, large batches and high rates, next to the failing regions."""
    lr_best = 0.5 * (point.batch_size / 256) ** 0.5
    return (
        0.9
        - 0.2 * ((14 - point.transfer_depth) / 17) ** 2
        - 0.2 * (point.freeze_depth / 17) ** 2
        - 0.02 * math.log2(256 / point.batch_size)
        - 0.05 * math.log10(point.lr / lr_best) ** 2
        - 0.03 * math.log10(point.lr_ratio / 0.3) ** 2
        - 0.02 * math.log10(max(point.l2_sp, 3e-4) / 1.0) ** 2
        - 0.01 * math.log10(max(point.l2, 1e-7) / 1e-3) ** 2
    )


def memory(point: Point) -> float:
    """Images times trainable blocks: proportional to the activations a step keeps for its backward pass."""
    return float(point.batch_size * (18 - point.freeze_depth))


def instability(point: Point) -> float:
    """Above 1 if Nesterov momentum of 0.9 is unstable under the penalties, or the rate alone is too high."""
    return max(point.lr * (point.l2_sp + point.l2) / 1.36, point.lr / 0.5)


Params = dict[str, Any]
Measure = Callable[[Params], float]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A space, an accuracy on it and regions that cannot be trained: where a measure exceeds its limit."""

    name: str
    space: dict[str, BaseDistribution]
    mean: Measure
    regions: Sequence[tuple[Measure, float]]
    noise: float  # standard deviation of a value
    pruned: bool  # whether the median pruner stops trials
    first: list[Params]  # the study's defaults that can be trained
    share: float  # of the space that fails
    best: float  # mean of the best point that can be trained

    def fails(self, params: Params) -> bool:
        return any(measure(params) > limit for measure, limit in self.regions)


def make_problem(
    name: str,
    space: dict[str, BaseDistribution],
    mean: Measure,
    measures: Sequence[Measure],
    *,
    share: float,
    first: Sequence[Params],
    noise: float = 0.0,
    pruned: bool = False,
) -> Problem:
    """A problem in which about `share` of the space fails.

    Limits are quantiles over 2,000 random points; the best point is found by local search.
    """
    rng = np.random.default_rng(0)
    cube = rng.random((2000, len(space)))
    points = [params_at(space, unit) for unit in cube]
    each = (1 - share) ** (1 / len(measures))  # share of points below one limit if measures were independent
    regions = [(m, float(np.quantile([m(p) for p in points], each))) for m in measures]
    problem = Problem(
        name=name,
        space=space,
        mean=mean,
        regions=regions,
        noise=noise,
        pruned=pruned,
        first=[],
        share=0.0,
        best=0.0,
    )
    failed = [problem.fails(p) for p in points]
    best, unit = max((mean(p), i) for i, p in enumerate(points) if not failed[i])
    at = cube[unit]
    for step in np.geomspace(0.3, 0.003, 1500):
        near = np.clip(at + step * rng.standard_normal(len(at)) * (rng.random(len(at)) < 0.4), 0, 1)
        params = params_at(space, near)
        if not problem.fails(params) and mean(params) > best:
            best, at = mean(params), near
    trained = [params for params in first if not problem.fails(params)]
    return replace(problem, first=trained, share=float(np.mean(failed)), best=best)


def params_at(space: Mapping[str, BaseDistribution], unit: NDArray[np.float64]) -> Params:
    """The parameters at `unit` in the unit cube."""
    params: Params = {}
    for (name, range_), u in zip(space.items(), unit.tolist(), strict=True):
        match range_:
            case IntDistribution():
                params[name] = min(range_.low + int(u * (range_.high - range_.low + 1)), range_.high)
            case CategoricalDistribution():
                params[name] = range_.choices[min(int(u * len(range_.choices)), len(range_.choices) - 1)]
            case FloatDistribution(log=True):
                params[name] = range_.low * (range_.high / range_.low) ** u
            case FloatDistribution():
                params[name] = range_.low + u * (range_.high - range_.low)
    return params


def problems() -> list[Problem]:
    """Synthetic accuracies with several shares of failing points, and one fitted to recorded curves."""
    trial = optuna.create_study().ask()
    suggest(trial, STUDY, FACTS)

    def of_point(measure: Callable[[Point], float]) -> Measure:
        return lambda params: measure(suggest(FixedTrial(params), STUDY, FACTS))

    first = [d.params for d in defaults(STUDY, FACTS) if d.params is not None]
    space, mean = trial.distributions, of_point(accuracy)
    oom, diverges = of_point(memory), of_point(instability)
    recording = fit_surrogate(read(Path(__file__).parent / "curves" / "signdigits.json"))
    return [
        make_problem("memory 30 %", space, mean, [oom], share=0.3, first=first),
        make_problem("memory 60 %", space, mean, [oom], share=0.6, first=first),
        make_problem("divergence 15 %", space, mean, [diverges], share=0.15, first=first),
        make_problem("divergence 30 %", space, mean, [diverges], share=0.3, first=first),
        make_problem(
            "both 30 %, noise", space, mean, [oom, diverges], share=0.3, first=first, noise=0.02, pruned=True
        ),
        make_problem(
            "both 60 %, noise", space, mean, [oom, diverges], share=0.6, first=first, noise=0.02, pruned=True
        ),
        make_problem("both 90 %", space, mean, [oom, diverges], share=0.9, first=first),
        make_problem(
            "recorded 30 %",
            DISTRIBUTIONS,
            lambda params: float(recording.mean(np.array([features(params)]))[0]),
            [lambda params: -features(params)[1], lambda params: params["lr"]],
            share=0.3,
            first=recording.first,
            noise=recording.noise,
        ),
    ]
