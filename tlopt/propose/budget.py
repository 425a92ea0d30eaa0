"""The size of a study: its expected duration on a machine, and the best size that fits the time limit."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from tlopt.search.race import n_point_runs
from tlopt.system.words import duration_words
from tlopt.training.timing import TrainingCost

SEEDS = 3  # seeds of a confirmation
POINTS = 6  # points of the search that are confirmed; half of them get every seed
SHARP = 128  # pixels per side; below it, resolution matters more than repeated splits
# (trials, epochs), best first; a smaller study than the last cannot choose well
LADDER = (
    *((60, 24), (60, 20), (48, 16), (40, 12), (32, 12), (32, 10), (24, 10), (24, 8), (20, 8), (16, 8)),
    *((16, 6), (16, 5), (16, 4), (14, 4), (12, 4), (10, 4)),
)
COMFORTABLE = (16, 6)  # the resolution is lowered before (trials, epochs) fall below this
_STARTUP_TRIALS = 5  # start-up trials of the median pruner, including the defaults
_FROZEN_DEFAULTS = 2  # the linear probe, and the partly frozen network, with
_FROZEN_SHARE = 0.8  # of its blocks
UNPRUNED_SHARE = 0.7  # mean share of epochs that later trials train: benchmarks/defaults/README.md
_BUSY = 1.5  # load factor from which a user is warned
_WORKER_START_SECONDS = 8.0  # to import libraries, and read weights and images


@dataclass(frozen=True, kw_only=True)
class ImageCounts:
    """Numbers of images by role."""

    train: int
    val: int
    test: int

    @property
    def all(self) -> int:
        """Total number of images."""
        return self.train + self.val + self.test

    def share(self, share: float) -> "ImageCounts":
        """Every count multiplied by `share`."""
        return ImageCounts(
            train=math.ceil(self.train * share),
            val=math.ceil(self.val * share),
            test=math.ceil(self.test * share),
        )


@dataclass(frozen=True, kw_only=True)
class Size:
    """Everything that decides how long a study takes."""

    resolution: int  # pixels per side
    repeats: int  # splits per trial
    trials: int
    epochs: int
    points: int  # confirmed in addition to the defaults
    seeds: int = SEEDS  # per confirmed point
    images_max: int = 0  # 0: all
    pruning_epochs: tuple[int, ...] = ()  # of each pruning of the second stage, over its rounds


@dataclass(frozen=True, kw_only=True)
class Terms:
    """Measured costs, counts and limits under which a size is chosen."""

    costs: dict[int, TrainingCost]  # by resolution
    counts: ImageCounts
    n_workers: int
    n_classes: int
    n_trained_defaults: (
        int  # defaults that train the whole network; those that freeze blocks come in addition
    )
    minutes_max: float  # infinite: no limit
    n_linear: int = 0  # trials that are linear classifiers, at most; they come first
    later_share: float = UNPRUNED_SHARE  # of their epochs that networks train after the first five

    def used(self, size: Size) -> ImageCounts:
        """Numbers of images that a study of this size uses."""
        return self.counts.share(size.images_max / self.counts.all) if size.images_max else self.counts


def minutes(size: Size, terms: Terms) -> float:
    """Expected minutes for the search, the confirmation, the evaluation on test and the second stage.

    A network is assumed to cost the mean over freeze depths; after the first five, networks train
    `terms.later_share` of their epochs on average. A confirmed point costs the average of that mean and full
    fine-tuning. A linear classifier reads all features once; its own fitting takes seconds and is left out.
    Prunings are counted as full fine-tuning of the network before, so that they take less.
    """
    cost = terms.costs[size.resolution]
    counts = terms.used(size)

    def trained(seconds_per_image: float, epochs: int = size.epochs) -> float:
        return cost.build + epochs * (counts.train * seconds_per_image + counts.val * cost.frozen)

    linear = cost.build + (counts.train + counts.val) * cost.frozen
    n_linear = min(terms.n_linear, size.trials)
    n_networks = size.trials - n_linear
    n_defaults = _FROZEN_DEFAULTS + terms.n_trained_defaults
    defaults = trained(cost.frozen) + terms.n_trained_defaults * trained(cost.full)
    defaults += trained(_FROZEN_SHARE * cost.frozen + (1 - _FROZEN_SHARE) * cost.full)
    first = max(min(n_networks, _STARTUP_TRIALS) - n_defaults, 0)
    later = max(n_networks - _STARTUP_TRIALS, 0)
    networks = (first + terms.later_share * later) * trained(cost.mean_over_depths)
    search = size.repeats * (n_linear * linear + (defaults if n_networks else 0) + networks)
    point = trained((cost.mean_over_depths + cost.full) / 2) if n_networks else linear
    confirmed = size.seeds * (defaults + (linear if n_linear else 0)) + (
        n_point_runs(size.points, size.seeds) * point
    )
    n_tested = 1 + n_defaults  # the chosen point and the defaults
    test = n_tested * size.seeds * counts.test * cost.frozen
    prunings = [trained(cost.full, epochs) for epochs in size.pruning_epochs]
    # a pruning is one worker's
    pruned = max([sum(prunings) / terms.n_workers, *prunings])
    workers = (search + confirmed) / terms.n_workers + pruned
    n_starts = 3 if prunings else 2
    return (n_starts * _WORKER_START_SECONDS + workers + test) / 60


def busy_sentence(load_factor: float, minutes: float) -> str:
    """A sentence for a machine that is busy with other programs; "" for one that is not.

    Args:
        load_factor: see `TrainingCost`.
        minutes: expected of the study on a machine where nothing else runs.
    """
    if load_factor <= _BUSY:
        return ""
    return (
        f"the machine is busy with other programs: training took {load_factor:.1f} times as long as it needs"
        f" by itself; if it stays so, the study takes about"
        f" {duration_words(60 * load_factor * minutes, digits=0)}"
    )


def choose_size(
    resolutions: Sequence[int],
    repeats: int,
    terms: Terms,
    *,
    trials: int | None,
    epochs: int | None,
    insists: bool = False,
) -> Size:
    """The best size that fits into `terms.minutes_max`, or the smallest one if none does.

    Reduced in this order: the resolution (not below 128 pixels until repeated splits are given up), the
    epochs to 4, the trials to 10, the confirmed points to 2, the images.

    Args:
        resolutions: candidates, in pixels per side.
        repeats: desired number of splits per trial.
        trials: fixed number of trials, or None to choose.
        epochs: fixed number of epochs, or None to choose.
        insists: keep all `repeats`, because the user asked for them, for example as folds.
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
    """Pairs of resolution and repeats, best first."""
    falling = sorted(resolutions, reverse=True)
    if insists:
        yield from ((r, repeats) for r in falling)
        return
    if repeats > 1:
        yield from ((r, repeats) for r in falling if r >= min(SHARP, falling[0]))
    yield from ((r, 1) for r in falling)


def _with_fewer_images(size: Size, terms: Terms) -> Size:
    """`size` with as many images as fit, a multiple of ten; at least 20 per class if there are that many."""
    total = terms.counts.all
    least = 20 * terms.n_classes
    if least >= total:
        return size
    for n in itertools.chain(range(total - total % 10, least, -10), [least]):
        fewer = replace(size, images_max=n)
        if minutes(fewer, terms) <= terms.minutes_max:
            break
    return fewer
