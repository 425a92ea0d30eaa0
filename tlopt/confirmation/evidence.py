"""Whether one candidate is better than another one, by what a confirmation has measured.

Two errors are known. Training: what remains of the values of the candidates with every seed, once each
candidate's and each seed's mean are taken away, as in an analysis of variance with blocks. Images: the
binomial variance of a fraction of few validation images, as far as it is a network's own and other seeds do
not average it out.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from tlopt.spec.default_names import PARTLY_LABEL
from tlopt.spec.objectives import own_variance

# The default that was truly the best most often; another one needs the odds that a searched point needs
# ("Which default" in benchmarks/selection/README.md).
PREFERRED_DEFAULT = PARTLY_LABEL

# A searched point is chosen over the strongest default at odds of three to one: of the rules tried, the one
# that costs least among those with which at most 2 of 100 searches end below the default beyond noise, if the
# default has the best mean ("Default unless evidence" in benchmarks/selection/README.md). Few images need
# more, other images less. With a preferred default it is at most 2.1 ("Overtuning").
ODDS_MIN = 3.0
ODDS_OF_FEW = ((32, 6.0), (60, 4.0))  # of fewer images, the odds
ODDS_OF_OTHER = 1.5
ODDS_OF_FEW_OTHER = ((144, 2.0),)

# Share of a network's own error of the validation images that is common to its seeds. Not measured: half is
# assumed, and "Default unless evidence" has the result if it is none or all.
LASTING_SHARE = 0.5


@dataclass(frozen=True, kw_only=True)
class Lead:
    """The lead of one candidate over another on validation; positive is better."""

    point: str  # its label, such as that of the best searched point
    over: str  # label of the other one, such as that of the strongest default
    mean: float
    std_error: float

    @property
    def odds(self) -> float:
        """The odds that the point is truly better: P / (1 - P) with P = Φ(mean / std_error).

        Before the runs, every lead is taken to be equally likely. Infinite without an error.
        """
        if not self.std_error:
            return math.inf if self.mean > 0 else 0.0
        worse = 0.5 * math.erfc(self.mean / self.std_error / math.sqrt(2))
        return (1 - worse) / worse if worse else math.inf


def odds_min(n_images: int, *, others: bool) -> float:
    """The odds at which a searched point is chosen over the strongest default.

    The least for which at most 2 of 100 simulated searches end below the default, beyond noise ("Overtuning"
    in benchmarks/selection/README.md).

    Args:
        n_images: number of validation images over all splits that the seeds use; 0 if unknown.
        others: whether each seed has a split of its own that no trial of the search has seen.
    """
    few, usual = (ODDS_OF_FEW_OTHER, ODDS_OF_OTHER) if others else (ODDS_OF_FEW, ODDS_MIN)
    return next((odds for end, odds in few if 0 < n_images < end), usual)


def std_error_of_lead(values: Sequence[Sequence[float]], objective: str, n_images: int) -> float:
    """The standard error of the difference of two candidates' means.

    Args:
        values: (candidates, seeds), at least two of each.
        objective: by which they are compared.
        n_images: number of validation images, over all splits; 0 if unknown.
    """
    n_seeds = len(values[0])
    share = fmean(fmean(each) for each in values)
    images = LASTING_SHARE * own_variance(objective, share, n_images)
    return math.sqrt(2 * (residual_variance(values) / n_seeds + images))


def residual_variance(values: Sequence[Sequence[float]]) -> float:
    """The variance of a run, without what its candidate and its seed contribute: an analysis of variance.

    Args:
        values: (candidates, seeds), at least two of each.
    """
    rows = [fmean(each) for each in values]
    columns = [fmean(each) for each in zip(*values, strict=True)]
    centre = fmean(rows)
    squares = (
        (value - row - column + centre) ** 2
        for row, each in zip(rows, values, strict=True)
        for column, value in zip(columns, each, strict=True)
    )
    return sum(squares) / ((len(rows) - 1) * (len(columns) - 1))
