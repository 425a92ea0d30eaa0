"""The objective as a function of the keys: regression trees on trials drawn again and again.

Each of `RESAMPLES` forests is fitted to a bootstrap sample of the trials, so that a statistic computed from
every forest has a distribution, and an interval from its quantiles.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from tlopt.analysis.explain.observations import Observations
from tlopt.plots.series import Array

RESAMPLES = 100
CONFIDENCE = 0.99  # of each interval: of several keys judged at once, one in a hundred would be wrong each
_DEVIATIONS = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
_TREES = 8  # in each forest
_LEAF_MIN = 2  # trials in a leaf: one alone would be noise
_BACKGROUND = 60  # trials over whose other keys a dependence is averaged


@dataclass(frozen=True)
class Interval:
    """The mean of a statistic over resamples, and its interval with `CONFIDENCE`."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, draws: Array) -> "Interval":
        """The normal interval of draws (R,): quantiles so far out would need thousands of them."""
        mean, half = float(draws.mean()), _DEVIATIONS * float(draws.std())
        return cls(mean, mean - half, mean + half)


def band(draws: Array) -> tuple[Array, Array, Array]:
    """The mean, and the lower and upper end of the interval, of each column of draws (R, G)."""
    mean, half = draws.mean(axis=0), _DEVIATIONS * draws.std(axis=0)
    return mean, mean - half, mean + half


class Surface:
    """`RESAMPLES` forests fitted to the trials of a search."""

    def __init__(self, seen: Observations, *, seed: int = 0) -> None:
        from sklearn.ensemble import ExtraTreesRegressor  # takes a second

        random = np.random.default_rng(seed)
        n = len(seen.goodness)
        self._seen = seen
        self._background = seen.positions[np.linspace(0, n - 1, min(n, _BACKGROUND)).round().astype(int)]
        self._forests: list[Any] = []
        for index in range(RESAMPLES):
            rows = random.integers(n, size=n)
            forest = ExtraTreesRegressor(n_estimators=_TREES, min_samples_leaf=_LEAF_MIN, random_state=index)
            self._forests.append(forest.fit(seen.positions[rows], seen.goodness[rows]))

    def predict(self, positions: Array) -> Array:
        """The goodness (R, M) at positions (M, K), from every forest."""
        rows = positions.astype(np.float32)
        return np.array([_mean_of_trees(forest, rows) for forest in self._forests], dtype=np.float64)

    def dependence(self, columns: Sequence[int], at: Array) -> Array:
        """Partial dependence (R, G) on some keys: the mean over trials that keep their other keys.

        Args:
            columns: columns of the keys.
            at: positions (G, len(columns)) of these keys.

        Source: Friedman 2001, https://doi.org/10.1214/aos/1013203451.
        """
        rows = np.tile(self._background, (len(at), 1))
        rows[:, list(columns)] = np.repeat(at, len(self._background), axis=0)
        found = self.predict(rows)
        each = found.reshape(len(found), len(at), len(self._background))
        return np.asarray(each.mean(axis=2), dtype=np.float64)


def _mean_of_trees(forest: Any, rows: Any) -> Array:
    """`forest.predict` without its overhead, which outweighs a tree of this size."""
    return np.asarray(np.mean([tree.tree_.predict(rows)[:, 0] for tree in forest.estimators_], axis=0))
