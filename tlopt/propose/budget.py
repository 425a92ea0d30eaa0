"""The size of a study: its expected duration on a machine, and the best size that fits the time limit."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from tlopt.search.race import n_point_runs
from tlopt.training.timing import TrainingCost

SEEDS = 3  # of a confirmation
POINTS = 6  # of the search that enter it; half of them get every seed
SHARP = 128  # pixels a side that are worth more than repeated splits
# trials and epochs, best first; a study is too thin to choose well below the last one
LADDER = (
    *((60, 24), (60, 20), (48, 16), (40, 12), (32, 12), (32, 10), (24, 10), (24, 8), (20, 8), (16, 8)),
    *((16, 6), (16, 5), (16, 4), (14, 4), (12, 4), (10, 4)),
)
COMFORTABLE = (16, 6)  # below it the resolution is lowered first
_STARTUP_TRIALS = 5  # of the median pruner; the two defaults are among them
_UNPRUNED_SHARE = 0.7  # of its epochs that a trial behind them trains: benchmarks/defaults/README.md
_WORKER_START_SECONDS = 8.0  # importing the libraries, reading weights and images


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Numbers of images by role."""

    train: int
    val: int
    test: int

    @property
    def all(self) -> int:
        """Images in all."""
        return self.train + self.val + self.test

    def share(self, share: float) -> "Counts":
        """The same parts of fewer images."""
        return Counts(
            train=math.ceil(self.train * share),
            val=math.ceil(self.val * share),
            test=math.ceil(self.test * share),
        )


@dataclass(frozen=True, kw_only=True)
class Size:
    """Everything that decides how long a study takes."""

    resolution: int  # pixels a side
    repeats: int  # splits a trial trains on
    trials: int
    epochs: int
    points: int  # confirmed, beside the defaults
    seeds: int = SEEDS  # of each in the confirmation
    images_max: int = 0  # 0: all


@dataclass(frozen=True, kw_only=True)
class Terms:
    """Measured costs, counts and limits under which a size is chosen."""

    costs: dict[int, TrainingCost]  # by resolution
    counts: Counts
    n_workers: int
    n_classes: int
    minutes_max: float  # infinite: no limit

    def used(self, size: Size) -> Counts:
        """The images that a study of this size has."""
        return self.counts.share(size.images_max / self.counts.all) if size.images_max else self.counts


def minutes(size: Size, terms: Terms) -> float:
    """The expected duration of search, confirmation and the reading of test.

    Trials cost the mean over freeze depths; behind the first five they stop after 0.7 of their epochs on
    average. A confirmed point costs the middle between that mean and full fine-tuning.
    """
    cost = terms.costs[size.resolution]
    counts = terms.used(size)

    def trained(seconds_per_image: float) -> float:
        return cost.build + size.epochs * (counts.train * seconds_per_image + counts.val * cost.frozen)

    defaults = trained(cost.frozen) + trained(cost.full)
    first = min(size.trials, _STARTUP_TRIALS) - 2
    later = max(size.trials - _STARTUP_TRIALS, 0)
    search = size.repeats * (defaults + (first + _UNPRUNED_SHARE * later) * trained(cost.mean_over_depths))
    confirmed = size.seeds * defaults + n_point_runs(size.points, size.seeds) * trained(
        (cost.mean_over_depths + cost.full) / 2
    )
    test = 3 * size.seeds * counts.test * cost.frozen
    workers = (search + confirmed) / terms.n_workers
    return (2 * _WORKER_START_SECONDS + workers + test) / 60


def choose_size(
    resolutions: Sequence[int],
    repeats: int,
    terms: Terms,
    *,
    trials: int | None,
    epochs: int | None,
    insists: bool = False,
) -> Size:
    """The best size that fits into `terms.minutes_max`; the least one where none does.

    Lowered are, in this order, the resolution (not below 128 pixels before repeated splits are given up), the
    epochs to 4, the trials to 10, the confirmed points to 2, the images.

    Args:
        resolutions: to choose from, pixels a side.
        repeats: splits that a trial should train on.
        trials: what was asked for and stays so, or None.
        epochs: likewise.
        insists: all `repeats` stay, since they were asked for, as folds are.
    """

    def as_wished(rung: tuple[int, int]) -> tuple[int, int]:
        return rung[0] if trials is None else trials, rung[1] if epochs is None else epochs

    def fits(size: Size) -> bool:
        return minutes(size, terms) <= terms.minutes_max

    def sized(view: tuple[int, int], rung: tuple[int, int], points: int = POINTS) -> Size:
        return Size(resolution=view[0], repeats=view[1], trials=rung[0], epochs=rung[1], points=points)

    views = list(_views(resolutions, repeats, insists=insists))
    view = next((view for view in views if fits(sized(view, as_wished(COMFORTABLE)))), views[-1])
    sizes = [sized(view, rung) for rung in dict.fromkeys(map(as_wished, LADDER))]
    sizes.append(replace(sizes[-1], points=2))
    found = next((size for size in sizes if fits(size)), None)
    return found or _with_fewer_images(sizes[-1], terms)


def _views(resolutions: Sequence[int], repeats: int, *, insists: bool) -> Iterator[tuple[int, int]]:
    """Resolutions and repeats, best first."""
    falling = sorted(resolutions, reverse=True)
    if insists:
        yield from ((r, repeats) for r in falling)
        return
    if repeats > 1:
        yield from ((r, repeats) for r in falling if r >= min(SHARP, falling[0]))
    yield from ((r, 1) for r in falling)


def _with_fewer_images(size: Size, terms: Terms) -> Size:
    """`size` with as many images as fit, in tens; at least 20 of each class, as far as there are so many."""
    total = terms.counts.all
    least = 20 * terms.n_classes
    if least >= total:
        return size
    for n in itertools.chain(range(total - total % 10, least, -10), [least]):
        fewer = replace(size, images_max=n)
        if minutes(fewer, terms) <= terms.minutes_max:
            break
    return fewer
