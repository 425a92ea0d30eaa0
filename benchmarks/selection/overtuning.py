"""How often a search ends below the stronger default, with today's defaults and with a split for each seed.

    python -m benchmarks.selection.overtuning --searches 500

Searches are simulated as in `choice`, among the pools that have the partly frozen network: the recipes of six
sets, with linear probe, plain fine-tuning, kept statistics and the partly frozen network as defaults, and the
points of the peers' searches on three sets, without kept statistics. The confirmation's seeds validate on the
images of the trials, or each on other images, as with `confirm_splits`. Its rounds are those of
`tlopt.search.race`.

*Below the default*: on 400 test images with three seeds the chosen point lies more than two standard errors
below the default with the better mean on validation; *below any*: below the default that is truly the best,
which nobody knows. Regret is to the best default or point of the search. Intervals are Student's t over
pools.
"""

import argparse
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.defaults.replay import Floats
from benchmarks.selection.choice import (
    N_TEST,
    POINTS,
    SEED_STD,
    SEEDS,
    Search,
    confirmed,
    interval,
    search,
    wide,
)
from benchmarks.selection.pools import (
    PARTLY_FROZEN,
    RECIPE_DEFAULTS,
    Pool,
    peers_pools,
    recipe_pools,
    recipes_with_partly_frozen,
)
from tlopt.confirmation.evidence import odds_min, std_error_of_lead
from tlopt.spec.objectives import OWN_SHARE

N_VALS = (24, 36, 48, 60, 96, 120, 300)
N_POINTS = (15, 30)
ODDS = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, None)
SPLITS = (1, SEEDS)


@dataclass(frozen=True, kw_only=True)
class Ending:
    """What one simulated search could end with: its best point, or its default; accuracies in [0, 1]."""

    group: int  # of its pool
    n_val: int  # validation images of each split
    n_splits: int  # of the confirmation
    lead: float  # of the point over the default on validation, in standard errors
    true: tuple[float, float, float]  # of the point, of the default, and of the truly best default
    best: float  # true accuracy of the best point or default
    lasting: float  # share of a point's own part of the error of test images that is common to its seeds
    noise: tuple[float, float]  # standard normal errors of the two test measurements

    def below(self, taken: bool, baseline: int) -> bool:
        """Whether the chosen one is measured below a default, beyond noise; `baseline`: index into `true`."""
        chosen, other = self.true[0] if taken else self.true[1], self.true[baseline]
        own = OWN_SHARE * other * (1 - other) / N_TEST
        error = math.sqrt(2 * (self.lasting * own + ((1 - self.lasting) * own + SEED_STD**2) / SEEDS))
        return chosen != other and chosen - other + error * self.noise[baseline - 1] < -2 * error


def todays_pools() -> list[Pool]:
    """The pools that have the partly frozen network, as a default."""
    recipes = recipe_pools(recipes_with_partly_frozen(), (*RECIPE_DEFAULTS, PARTLY_FROZEN))
    return [*recipes, *peers_pools(partly_frozen=True)]


def with_splits(found: Search, n_splits: int, rng: np.random.Generator) -> Sequence[Floats]:
    """The runs of a confirmation: those of `found`, or each on other images."""
    if n_splits == 1:
        return found.runs
    return [found.true + rng.normal(0, np.sqrt(found.own + SEED_STD**2)) for _ in range(SEEDS)]


