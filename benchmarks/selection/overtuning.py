"""How often a search ends below the stronger default, with today's defaults and with a split for each seed.

    python -m benchmarks.selection.overtuning --searches 500
    python -m benchmarks.selection.overtuning --searches 500 --preferred probe

Searches are simulated as in `choice`, among the pools that have the partly frozen network: the recipes of six
sets, with linear probe, plain fine-tuning, kept statistics and the partly frozen network as defaults, and the
points of the peers' searches on three sets, without kept statistics. The confirmation's seeds validate on the
images of the trials, or each on other images, as with `confirm_splits`. Its rounds are those of
`tlopt.search.race`.

Where no point is better at the odds, the partly frozen network is chosen, unless another default is better at
them. A last table compares this with the default of the best mean on validation; `--preferred` puts another
default in its place, as if it were wrongly preferred.

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
from functools import partial

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
MEASURES = ("default chosen, %", "gain", "regret", "below the default, %", "below any, %")
POINT, STRONGEST, BEST, PREFERRED = range(4)  # in `Ending.true`
DEFAULTS = {"probe": 0, "plain": 1, "partly": -1}  # by name the index in every pool


@dataclass(frozen=True, kw_only=True)
class Ending:
    """What one simulated search could end with, a point or one of two defaults; accuracies in [0, 1]."""

    group: int  # of its pool
    n_val: int  # validation images of each split
    n_splits: int  # of the confirmation
    lead: float  # of the point over the strongest default on validation, in standard errors
    default_lead: float  # of the strongest default over the preferred one, likewise
    # of the point, of the strongest default on validation, of the truly best one, and of the preferred one
    true: tuple[float, float, float, float]
    best: float  # true accuracy of the best point or default
    lasting: float  # share of a point's own part of the error of test images that is common to its seeds
    noise: tuple[float, float]  # standard normal errors of the two test measurements

    def choice(self, errors: float, *, prefers: bool) -> int:
        """Index into `true` of what is chosen if a lead of `errors` standard errors is needed."""
        if self.lead > errors:
            return POINT
        return PREFERRED if prefers and self.default_lead <= errors else STRONGEST

    def below(self, choice: int, baseline: int) -> bool:
        """Whether the chosen one is measured below a default, beyond noise; both are indices into `true`."""
        chosen, other = self.true[choice], self.true[baseline]
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
    preferred: int,
) -> Ending:
    """One search among `pool` and its confirmation.

    Args:
        preferred: index of the preferred default.
    """
    n, found = pool.n_defaults, search(pool, n_points, n_val, lasting, rng)
    runs = with_splits(found, n_splits, rng)
    best = [int(k) for k in n + np.argsort(-found.first[n:])[:POINTS]]
    finalists = confirmed(n, best, found.first, runs)
    means = np.mean(runs, axis=0)
    point, default = max(finalists, key=lambda k: means[k]), int(means[:n].argmax())
    values = [[float(run[k]) for run in runs] for k in (*range(n), *finalists)]
    error = std_error_of_lead(values, "accuracy", n_val * n_splits)
    usual = range(n)[preferred]
    return Ending(
        group=group,
        n_val=n_val,
        n_splits=n_splits,
        lead=float(means[point] - means[default]) / error,
        default_lead=float(means[default] - means[usual]) / error,
        true=(
            float(found.true[point]),
            float(found.true[default]),
            float(found.true[:n].max()),
            float(found.true[usual]),
        ),
        best=float(found.true.max()),
        lasting=lasting,
        noise=(float(rng.normal()), float(rng.normal())),
    )


def endings(
    pools: Sequence[Pool], n_searches: int, *, lasting: float, n_splits: int, preferred: int
) -> Iterator[Ending]:
    """The searches of all pools and settings."""
    for group, pool in enumerate(pools):
        rng = np.random.default_rng(group)
        one = partial(
            ending, pool, lasting=lasting, n_splits=n_splits, rng=rng, group=group, preferred=preferred
        )
        for n_points, n_val, _ in itertools.product(N_POINTS, N_VALS, range(n_searches)):
            yield one(n_points, n_val)


def odds_of(found: Sequence[Ending], odds: float | None) -> Floats:
    """The odds that each search needs; None: those of its images."""
    own = [odds_min(each.n_val * each.n_splits, others=each.n_splits > 1) for each in found]
    return np.array(own if odds is None else [odds] * len(found))


def measures(found: Sequence[Ending], odds: float | None, *, prefers: bool = True) -> Iterator[str]:
    """Per cent of defaults, gain and regret in points, and per cent below the default and below any."""
    errors = {each: wide(each) for each in set(odds_of(found, odds))}
    pairs = [
        (each, each.choice(errors[own], prefers=prefers))
        for each, own in zip(found, odds_of(found, odds), strict=True)
    ]
    groups = [each.group for each in found]
    chosen = np.array([each.true[choice] for each, choice in pairs])
    yield f"{100 * np.mean([choice != POINT for _, choice in pairs]):.0f}"
    yield interval(100 * (chosen - np.array([each.true[STRONGEST] for each in found])), groups)
    yield interval(100 * (np.array([each.best for each in found]) - chosen), groups)
    for baseline in (STRONGEST, BEST):
        yield interval(100.0 * np.array([each.below(choice, baseline) for each, choice in pairs]), groups)


def tables(by_splits: Mapping[int, Sequence[Ending]]) -> Iterator[str]:
    """Markdown tables: per cent below the default by number of images, all measures, and which default."""
    head = ("splits", "odds")
    yield from _head((*head, *(f"{n} images" for n in N_VALS)))
    for (n_splits, found), odds in itertools.product(by_splits.items(), ODDS):
        own = ([each for each in found if each.n_val == n] for n in N_VALS)
        cells = (list(measures(each, odds))[3] for each in own)
        yield f"| {n_splits} | {words(odds)} | {' | '.join(cells)} |"
    yield ""
    yield from _head((*head, *MEASURES))
    for (n_splits, found), odds in itertools.product(by_splits.items(), ODDS):
        yield f"| {n_splits} | {words(odds)} | {' | '.join(measures(found, odds))} |"
    yield ""
    yield from _head(("splits", "default", *MEASURES))
    for (n_splits, found), prefers in itertools.product(by_splits.items(), (False, True)):
        default = "preferred" if prefers else "best mean"
        yield f"| {n_splits} | {default} | {' | '.join(measures(found, None, prefers=prefers))} |"
    for n_splits, found in by_splits.items():
        accuracy, below = paired(found)
        yield ""
        yield f"preferred instead of best mean, splits {n_splits}: accuracy {accuracy}, below any {below}"


def paired(found: Sequence[Ending]) -> tuple[str, str]:
    """Points of accuracy and per cent below any that a preference adds to the same searches."""
    needed = {each: wide(each) for each in set(odds_of(found, None))}
    errors = [needed[own] for own in odds_of(found, None)]
    with_it, without = (
        [each.choice(error, prefers=prefers) for each, error in zip(found, errors, strict=True)]
        for prefers in (True, False)
    )
    triples = list(zip(found, with_it, without, strict=True))
    groups = [each.group for each in found]
    accuracy = np.array([each.true[a] - each.true[b] for each, a, b in triples])
    below = np.array([float(each.below(a, BEST)) - each.below(b, BEST) for each, a, b in triples])
    return interval(100 * accuracy, groups), interval(100 * below, groups)


def _head(titles: Sequence[str]) -> Iterator[str]:
    yield f"| {' | '.join(titles)} |"
    yield "| --- " * len(titles) + "|"


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
    parser.add_argument("--preferred", choices=list(DEFAULTS), default="partly", help="of defaults")
    args = parser.parse_args()
    preferred = DEFAULTS[args.preferred]
    of_pools = partial(endings, todays_pools(), args.searches, lasting=args.lasting, preferred=preferred)
    by_splits = {n: list(of_pools(n_splits=n)) for n in SPLITS}
    print("\n".join(tables(by_splits)))


if __name__ == "__main__":
    main()
