"""Series of numbers in figures: best so far, running median, evenly spaced points, axis limits."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

MEDIAN_POINTS_MIN = 12  # with fewer, a running median follows single points
_MEDIAN_AT_MAX = 60  # positions at which the running median is computed
_LIMITS_ALL_MAX = 20  # with up to this many values, an axis shows all
_WINDOW_MIN = 9
_WINDOW_SHARE = 10  # a window has a tenth of the points, at least `_WINDOW_MIN`


def best_so_far(values: Sequence[float | None], direction: str) -> Array:
    """The best of `values` up to and including each one; NaN before the first that is not None."""
    given = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    best = np.fmin if direction == "minimize" else np.fmax
    return np.asarray(best.accumulate(given), dtype=np.float64) if len(given) else given


def running_median(x: Array, y: Array) -> tuple[Array, Array]:
    """Ascending positions on `x`, and the median of `y` over the points nearest to each.

    A window has a tenth of the points, at least nine, and all points as near as its farthest one. Empty for
    fewer than `MEDIAN_POINTS_MIN` points.
    """
    if len(x) < MEDIAN_POINTS_MIN:
        return np.empty(0), np.empty(0)
    n = max(_WINDOW_MIN, len(x) // _WINDOW_SHARE)
    positions = np.unique(x)
    at = positions[evenly(len(positions), _MEDIAN_AT_MAX)]
    medians = [np.median(y[_nearest(np.abs(x - position), n)]) for position in at]
    return at, np.array(medians)


def _nearest(distances: Array, n: int) -> NDArray[np.bool_]:
    farthest = float(np.partition(distances, n - 1)[n - 1])
    return np.less_equal(distances, farthest)


def evenly(n: int, n_max: int, *, keep: Iterable[int] = ()) -> NDArray[np.int64]:
    """Ascending indices below `n`: all, or about `n_max` evenly spaced ones and those in `keep`."""
    if n <= n_max:
        return np.arange(n)
    chosen = np.linspace(0, n - 1, n_max).round().astype(np.int64)
    return np.unique(np.concatenate([chosen, np.fromiter(keep, dtype=np.int64)]))


def value_limits(values: Array, direction: str) -> tuple[float, float]:
    """Limits of an axis for `values`, with a margin; of many values, the worst twentieth is left out.

    A few bad trials would otherwise compress the others into a line.
    """
    finite = values[np.isfinite(values)]
    if not len(finite):
        return 0.0, 1.0
    worst = 0.05 if len(finite) > _LIMITS_ALL_MAX else 0.0
    minimize = direction == "minimize"
    low = finite.min() if minimize else np.quantile(finite, worst)
    high = np.quantile(finite, 1 - worst) if minimize else finite.max()
    margin = 0.08 * (high - low) or 0.02 * max(abs(float(high)), 0.01)
    return float(low - margin), float(high + margin)
