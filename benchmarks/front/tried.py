"""Rules that were tried to halve the epochs of a search with several objectives, replayed on recorded curves.

Families of rules, each with a few settings: stopping where a cheaper one is ahead, below the front, or
where little hypervolume is to be expected; and all of them with trials that pause after 1, 2 and 4 epochs, go
on in the best quarter by Pareto rank, and at the end of the search until they are stopped. Settings are
chosen on all sets of images but one and judged on that one.
"""

import argparse
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import NormalDist, fmean, stdev

import numpy as np
from scipy.stats import t as student

from benchmarks.defaults.replay import Floats, read
from benchmarks.front.plantings import CURVES, LEVELS, PLANTINGS
from tlopt.search.front import hypervolume
from tlopt.spec.algorithms import FrontPruner

FURTHER = Path(__file__).parents[1] / "insight" / "curves"  # two more sets, recorded likewise
RUNGS = (1, 2, 4, 8)  # of at most 16 epochs
PROMOTED = 4  # a trial goes on while the search does if it is among one in so many
DEFAULTS = 2
GAINS_MIN = 3
PRIOR_TRIALS = 3  # weight of the spread of values at an epoch beside that of the gains from it
REFERENCE = 1.1 * LEVELS[-1]
CHANCE = {
    "dtd10": 10,
    "emoji_g2t": 10,
    "fashion10": 10,
    "flowers5": 5,
    "rsscn7": 7,
    "signdigits": 10,
    "trash6": 6,
}
NORMAL = NormalDist()
SERVICE = FrontPruner()


@dataclass(frozen=True)
class Setting:
    """A rule with its settings; a rule without pauses trains each trial at once as far as it goes."""

    family: str
    pauses: bool = False
    upper: float = 0.0  # deviations above the expected end at which a trial must lead; 0: by hypervolume
    least: float = 0.0  # share of the hypervolume so far that a trial must be expected to add
    slope: float = 0.0  # of the loss of a lead at the first epoch until the end
    margin: float = 0.0  # deviations above the expected end at which a cheaper one must end that is ahead

    @property
    def words(self) -> str:
        deviations = self.margin or self.upper
        level = f"{deviations:g} deviations" if deviations else f"{100 * self.least:g} %"
        return f"{level}, slope {self.slope:g}"


def settings() -> Iterator[Setting]:
    for pauses in (False, True):
        how = "pause by Pareto rank, " if pauses else ""
        for slope in (0.0, 0.3, 0.6):
            for margin in (1.0, 1.5, 2.0, 3.0):
                yield Setting(
                    f"{how}stop where a cheaper one is ahead", pauses=pauses, margin=margin, slope=slope
                )
            for upper in (1.0, 1.25, 1.5):
                family = f"{how}stop below the front at the likely best"
                yield Setting(family, pauses=pauses, upper=upper, slope=slope)
            for least in (0.001, 0.002, 0.004):
                family = f"{how}stop where little hypervolume is expected"
                yield Setting(family, pauses=pauses, least=least, slope=slope)


