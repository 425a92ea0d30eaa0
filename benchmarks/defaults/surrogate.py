"""A surrogate fitted to recorded points, and searches on it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.model_selection import cross_val_predict

from benchmarks.defaults.replay import Floats, Recording
from tlopt.search.samplers import InitialPointsSampler
from tlopt.spec.algorithms import Sampler
from tlopt.storage.attributes import POINT

DISTRIBUTIONS: dict[str, BaseDistribution] = {
    "transfer_depth": IntDistribution(8, 17),
    "freeze_depth": IntDistribution(0, 17),
    "lr": FloatDistribution(1e-4, 2e-2, log=True),
    "lr_ratio": FloatDistribution(0.03, 1.0, log=True),
    "l2_sp": FloatDistribution(1e-5, 1.0, log=True),
    "augmentation": FloatDistribution(0.0, 1.0),
}


def features(params: Mapping[str, Any]) -> list[float]:
    """The surrogate's inputs: effective depths, logarithms of rates and strengths, augmentation."""
    return [
        params["transfer_depth"],
        min(params["freeze_depth"], params["transfer_depth"]),
        float(np.log(params["lr"])),
        float(np.log(params["lr_ratio"])),
        float(np.log(max(params["l2_sp"], 5e-5))),  # "off" is one point
        params["augmentation"],
    ]


@dataclass(frozen=True, kw_only=True)
class Surrogate:
    """A synthetic accuracy: `mean` of `features` (points, 6), in [0, 1], plus normal noise."""

    mean: Callable[[Floats], Floats]
    best: float  # best mean of 20,000 random points
    noise: float  # standard deviation
    r2: float  # leave-one-out
    first: list[dict[str, Any]]  # the defaults


def fit_surrogate(recording: Recording) -> Surrogate:
    """Extra-trees fitted to the recorded points; the noise is that of an accuracy on `n_val` images."""
    x = np.array([features(p) for p in recording.params])
    y = recording.pooled
    trees = ExtraTreesRegressor(n_estimators=40, min_samples_leaf=2, random_state=0)
    seen_elsewhere = cross_val_predict(trees, x, y, cv=len(y))
    trees.fit(x, y)
    rng = np.random.default_rng(0)
    random_points = [draw_params(rng) for _ in range(20_000)]
    best = float(trees.predict(np.array([features(p) for p in random_points])).max())
    return Surrogate(
        mean=lambda points: mean_of_trees(trees, points),
        best=best,
        noise=float(np.sqrt(np.mean(y * (1 - y)) / recording.n_val)),
        r2=1 - float(np.mean((seen_elsewhere - y) ** 2) / np.var(y)),
        first=recording.params[:2],
    )


def mean_of_trees(trees: ExtraTreesRegressor, points: Floats) -> Floats:
    """`trees.predict` for `points` (n, 6), without its overhead for a single row."""
    rows = points.astype(np.float32)
    mean: Floats = np.mean([tree.tree_.predict(rows)[:, 0] for tree in trees.estimators_], axis=0)
    return mean


def draw_params(rng: np.random.Generator) -> dict[str, Any]:
    """A uniform draw from the space of `DISTRIBUTIONS`."""
    drawn: dict[str, Any] = {}
    for name, range_ in DISTRIBUTIONS.items():
        match range_:
            case IntDistribution():
                drawn[name] = int(rng.integers(range_.low, range_.high + 1))
            case FloatDistribution(log=True):
                drawn[name] = float(np.exp(rng.uniform(np.log(range_.low), np.log(range_.high))))
            case FloatDistribution():
                drawn[name] = float(rng.uniform(range_.low, range_.high))
    return drawn


@dataclass(frozen=True, kw_only=True)
class Trials:
    """The trials of one search, in order."""

    params: list[dict[str, Any]]
    means: Floats  # without noise
    values: Floats


def search(surrogate: Surrogate, sampler: Sampler, seed: int, n_trials: int) -> Trials:
    """The trials of one search, which begins with the defaults."""
    rng = np.random.default_rng(seed)
    study = optuna.create_study(
        direction="maximize", sampler=InitialPointsSampler(lambda _: surrogate.first, sampler, seed=seed)
    )
    params, means, values = [], [], []
    for _ in range(n_trials):
        trial = study.ask(DISTRIBUTIONS)
        trial.set_user_attr(POINT, trial.params)  # an initial point is taken by a trial that ran here
        mean = float(surrogate.mean(np.array([features(trial.params)]))[0])
        values.append(mean + surrogate.noise * rng.standard_normal())
        means.append(mean)
        params.append(dict(trial.params))
        study.tell(trial, values[-1])
    return Trials(params=params, means=np.array(means), values=np.array(values))
