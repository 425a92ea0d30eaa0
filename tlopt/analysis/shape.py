"""The shape of a curve over seeds: where its optimum can lie, and whether it dips; one peak is never assumed.

Values at two places of a curve are compared in pairs, seed by seed, with Student's t. A set of comparisons
shares an error of 5 % (Bonferroni), so that a statement about a whole curve is wrong for one curve in twenty:

- The places at which the optimum may lie are those that no other is better than, with k - 1 one-sided
  comparisons of k places [Gupta, Technometrics 7, 1965]: the true optimum is compared with k - 1 others, so
  it is excluded with a probability of at most 5 %, however the best mean was found.
- A dip is a place that is worse than one before and one after it. If the true curve rises and then falls, all
  places on one side of a place are no better than it; so the comparisons of its longer side are counted, over
  all inner places.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tlopt.confirmation.interval import CONFIDENCE, half_width, t_quantile

Array = NDArray[np.float64]
ERROR = 1 - CONFIDENCE
REPEATS_MIN = 2  # seeds that two places must share to be compared

# both: both ends remain possible; first, last: one end and places inside remain
Place = Literal["inside", "first", "last", "near first", "near last", "both", "unknown"]


@dataclass(frozen=True)
class Difference:
    """The mean of paired differences with half of its 95 % t interval; NaN for a single pair."""

    mean: float
    half_width: float
    n: int

    @property
    def is_told(self) -> bool:
        """Whether the interval excludes 0."""
        return abs(self.mean) > self.half_width


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What can be told of a curve; places are indices into it."""

    best: int  # of the best mean
    possible: tuple[int, ...]  # where the true optimum may lie, with 95 % confidence
    place: Place
    ends: Difference | None  # last minus first; None if they share no seed
    dip: tuple[int, int, int] | None  # a place worse than one before and one after it, in the middle


def shape_of(values: Array, *, higher_is_better: bool = True, step: float = 0.0) -> Shape:
    """The shape of a curve.

    Args:
        values: (places, seeds), NaN where a run has no value; at least one place and one value for each.
        step: difference that one validation image makes, so that equal values do not count as exact.
    """
    better = values if higher_is_better else -values
    means = np.nanmean(better, axis=1)
    best = int(np.argmax(means))
    possible = possible_best(better, step=step)
    return Shape(
        best=best,
        possible=possible,
        place=_place(possible, len(better), can_compare=_can_compare(better)),
        ends=paired(values[-1], values[0], step=step) if len(values) > 1 else None,
        dip=_dip(better, step=step),
    )


def possible_best(
    better: Array, *, step: float = 0.0, error: float = ERROR, choices: Sequence[Array] = ()
) -> tuple[int, ...]:
    """The places at which the optimum may lie, where higher is better; see the top of this module.

    Args:
        error: probability of excluding the true optimum, at most.
        choices: the values (points, seeds) from which those of each place were chosen, seed by seed; empty if
            they were not. Chosen values vary together, and t tests of them alone are wrong for up to 15 of
            100 equal places. A place then excludes another only if one of its points, too, is above all
            points of the other, with the error shared by its points.
    """
    k = len(better)
    error /= max(1, k - 1)

    def excludes(j: int, i: int) -> bool:
        if not is_above(better[j], better[i], error=error, step=step):
            return False
        shared = error / len(choices[j]) if choices else error
        return not choices or any(
            all(is_above(point, other, error=shared, step=step) for other in choices[i])
            for point in choices[j]
        )

    found = tuple(i for i in range(k) if not any(excludes(j, i) for j in range(k) if j != i))
    return found or tuple(range(k))  # places that share few seeds may exclude each other in a circle


def paired(values: Array, others: Array, *, step: float = 0.0) -> Difference | None:
    """The mean of `values - others` over the seeds that both have; None if there is none."""
    differences = (values - others)[np.isfinite(values - others)]
    if not len(differences):
        return None
    std = max(float(differences.std(ddof=1)), _floor(step)) if len(differences) > 1 else math.nan
    return Difference(float(differences.mean()), half_width(std, len(differences)), len(differences))


def is_above(values: Array, others: Array, *, error: float, step: float = 0.0) -> bool:
    """Whether `values` are above `others` in a one-sided paired t test with this error."""
    differences = (values - others)[np.isfinite(values - others)]
    n = len(differences)
    if n < REPEATS_MIN:
        return False
    std = max(float(differences.std(ddof=1)), _floor(step))
    return float(differences.mean()) > t_quantile(n - 1, 1 - 2 * error) * std / math.sqrt(n)


def _floor(step: float) -> float:
    """Least standard deviation of a difference of two values that are rounded to multiples of `step`."""
    return step / math.sqrt(6)


def _can_compare(better: Array) -> bool:
    shared = np.isfinite(better)
    return len(better) > 1 and int((shared[0] & shared[-1]).sum()) >= REPEATS_MIN


def _place(possible: Sequence[int], k: int, *, can_compare: bool) -> Place:
    first, last = 0 in possible, k - 1 in possible
    if not can_compare:
        return "unknown"
    if first and last:
        return "both"
    if not first and not last:
        return "inside"
    if first:
        return "first" if len(possible) == 1 else "near first"
    return "last" if len(possible) == 1 else "near last"


def _dip(better: Array, *, step: float) -> tuple[int, int, int] | None:
    """The deepest place that is worse than one before and one after it, between these two; None without."""
    k = len(better)
    n_comparisons = sum(max(i, k - 1 - i) for i in range(1, k - 1))
    means = np.nanmean(better, axis=1)
    found: list[tuple[float, tuple[int, int, int]]] = []
    for i in range(1, k - 1):
        error = ERROR / n_comparisons
        before = [j for j in range(i) if is_above(better[j], better[i], error=error, step=step)]
        after = [j for j in range(i + 1, k) if is_above(better[j], better[i], error=error, step=step)]
        if before and after:
            one, other = (max(side, key=lambda j: float(means[j])) for side in (before, after))
            found.append((min(means[one], means[other]) - means[i], (one, i, other)))
    return max(found)[1] if found else None