@dataclass(kw_only=True)
class Search:
    """A search of all points of a recording, by one worker."""

    curves: Floats
    costs: Floats
    chance: float
    setting: Setting
    trained: dict[int, int] = field(default_factory=dict)  # epochs by point
    complete: list[int] = field(default_factory=list)
    stopped: set[int] = field(default_factory=set)
    volume: float = 0.0  # hypervolume of the complete points
    gains: dict[int, tuple[float, float, float]] = field(default_factory=dict)  # by epochs; see `gain`

    def run(self, order: Sequence[int]) -> tuple[int, list[int]]:
        """Epochs trained, and the points trained to their end; the first two are never stopped."""
        whole = self.curves.shape[1]
        for position, point in enumerate(order):
            if position < DEFAULTS:
                self.trained[point] = whole
                self.ends(point)
                continue
            self.train(point, RUNGS[0] if self.setting.pauses else whole)
            while (promoted := self.promoted()) is not None:
                self.train(promoted, self.rung_after(promoted))
        while waiting := [point for point in self.trained if self.waits(point) and self.promises(point)]:
            best = max(waiting, key=self.worth)
            self.train(best, self.rung_after(best))
        return sum(self.trained.values()), self.complete

    def waits(self, point: int) -> bool:
        return point not in self.stopped and point not in self.complete

    def rung_after(self, point: int) -> int:
        return next((rung for rung in RUNGS if rung > self.trained[point]), self.curves.shape[1])

    def train(self, point: int, until: int) -> None:
        for n in range(self.trained.get(point, 0) + 1, until + 1):
            self.trained[point] = n
            self.gains.clear()
            if n < self.curves.shape[1] and not self.promises(point):
                self.stopped.add(point)
                return
        if until == self.curves.shape[1]:
            self.ends(point)

    def ends(self, point: int) -> None:
        """Count a point as complete."""
        self.complete.append(point)
        self.gains.clear()
        rows = [(-float(self.curves[p, -1]), float(self.costs[p])) for p in self.complete]
        self.volume = hypervolume(rows, (-self.chance, REFERENCE))

    def promoted(self) -> int | None:
        """A paused point in the best quarter of those that came as far, of the highest rung that has one."""
        for rung in reversed(RUNGS) if self.setting.pauses else ():
            if not any(n == rung and self.waits(point) for point, n in self.trained.items()):
                continue
            there = [point for point, n in self.trained.items() if n >= rung]
            ranked = by_rank([(-self.curves[p, rung - 1], self.costs[p]) for p in there])
            for index in ranked[: len(there) // PROMOTED]:
                point = there[index]
                if self.trained[point] == rung and self.waits(point) and self.promises(point):
                    return point
        return None

    def end(self, point: int) -> tuple[float, float] | None:
        """Mean and deviation of the value at the end; None before enough trials are complete."""
        if len(self.complete) < GAINS_MIN:
            return None
        n = self.trained[point]
        if n not in self.gains:
            self.gains[n] = self.gain(n)
        value, (now, gain, deviation) = float(self.curves[point, n - 1]), self.gains[n]
        fades = self.setting.slope * (1 - n / self.curves.shape[1])
        return value + gain - fades * (value - now), deviation

    def gain(self, n: int) -> tuple[float, float, float]:
        """After `n` epochs: mean value of complete trials, and mean and deviation of the gain from there."""
        now = self.curves[self.complete, n - 1]
        gains = self.curves[self.complete, -1] - now
        spread = np.var([self.curves[p, n - 1] for p, far in self.trained.items() if far >= n], ddof=1)
        degrees = len(self.complete) - 1
        variance = (PRIOR_TRIALS * spread + degrees * gains.var(ddof=1)) / (PRIOR_TRIALS + degrees)
        return float(now.mean()), float(gains.mean()), max(1e-4, math.sqrt(variance))

    def steps(self, cost: float) -> Iterator[tuple[float, float]]:
        """Widths of the costs from `cost` on, with the front's value there."""
        edges = [
            *sorted({cost, *(float(c) for c in self.costs[self.complete] if cost < c < REFERENCE)}),
            REFERENCE,
        ]
        for low, high in pairwise(edges):
            below = [float(self.curves[p, -1]) for p in self.complete if self.costs[p] <= low]
            yield high - low, max([self.chance, *below])

    def added(self, point: int) -> float | None:
        """The hypervolume that the point would add, expected or at the likely best; None: not known yet."""
        end = self.end(point)
        if end is None:
            return None
        mean, deviation = end
        steps = self.steps(float(self.costs[point]))
        if self.setting.upper:
            return sum(w * max(0.0, mean + self.setting.upper * deviation - value) for w, value in steps)
        return sum(w * deviation * _expected((mean - value) / deviation) for w, value in steps)

    def is_beaten(self, point: int) -> bool:
        """`tlopt.search.front.is_beaten`, on arrays."""
        end = self.end(point)
        if end is None or len(self.complete) < SERVICE.n_startup_trials:
            return False
        epoch, done = self.trained[point] - 1, self.curves[self.complete]
        cheaper = self.costs[self.complete] <= self.costs[point]
        ahead = cheaper & (done[:, epoch] > self.curves[point, epoch])
        return bool((ahead & (done[:, -1] > end[0] + self.setting.margin * end[1])).any())

    def promises(self, point: int) -> bool:
        if self.setting.margin:
            return not self.is_beaten(point)
        added = self.added(point)
        if added is None:
            return True
        return added > self.setting.least * self.volume

    def worth(self, point: int) -> float:
        """Hypervolume per epoch; before it is known, the lead over points that cost no more."""
        n, added = self.trained[point], None if self.setting.margin else self.added(point)
        if added is not None:
            return float(added / (self.curves.shape[1] - n))
        cost = self.costs[point]
        others = [p for p, far in self.trained.items() if p != point and far >= n and self.costs[p] <= cost]
        best = max((float(self.curves[p, n - 1]) for p in others), default=0.0)
        return float(self.curves[point, n - 1]) - best


def _expected(z: float) -> float:
    """The mean of the positive part of a normal variable with mean `z` and deviation 1."""
    return NORMAL.pdf(z) + z * NORMAL.cdf(z)


def by_rank(rows: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of rows, front by front; within a front by the lead over rows that cost no more."""
    value, cost = np.array(rows, dtype=float).reshape(-1, 2).T
    no_dearer = cost <= cost[:, None]  # row i, column j: whether j costs no more than i
    no_worse = no_dearer & (value <= value[:, None])
    beats = no_worse & ((value < value[:, None]) | (cost < cost[:, None]))
    others = np.where(no_dearer & ~np.eye(len(rows), dtype=bool), value, np.inf).min(axis=1, initial=np.inf)
    behind = value - np.where(np.isinf(others), 0.0, others)
    left, ranked = np.ones(len(rows), dtype=bool), list[int]()
    while left.any():
        front = np.flatnonzero(left & ~(beats & left).any(axis=1))
        ranked += [int(i) for i in front[np.argsort(behind[front], kind="stable")]]
        left[front] = False
    return ranked


def replayed(setting: Setting, orders: int) -> dict[str, tuple[float, float]]:
    """By set of images: the mean share of epochs trained, and of hypervolume lost."""
    found = {}
    for file in sorted((*CURVES.glob("*.json"), *FURTHER.glob("*.json"))):
        recording, losses = read(file), list[tuple[float, float]]()
        for planting in PLANTINGS:
            for seed in range(orders):
                curves, costs = planting.apply(recording, seed)
                losses.append(_loss(curves, costs, 1 / CHANCE[recording.name], setting, seed))
        found[recording.name] = (fmean(each[0] for each in losses), fmean(each[1] for each in losses))
    return found


def _loss(curves: Floats, costs: Floats, chance: float, setting: Setting, seed: int) -> tuple[float, float]:
    order = np.random.default_rng((seed, 1)).permutation(len(curves))
    one = Search(curves=curves, costs=costs, chance=chance, setting=setting)
    n_epochs, ended = one.run([int(point) for point in order])
    rows = [(-float(curve[-1]), float(cost)) for curve, cost in zip(curves, costs, strict=True)]
    whole, kept = (
        hypervolume([rows[i] for i in of], (-chance, REFERENCE)) for of in (range(len(rows)), ended)
    )
    return n_epochs / curves.size, 1 - kept / whole


def chosen(found: Mapping[Setting, Mapping[str, tuple[float, float]]], without: str) -> Setting:
    """The setting with the fewest epochs that loses at most 1 % on all sets but one; else the least loss."""

    def mean(setting: Setting, part: int) -> float:
        return fmean(row[part] for name, row in found[setting].items() if name != without)

    within = [setting for setting in found if mean(setting, 1) <= 0.01]
    return min(within, key=lambda s: mean(s, 0)) if within else min(found, key=lambda s: mean(s, 1))


def interval(values: Sequence[float]) -> float:
    """Half of the 95 % t interval of the mean over sets."""
    return float(student.ppf(0.975, len(values) - 1)) * stdev(values) / math.sqrt(len(values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--orders", type=int, default=20, help="orders of each recording and planting")
    parser.add_argument("--all", action="store_true", help="also print every setting, over all sets")
    parser.add_argument("--only", default="", help="part of the names of the rules to be replayed")
    given = parser.parse_args()
    families = dict[str, dict[Setting, dict[str, tuple[float, float]]]]()
    for setting in (each for each in settings() if given.only in each.family):
        rows = families.setdefault(setting.family, {})[setting] = replayed(setting, given.orders)
        if given.all:
            epochs, lost = ([row[part] for row in rows.values()] for part in (0, 1))
            print(
                f"{setting.family}, {setting.words}: 1/{1 / fmean(epochs):.2f},"
                f" {100 * fmean(lost):.2f} ± {100 * interval(lost):.2f} %",
                flush=True,
            )
    print("| rule, its settings chosen on six sets and judged on the seventh | epochs | hypervolume lost |")
    print("| --- | --: | --: |")
    for family, found in families.items():
        judged = [found[chosen(found, name)][name] for name in CHANCE]
        epochs, lost = ([row[part] for row in judged] for part in (0, 1))
        words = f"{100 * fmean(lost):.2f} ± {100 * interval(lost):.2f} %"
        print(f"| {family} | 1/{1 / fmean(epochs):.2f} | {words} |")


if __name__ == "__main__":
    main()
