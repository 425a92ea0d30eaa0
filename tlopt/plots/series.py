"""Series of numbers that figures draw: best so far, running median, a fair choice of points."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

MEDIAN_POINTS_MIN = 12  # a running median of fewer points follows each of them
_MEDIAN_AT_MAX = 60  # places at which a running median is taken
_LIMITS_ALL_MAX = 20  # values that an axis shows to the last
_WINDOW_MIN = 9
_WINDOW_SHARE = 10  # a window is a tenth of the points, or `_WINDOW_MIN` of them


def best_so_far(values: Sequence[float | None], direction: str) -> Array:
    """The best of `values` up to each one; NaN before the first that is there."""
    given = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    best = np.fmin if direction == "minimize" else np.fmax
    return np.asarray(best.accumulate(given), dtype=np.float64) if len(given) else given


def running_median(x: Array, y: Array) -> tuple[Array, Array]:
    """Places on `x`, ascending, and the median of `y` of the points nearest to each.

    A window is a tenth of the points, at least nine; points as near as its farthest one belong to it, so that
    a window never divides points at one place. Empty for fewer than `MEDIAN_POINTS_MIN` points.
    """
    if len(x) < MEDIAN_POINTS_MIN:
        return np.empty(0), np.empty(0)
    n = max(_WINDOW_MIN, len(x) // _WINDOW_SHARE)
    places = np.unique(x)
    at = places[evenly(len(places), _MEDIAN_AT_MAX)]
    medians = [np.median(y[_nearest(np.abs(x - place), n)]) for place in at]
    return at, np.array(medians)


def _nearest(distances: Array, n: int) -> NDArray[np.bool_]:
    farthest = float(np.partition(distances, n - 1)[n - 1])
    return np.less_equal(distances, farthest)


def evenly(n: int, n_max: int, *, keep: Iterable[int] = ()) -> NDArray[np.int64]:
    """Ascending indices below `n`: all of them, or about `n_max` evenly spaced ones and those in `keep`."""
    if n <= n_max:
        return np.arange(n)
    chosen = np.linspace(0, n - 1, n_max).round().astype(np.int64)
    return np.unique(np.concatenate([chosen, np.fromiter(keep, dtype=np.int64)]))


def value_limits(values: Array, direction: str) -> tuple[float, float]:
    """The part of an axis that shows `values`, of many all but the worst twentieth, with a margin.

    A few trials that went astray would otherwise press the others into a line.
    """
    shown = values[np.isfinite(values)]
    if not len(shown):
        return 0.0, 1.0
    worst = 0.05 if len(shown) > _LIMITS_ALL_MAX else 0.0
    minimize = direction == "minimize"
    low = shown.min() if minimize else np.quantile(shown, worst)
    high = np.quantile(shown, 1 - worst) if minimize else shown.max()
    margin = 0.08 * (high - low) or 0.02 * max(abs(float(high)), 0.01)
    return float(low - margin), float(high + margin)
