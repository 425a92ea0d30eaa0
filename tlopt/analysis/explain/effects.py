"""Effects of single keys, of pairs of keys, and interactions, with intervals over resampled trials."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np

from tlopt.analysis.explain.observations import Key, Observations
from tlopt.analysis.explain.surface import Interval, Surface, band
from tlopt.plots.series import Array
from tlopt.spec.dimensions import OFF_SHARE, Choice, Int, Log, Uniform

CELLS = 12  # positions along a range at which a dependence is computed
MAP_CELLS = 8
SMALL = 0.2  # standard deviations; Cohen 1988 calls a difference of this size small
DEPTHS = ("transfer_depth", "freeze_depth", "norm_depth")
RATES = ("lr", "lr_ratio")
PULLS = ("l2_sp", "l2")
_HALF = (0.125, 0.375)  # positions in the lower half of a range; the upper half has their mirror images


@dataclass(frozen=True, kw_only=True, eq=False)
class Effect:
    """The objective along one key, averaged over the other keys of the trials (partial dependence).

    Attributes:
        at: positions (G,) in the range.
        draws: goodness (R, G) in each resample, see `Observations.goodness`.
        contrast: goodness at the best position minus that at the worst one.
        spread: standard deviation of goodness over all trials.
    """

    key: Key
    at: Array
    draws: Array
    contrast: Interval
    spread: float

    @property
    def best(self) -> int:
        """The index of the best position."""
        return int(self.draws.mean(axis=0).argmax())

    @property
    def worst(self) -> int:
        """The index of the worst position."""
        return int(self.draws.mean(axis=0).argmin())

    @property
    def is_clear(self) -> bool:
        """Whether the interval of the contrast excludes 0."""
        return self.contrast.low > 0

    @property
    def is_absent(self) -> bool:
        """Whether the interval of the contrast excludes all but a small effect."""
        return self.contrast.high < SMALL * self.spread

    @property
    def band(self) -> tuple[Array, Array, Array]:
        """Mean, lower and upper end of the interval of goodness at each position, (G,) each."""
        return band(self.draws)

    def behind_best(self, index: int) -> Interval:
        """Goodness at the best position minus that at position `index`."""
        return Interval.of(self.draws[:, self.best] - self.draws[:, index])


@dataclass(frozen=True, kw_only=True)
class Interaction:
    """Whether the best half of a rate depends on a depth.

    Attributes:
        difference: gain from the lower to the upper half of the rate in the upper half of the depth, minus
            the same gain in the lower half of the depth; positive: deeper goes with a higher rate.
    """

    depth: str
    rate: str
    difference: Interval

    @property
    def is_clear(self) -> bool:
        """Whether the interval excludes 0."""
        return self.difference.low > 0 or self.difference.high < 0


@dataclass(frozen=True, kw_only=True, eq=False)
class PairEffect:
    """The objective over two keys, averaged over the others.

    Attributes:
        at: positions (G,) and (H,).
        draws: goodness (R, G, H) in each resample.
        trials: positions (N, 2) of the trials.
    """

    keys: tuple[Key, Key]
    at: tuple[Array, Array]
    draws: Array
    trials: Array

    @property
    def best(self) -> tuple[int, int]:
        """The indices of the best cell."""
        return self._cell(int(self.draws.mean(axis=0).argmax()))

    @property
    def contrast(self) -> Interval:
        """Goodness in the best cell minus that in the worst one."""
        best, worst = self.best, self.worst
        return Interval.of(self.draws[:, *best] - self.draws[:, *worst])

    @property
    def worst(self) -> tuple[int, int]:
        """The indices of the worst cell."""
        return self._cell(int(self.draws.mean(axis=0).argmin()))

    def _cell(self, flat: int) -> tuple[int, int]:
        row, column = np.unravel_index(flat, self.draws.shape[1:])
        return int(row), int(column)


def effects(seen: Observations, surface: Surface) -> Iterator[Effect]:
    """The effect of each key, the largest contrast first."""
    spread = float(seen.goodness.std())
    found = []
    for index, key in enumerate(seen.keys):
        at = grid(key, CELLS)
        draws = surface.dependence([index], at[:, None])
        mean = draws.mean(axis=0)
        contrast = Interval.of(draws[:, mean.argmax()] - draws[:, mean.argmin()])
        found.append(Effect(key=key, at=at, draws=draws, contrast=contrast, spread=spread))
    yield from sorted(found, key=lambda effect: -effect.contrast.mean)


def interactions(seen: Observations, surface: Surface) -> Iterator[Interaction]:
    """The interaction of each searched depth with each searched rate."""
    names = [key.name for key in seen.keys if not isinstance(key.dimension, Choice)]
    for depth, rate in product(DEPTHS, RATES):
        if depth in names and rate in names:
            yield Interaction(depth=depth, rate=rate, difference=_difference(seen, surface, depth, rate))


def _difference(seen: Observations, surface: Surface, depth: str, rate: str) -> Interval:
    halves = [*_HALF, *(1 - position for position in reversed(_HALF))]
    at = np.array(list(product(halves, halves)))
    draws = surface.dependence([seen.index(depth), seen.index(rate)], at)
    quarters = draws.reshape(-1, 2, len(_HALF), 2, len(_HALF)).mean(axis=(2, 4))  # depth, then rate
    gain = quarters[:, :, 1] - quarters[:, :, 0]
    return Interval.of(gain[:, 1] - gain[:, 0])


def maps(seen: Observations, surface: Surface, known: tuple[Interaction, ...]) -> Iterator[PairEffect]:
    """The maps of the strongest interaction of depth and rate, and of (l2_sp, l2), as far as searched."""
    strongest = sorted(known, key=lambda row: -abs(row.difference.mean))
    pairs = [(row.depth, row.rate) for row in strongest[:1]]
    names = [key.name for key in seen.keys if isinstance(key.dimension, (Int, Uniform, Log))]
    if all(name in names for name in PULLS):
        pairs.append(PULLS)
    for pair in pairs:
        columns = [seen.index(name) for name in pair]
        keys = (seen.keys[columns[0]], seen.keys[columns[1]])
        at = (grid(keys[0], MAP_CELLS), grid(keys[1], MAP_CELLS))
        draws = surface.dependence(columns, np.array(list(product(*at))))
        yield PairEffect(
            keys=keys,
            at=at,
            draws=draws.reshape(-1, len(at[0]), len(at[1])),
            trials=seen.positions[:, columns],
        )


def grid(key: Key, n: int) -> Array:
    """About `n` positions in the middle of equal cells; each whole number or option where there are fewer.

    Of a range with "off", the first position is in the middle of the part that means it.
    """
    match key.dimension:
        case Choice(options):
            return np.linspace(0, 1, len(options))
        case Int(low, high) if high - low < n:
            return np.linspace(0, 1, high - low + 1)
        case Log(zero=True):
            cells = OFF_SHARE + (1 - OFF_SHARE) * (np.arange(n - 1) + 0.5) / (n - 1)
            return np.array([OFF_SHARE / 2, *cells])
        case _:
            return np.asarray((np.arange(n) + 0.5) / n)
