"""Pruning by the front, replayed on recorded learning curves with costs.

One worker trains the recorded points in a random order; the rule of `tlopt.search.front`, the median
of all trials or nothing decides who goes on. What is lost is counted on the last recorded validation values:
the points of the full search's front that were stopped, and the share of its hypervolume.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, median

import numpy as np
from numpy.typing import NDArray

from benchmarks.defaults.replay import Floats
from benchmarks.front.plantings import LEVELS, PLANTINGS, Case, heads, planted
from benchmarks.front.tried import CHANCE, DEFAULTS, Search, Setting, interval
from tlopt.search.front import hypervolume
from tlopt.spec.algorithms import MedianPruner
from tlopt.spec.objectives import front_of

FADES = 0.6  # of `tlopt.search.front`

# Epochs trained, and the points trained to their end; of curves, costs, chance and an order
Rule = Callable[[Floats, Floats, float, NDArray[np.int64]], tuple[int, list[int]]]


@dataclass(frozen=True, kw_only=True)
class Loss:
    """One search against the same search without pruning."""

    data: str
    epochs: float  # share of the full search's
    front: int  # points of the full search's front
    lost: int  # of them stopped
    hypervolume: float  # share lost


def by_front(setting: Setting) -> Rule:
    """The rule of the service, or one like it."""

    def search(
        curves: Floats, costs: Floats, chance: float, order: NDArray[np.int64]
    ) -> tuple[int, list[int]]:
        one = Search(curves=curves, costs=costs, chance=chance, setting=setting)
        return one.run([int(point) for point in order])

    return search


def by_median(
    curves: Floats, costs: Floats, chance: float, order: NDArray[np.int64]
) -> tuple[int, list[int]]:
    """Optuna's median rule with the service's settings, which knows nothing of costs."""
    spec, n_epochs, ended = MedianPruner(), 0, list[int]()

    def is_stopped(point: int, n: int) -> bool:
        if n == curves.shape[1] or n < spec.min_epochs or len(ended) < spec.n_startup_trials:
            return False
        return bool(max(curves[point, :n]) < median(max(curves[other, :n]) for other in ended))

    for position, point in enumerate(map(int, order)):
        for n in range(1, curves.shape[1] + 1):
            n_epochs += 1
            if position >= DEFAULTS and is_stopped(point, n):
                break
        else:
            ended.append(point)
    return n_epochs, ended


def loss_of(case: Case, rule: Rule) -> Loss:
    """What pruning by `rule` loses in one search of all recorded points."""
    chance = 1 / CHANCE[case.data]
    order = np.random.default_rng((case.seed, 1)).permutation(len(case.curves))
    n_epochs, ended = rule(case.curves, case.costs, chance, order)
    rows = [(-float(curve[-1]), float(cost)) for curve, cost in zip(case.curves, case.costs, strict=True)]
    front = front_of(rows)
    reference = (-chance, 1.1 * LEVELS[-1])
    whole, kept = (hypervolume([rows[i] for i in points], reference) for points in (front, ended))
    return Loss(
        data=case.data,
        epochs=n_epochs / case.curves.size,
        front=len(front),
        lost=sum(i not in ended for i in front),
        hypervolume=1 - kept / whole,
    )


def rules() -> Iterator[tuple[str, Rule]]:
    """The rules compared, by name."""
    yield "median of all trials", by_median
    for pauses, margin in ((False, 1.5), (True, 1.0), (True, 1.5), (True, 2.0), (True, 3.0)):
        how = "pauses" if pauses else "no pauses"
        setting = Setting("front", pauses=pauses, margin=margin, slope=FADES)
        yield f"front: {how}, {margin:g} deviations", by_front(setting)


def row(name: str, losses: Sequence[Loss]) -> str:
    """A row of a table: means over sets and orders, with the 95 % interval over sets."""
    by_set = [
        100 * fmean(loss.hypervolume for loss in losses if loss.data == data)
        for data in sorted({loss.data for loss in losses})
    ]
    worst = float(np.quantile([loss.hypervolume for loss in losses], 0.95))
    return (
        f"| {name} | 1/{1 / fmean(loss.epochs for loss in losses):.2f}"
        f" | {fmean(loss.lost for loss in losses):.2f} of {fmean(loss.front for loss in losses):.2f}"
        f" | {fmean(by_set):.2f} ± {interval(by_set):.2f} % | {100 * worst:.1f} % |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--orders", type=int, default=10, help="orders of each recording")
    given = parser.parse_args()
    tables = {"heads, 16 epochs": list(heads(given.orders))}
    tables |= {f"accuracy {each.name}, 8 epochs": list(planted(each, given.orders)) for each in PLANTINGS}
    for title, cases in tables.items():
        print(f"| {title} | epochs | front points lost | hypervolume lost | worst of 20 |")
        print("| --- | --: | --: | --: | --: |")
        for name, rule in rules():
            print(row(name, [loss_of(case, rule) for case in cases]), flush=True)
        print()


if __name__ == "__main__":
    main()