def ending(
    pool: Pool,
    n_points: int,
    n_val: int,
    *,
    lasting: float,
    n_splits: int,
    rng: np.random.Generator,
    group: int,
) -> Ending:
    """One search among `pool` and its confirmation."""
    n, found = pool.n_defaults, search(pool, n_points, n_val, lasting, rng)
    runs = with_splits(found, n_splits, rng)
    best = [int(k) for k in n + np.argsort(-found.first[n:])[:POINTS]]
    finalists = confirmed(n, best, found.first, runs)
    means = np.mean(runs, axis=0)
    point, default = max(finalists, key=lambda k: means[k]), int(means[:n].argmax())
    values = [[float(run[k]) for run in runs] for k in (*range(n), *finalists)]
    error = std_error_of_lead(values, "accuracy", n_val * n_splits)
    return Ending(
        group=group,
        n_val=n_val,
        n_splits=n_splits,
        lead=float(means[point] - means[default]) / error,
        true=(float(found.true[point]), float(found.true[default]), float(found.true[:n].max())),
        best=float(found.true.max()),
        lasting=lasting,
        noise=(float(rng.normal()), float(rng.normal())),
    )


def endings(pools: Sequence[Pool], n_searches: int, *, lasting: float, n_splits: int) -> Iterator[Ending]:
    """The searches of all pools and settings."""
    for group, pool in enumerate(pools):
        rng = np.random.default_rng(group)
        for n_points, n_val, _ in itertools.product(N_POINTS, N_VALS, range(n_searches)):
            yield ending(pool, n_points, n_val, lasting=lasting, n_splits=n_splits, rng=rng, group=group)


def odds_of(found: Sequence[Ending], odds: float | None) -> Floats:
    """The odds that each search needs; None: those of its images."""
    own = [odds_min(each.n_val * each.n_splits, others=each.n_splits > 1) for each in found]
    return np.array(own if odds is None else [odds] * len(found))


def measures(found: Sequence[Ending], odds: float | None) -> Iterator[str]:
    """Per cent of defaults, gain and regret in points, and per cent below the default and below any."""
    errors = {each: wide(each) for each in set(odds_of(found, odds))}
    taken = [each.lead > errors[own] for each, own in zip(found, odds_of(found, odds), strict=True)]
    groups = [each.group for each in found]
    pairs = list(zip(found, taken, strict=True))
    chosen = np.array([each.true[0] if one else each.true[1] for each, one in pairs])
    yield f"{100 * (1 - np.mean(taken)):.0f}"
    yield interval(100 * (chosen - np.array([each.true[1] for each in found])), groups)
    yield interval(100 * (np.array([each.best for each in found]) - chosen), groups)
    for baseline in (1, 2):
        yield interval(100.0 * np.array([each.below(one, baseline) for each, one in pairs]), groups)


def tables(by_splits: Mapping[int, Sequence[Ending]]) -> Iterator[str]:
    """Two Markdown tables: per cent below the default by number of images, and all measures together."""
    head = ("splits", "odds")
    yield f"| {' | '.join((*head, *(f'{n} images' for n in N_VALS)))} |"
    yield "| --- " * (len(head) + len(N_VALS)) + "|"
    for n_splits, found in by_splits.items():
        for odds in ODDS:
            own = ([each for each in found if each.n_val == n] for n in N_VALS)
            cells = (list(measures(each, odds))[3] for each in own)
            yield f"| {n_splits} | {words(odds)} | {' | '.join(cells)} |"
    yield ""
    titles = ("default chosen, %", "gain", "regret", "below the default, %", "below any, %")
    yield f"| {' | '.join((*head, *titles))} |"
    yield "| --- " * (len(head) + len(titles)) + "|"
    for n_splits, found in by_splits.items():
        for odds in ODDS:
            yield f"| {n_splits} | {words(odds)} | {' | '.join(measures(found, odds))} |"


def words(odds: float | None) -> str:
    """Name of a rule."""
    return "as shipped" if odds is None else f"{odds:g} to 1"


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--searches", type=int, default=500, help="per pool and setting")
    parser.add_argument(
        "--lasting", type=float, default=0.5, help="share of a point's noise common to its runs"
    )
    args = parser.parse_args()
    pools = todays_pools()
    by_splits = {n: list(endings(pools, args.searches, lasting=args.lasting, n_splits=n)) for n in SPLITS}
    print("\n".join(tables(by_splits)))


if __name__ == "__main__":
    main()
