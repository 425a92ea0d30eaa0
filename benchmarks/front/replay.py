"""Pruning by the front, replayed on recorded learning curves that are given planted costs.

One worker trains the recorded points in a random order; the rule of `tlopt.search.front`, the median
of all trials or nothing decides who goes on. What is lost is counted on the last recorded validation values:
the points of the full search's front that were stopped, and the share of its hypervolume.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

import numpy as np
from numpy.typing import NDArray

from benchmarks.defaults.replay import Floats, Recording, read
from tlopt.search.front import Course, hypervolume, is_beaten
from tlopt.spec.algorithms import FrontPruner, MedianPruner
from tlopt.spec.objectives import front_of

CURVES = Path(__file__).parents[1] / "defaults" / "curves"
LEVELS = (1.0, 2.0, 4.0, 8.0)  # planted costs
_PAID = (0.12, 0.06, 0.02, 0.0)  # accuracy that the cheaper networks lack where it is paid for
_DEFAULTS = 2  # first trials, which the service never prunes

Rule = Callable[[Course, Sequence[Course]], bool]


@dataclass(frozen=True, kw_only=True)
class Planting:
    """How costs are given to the recorded points."""

    name: str
    paid: bool  # whether cheaper networks are less accurate, by `_PAID`
    levels: bool  # four costs, as of four resolutions; otherwise each point has its own

    def apply(self, recording: Recording, seed: int) -> tuple[Floats, Floats]:
        """Curves (points, epochs) and costs (points,)."""
        random = np.random.default_rng(seed)
        n = len(recording.curves)
        place: Floats = (
            random.integers(0, 4, n).astype(np.float64) if self.levels else random.uniform(0, 3, n)
        )
        lacking = np.interp(place, range(4), _PAID) if self.paid else np.zeros(n)
        return np.clip(recording.curves - lacking[:, None], 0, 1), np.exp2(place)


PLANTINGS = (
    Planting(name="paid for, four costs", paid=True, levels=True),
    Planting(name="paid for, own costs", paid=True, levels=False),
    Planting(name="for nothing, four costs", paid=False, levels=True),
)


@dataclass(frozen=True, kw_only=True)
class Loss:
    """One search against the same search without pruning."""

    epochs: float  # share of the full search's
    front: int  # points of the full search's front
    lost: int  # of them stopped
    hypervolume: float  # share lost


def by_front(spec: FrontPruner) -> Rule:
    """The rule of the service."""
    return lambda course, complete: is_beaten(course, complete, spec)


def by_median(course: Course, complete: Sequence[Course]) -> bool:
    """Optuna's median rule with the service's settings, which knows nothing of costs."""
    spec, epoch = MedianPruner(), len(course.values) - 1
    if epoch + 1 < spec.min_epochs or len(complete) < spec.n_startup_trials:
        return False
    return max(course.values) < median(max(other.values[: epoch + 1]) for other in complete)


def search(curves: Floats, costs: Floats, order: NDArray[np.int64], rule: Rule) -> tuple[int, list[int]]:
    """Epochs trained, and the points trained to their end."""
    n_epochs, ended, complete = 0, list[int](), list[Course]()
    for position, point in enumerate(order):
        own = (float(costs[point]),)
        for epoch in range(curves.shape[1]):
            n_epochs += 1
            course = Course(values=tuple(map(float, curves[point, : epoch + 1])), costs=own)
            last = epoch + 1 == curves.shape[1]
            if not last and position >= _DEFAULTS and rule(course, complete):
                break
        else:
            complete.append(course)
            ended.append(int(point))
    return n_epochs, ended


def loss_of(recording: Recording, planting: Planting, rule: Rule, seed: int, n_classes: int) -> Loss:
    """What pruning by `rule` loses in one search of all recorded points, in an order by `seed`."""
    curves, costs = planting.apply(recording, seed)
    order = np.random.default_rng((seed, 1)).permutation(len(curves))
    n_epochs, ended = search(curves, costs, order, rule)
    rows = [(-float(curve[-1]), float(cost)) for curve, cost in zip(curves, costs, strict=True)]
    front = front_of(rows)
    reference = (-1 / n_classes, 1.1 * LEVELS[-1])
    whole, kept = (hypervolume([rows[i] for i in points], reference) for points in (front, ended))
    return Loss(
        epochs=n_epochs / curves.size,
        front=len(front),
        lost=sum(i not in ended for i in front),
        hypervolume=1 - kept / whole,
    )


def rules() -> Iterator[tuple[str, Rule]]:
    """The rules compared, by name."""
    yield "median of all trials", by_median
    for min_epochs, n_better, margin in (
        (2, 1, 1.0),
        (2, 1, 1.5),
        (2, 1, 2.0),
        (2, 2, 1.5),
        (2, 1, 3.0),
        (1, 1, 2.0),
    ):
        spec = FrontPruner(min_epochs=min_epochs, n_better=n_better, margin=margin)
        yield f"front: {margin:g} deviations, {n_better} ahead, from epoch {min_epochs}", by_front(spec)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--orders", type=int, default=30, help="orders of each recording")
    given = parser.parse_args()
    recordings = [read(file) for file in sorted(CURVES.glob("*.json"))]
    classes = {"dtd10": 10, "flowers5": 5, "rsscn7": 7, "signdigits": 10, "trash6": 6}
    for planting in PLANTINGS:
        print(f"| accuracy {planting.name} | epochs | front points lost | hypervolume lost | worst of 20 |")
        print("| --- | --: | --: | --: | --: |")
        for name, rule in rules():
            losses = [
                loss_of(recording, planting, rule, seed, classes[recording.name])
                for recording in recordings
                for seed in range(given.orders)
            ]
            worst = float(np.quantile([loss.hypervolume for loss in losses], 0.95))
            print(
                f"| {name} | 1/{1 / fmean(loss.epochs for loss in losses):.2f}"
                f" | {fmean(loss.lost for loss in losses):.2f} of {fmean(loss.front for loss in losses):.2f}"
                f" | {100 * fmean(loss.hypervolume for loss in losses):.2f} % | {100 * worst:.1f} % |",
                flush=True,
            )
        print()


if __name__ == "__main__":
    main()
