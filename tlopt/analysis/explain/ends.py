"""Evidence about the ends of a range: the best lies there, or everything there is worse.

Only intervals decide, and the best trials have to agree. Places are positions in the range.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from tlopt.analysis.explain.effects import CELLS, SMALL, Effect
from tlopt.analysis.explain.observations import Key
from tlopt.analysis.explain.surface import Interval
from tlopt.plots.series import Array
from tlopt.spec.dimensions import OFF_SHARE, Int, Log

EDGE = 0.15  # share of a range that counts as its end
CUT_MIN = 0.15  # share of a range that is worth cutting: the trials there are not carried over
LEFT_MIN = 0.5  # share of a range that is never cut
_MIDDLE = (0.3, 0.7)  # shares of a range
_MARGIN = 1 / CELLS  # between a cut and the nearest of the best trials

End = Literal["low", "high"]
ENDS: tuple[End, End] = ("low", "high")


@dataclass(frozen=True, kw_only=True)
class BestAtEnd:
    """The best values lie at one end of a range."""

    border: float  # the end is what lies beyond it
    n_there: int  # of the best trials
    ahead: Interval  # goodness at the end minus that in the middle


@dataclass(frozen=True, kw_only=True)
class WorseEnd:
    """Everything between one end of a range and `border` is worse than the best place."""

    border: float
    gap: Interval  # goodness at the best place minus the mean of that part


def best_at(end: End, effect: Effect, best: Array) -> BestAtEnd | None:
    """Evidence that the best lies at `end`, or None.

    Half of the best trials lie there, and the interval of the difference from the middle excludes 0.

    Args:
        best: positions of the best trials.
    """
    dimension = effect.key.dimension
    if end == "low" and isinstance(dimension, Log) and dimension.zero:
        return None  # "off" lies beyond this end
    zone = max(EDGE, 0.5 / (dimension.high - dimension.low)) if isinstance(dimension, Int) else EDGE
    away = _from_end(effect.key, effect.at, end)
    there, middle = away <= zone, (away >= _MIDDLE[0]) & (away <= _MIDDLE[1])
    if not middle.any():
        middle = ~there & (away <= 1)
    n_there = int((_from_end(effect.key, best, end) <= zone).sum())
    ahead = Interval.of(effect.draws[:, there].mean(axis=1) - effect.draws[:, middle].mean(axis=1))
    if 2 * n_there < len(best) or ahead.low <= 0:
        return None
    off = _off_share(effect.key)
    border = off + (1 - off) * zone if end == "low" else 1 - (1 - off) * zone
    return BestAtEnd(border=border, n_there=n_there, ahead=ahead)


def worse_ends(effect: Effect, kept: Array) -> dict[End, WorseEnd]:
    """The ends of a range that are evidently worse than its best place; at least half of it is left.

    Args:
        kept: positions of the trials that have to stay.
    """
    borders = {end: border for end in ENDS if (border := _border(end, effect, kept)) is not None}
    low, high = borders.get("low", 0.0), borders.get("high", 1.0)
    lack = LEFT_MIN - (high - low)
    if lack > 0:  # both ends are drawn back alike
        share = lack / (low + 1 - high)
        borders = {end: at - share * (at - float(end == "high")) for end, at in borders.items()}
        borders = {end: at for end, at in borders.items() if _length(end, at) >= CUT_MIN}
    return {end: WorseEnd(border=at, gap=_gap(end, at, effect)) for end, at in borders.items()}


def _border(end: End, effect: Effect, kept: Array) -> float | None:
    """The position up to which everything from an end on is evidently worse; None if that is not much."""
    cells = range(len(effect.at)) if end == "low" else range(len(effect.at) - 1, -1, -1)
    border = float(end == "high")
    for cell, following in pairwise(cells):
        if not is_worse(effect.behind_best(cell), effect):
            break
        border = float(effect.at[cell] + effect.at[following]) / 2
    if end == "low":
        border = min(border, float(kept.min()) - _MARGIN)
    else:
        border = max(border, float(kept.max()) + _MARGIN)
    return border if _length(end, border) >= CUT_MIN else None


def _gap(end: End, border: float, effect: Effect) -> Interval:
    """Goodness at the best place minus the mean of the cells beyond the border, or of the outermost one."""
    beyond = effect.at <= border if end == "low" else effect.at >= border
    if not beyond.any():
        beyond = effect.at == (effect.at.min() if end == "low" else effect.at.max())
    return Interval.of(effect.draws[:, effect.best] - effect.draws[:, beyond].mean(axis=1))


def _length(end: End, border: float) -> float:
    return border if end == "low" else 1 - border


def is_worse(gap: Interval, effect: Effect) -> bool:
    """Whether a place is evidently worse than the best one, by a difference that is not small."""
    return gap.low > 0 and gap.mean >= SMALL * effect.spread


def _from_end(key: Key, positions: Array, end: End) -> Array:
    """Distances from an end, as shares of the range without its "off" part."""
    off = _off_share(key)
    inner = (positions - off) / (1 - off)
    return np.asarray(inner if end == "low" else 1 - inner)


def _off_share(key: Key) -> float:
    return OFF_SHARE if isinstance(key.dimension, Log) and key.dimension.zero else 0.0
