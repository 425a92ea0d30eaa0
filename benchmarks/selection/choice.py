"""Rules that choose between a search's points and the defaults, simulated and on recorded runs.

    python -m benchmarks.selection.choice --searches 200

**Simulated.** A search takes 15 or 30 points of a recorded pool (see `pools`), the defaults among them. A
run adds normal noise to a point's true accuracy: the point's own part of the binomial variance of 48, 120 or
300 validation images, a share of which (`--lasting`) is the same in all runs of the point, and a standard
deviation of 0.012 over seeds. The best 6 points by their trial and the defaults are confirmed with 3 seeds in
the rounds of `tlopt.search.race`. The chosen point is then compared with the default of the better mean on
400 test images with 3 seeds.

**Recorded.** Recipes with two seeds: 6 of them, drawn at random, and the three defaults are compared by their
mean on 48 validation images; test accuracies are those on 300 other images.

Prints the measured own part of the binomial variance, and Markdown tables in points of accuracy and per cent
of searches. Intervals are Student's t over pools or sets of images.
"""

import argparse
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.defaults.replay import Floats
from benchmarks.selection.pools import Pool, own_shares, pools, twice_measured
from tlopt.confirmation.evidence import std_error_of_lead
from tlopt.confirmation.interval import half_width
from tlopt.search.race import Candidate, Race, RunKey
from tlopt.spec.objectives import OWN_SHARE

SETTINGS = tuple(itertools.product((15, 30), (48, 120, 300)))  # points of a search, validation images
POINTS, SEEDS = 6, 3
SEED_STD = 0.012
N_TEST = 400
_POINT: Any = None  # a race looks at values only


@dataclass(frozen=True, kw_only=True)
class Lead:
    """The best searched point beside the default with the better mean, by a confirmation and in truth."""

    mean: float  # on validation
    std_error: float
    low: float  # lower end of the paired 95 % t interval
    shrunk: float  # mean, drawn toward what the search's points are on average
    true: float  # on test, without noise in a simulation
    test: float  # as measured on test
    test_error: float  # standard error of `test`


def wide(odds: float) -> float:
    """The standard errors by which a lead must lie above zero to have these odds."""
    low, high = 0.0, 8.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        worse = 0.5 * math.erfc(middle / math.sqrt(2))
        low, high = (middle, high) if (1 - worse) / worse < odds else (low, middle)
    return low


Rule = Callable[[Lead], bool]


def with_odds(odds: float) -> Rule:
    """A point is chosen at these odds or better."""
    errors = wide(odds)
    return lambda lead: lead.mean > errors * lead.std_error


RULES: dict[str, Rule] = {
    "best mean": lambda lead: lead.mean > 0,
    "a point ahead": lambda lead: lead.mean > 0.01,
    "two points ahead": lambda lead: lead.mean > 0.02,
    "drawn to the search's mean": lambda lead: lead.shrunk > 0,
    **{f"odds {odds:g} to 1": with_odds(odds) for odds in (1.5, 2, 3, 4, 9, 19)},
    "95 % interval over seeds": lambda lead: lead.low > 0,
    "always the default": lambda lead: False,
}


@dataclass(frozen=True, kw_only=True)
class Search:
    """The points of a simulated search, the defaults first: (points,) each."""

    true: Floats  # accuracy
    own: Floats  # own part of the binomial variance
    first: Floats  # values of the trials
    runs: Sequence[Floats]  # values of a confirmation, by seed


def search(pool: Pool, n_points: int, n_val: int, lasting: float, rng: np.random.Generator) -> Search:
    """A search among `pool` that tries its defaults and random other points."""
    n = pool.n_defaults
    taken = np.r_[:n, n + rng.permutation(len(pool.true) - n)[: n_points - n]]
    true = np.clip(pool.true[taken], 0.02, 0.98)
    own = OWN_SHARE * true * (1 - true) / n_val
    common = true + rng.normal(0, np.sqrt(lasting * own))
    first, *runs = (
        common + rng.normal(0, np.sqrt((1 - lasting) * own + SEED_STD**2)) for _ in range(1 + SEEDS)
    )
    return Search(true=true, own=own, first=first, runs=runs)


def simulated(pool: Pool, n_points: int, n_val: int, lasting: float, rng: np.random.Generator) -> Lead:
    """One search among `pool` and its confirmation."""
    n, found = pool.n_defaults, search(pool, n_points, n_val, lasting, rng)
    true, own, first, runs = found.true, found.own, found.first, found.runs
    best = [int(k) for k in n + np.argsort(-first[n:])[:POINTS]]
    finalists = confirmed(n, best, first, runs)
    means = np.mean(runs, axis=0)
    point, default = max(finalists, key=lambda k: means[k]), int(means[:n].argmax())
    values = [[float(run[k]) for run in runs] for k in (*range(n), *finalists)]
    own_variance = float(own.mean())
    kept = shrinkage(first[n:], own_variance, lasting)
    truth = float(true[point] - true[default])
    test_own = OWN_SHARE * float(true[default] * (1 - true[default])) / N_TEST
    test_error = math.sqrt(2 * (lasting * test_own + ((1 - lasting) * test_own + SEED_STD**2) / SEEDS))
    return measured_lead(
        runs,
        (point, default),
        std_error=std_error_of_lead(values, "accuracy", n_val),
        shrunk=shrunk(first, means, (point, default), float(first[n:].mean()), kept),
        truth=(truth, truth + float(rng.normal(0, test_error)), test_error),
    )


def measured_lead(
    runs: Sequence[Floats],
    pair: tuple[int, int],
    *,
    std_error: float,
    shrunk: float,
    truth: tuple[float, float, float],
) -> Lead:
    """The lead of the first of `pair` over the second.

    Args:
        truth: true lead, lead as measured on test, and the standard error of the latter.
    """
    differences = np.array([run[pair[0]] - run[pair[1]] for run in runs])
    mean = float(differences.mean())
    return Lead(
        mean=mean,
        std_error=std_error,
        low=mean - half_width(float(differences.std(ddof=1)), len(differences)),
        shrunk=shrunk,
        true=truth[0],
        test=truth[1],
        test_error=truth[2],
    )


def confirmed(n_defaults: int, best: Sequence[int], first: Floats, runs: Sequence[Floats]) -> list[int]:
    """Indices of the points that get every seed in the rounds of a confirmation."""
    candidates = tuple(
        Candidate(k - n_defaults if k < n_defaults else k, str(k), _POINT, float(first[k]))
        for k in (*range(n_defaults), *best)
    )
    race = Race(candidates=candidates, seeds=len(runs), direction="maximize")
    ended: dict[RunKey, float | None] = {}
    while free := [run for run in race.runs(ended) if run not in ended]:
        ended |= {(k, seed): float(runs[seed][k if k >= 0 else k + n_defaults]) for k, seed in free}
    return [k for k in best if k not in race.dropped(ended)]


def shrinkage(values: Floats, own_variance: float, lasting: float) -> float:
    """The share of a point's distance from the mean of the search that is true, by empirical Bayes."""
    once = own_variance + SEED_STD**2
    true = max(float(values.var(ddof=1)) - once, 1e-4)
    often = lasting * own_variance + ((1 - lasting) * own_variance + SEED_STD**2) / (1 + SEEDS)
    return true / (true + often)


def shrunk(first: Floats, means: Floats, pair: tuple[int, int], centre: float, kept: float) -> float:
    """The lead if the searched point is drawn toward `centre`; the default was not selected."""
    point, default = ((first[k] + SEEDS * means[k]) / (1 + SEEDS) for k in pair)
    return float(centre + kept * (point - centre) - default)


def recorded(rng: np.random.Generator, n_draws: int) -> Iterator[Lead]:
    """Confirmations of recipes that were run with two seeds."""
    for pool in twice_measured():
        n = pool.n_defaults
        test_own = OWN_SHARE * float(np.mean(pool.test * (1 - pool.test))) / pool.n_test
        for _ in range(n_draws):
            taken = np.r_[:n, n + rng.permutation(pool.val.shape[1] - n)[:POINTS]]
            val, test = pool.val[:, taken], pool.test[:, taken]
            means = val.mean(axis=0)
            point, default = n + int(means[n:].argmax()), int(means[:n].argmax())
            values = [[float(value) for value in column] for column in val.T]
            true = float(test[:, point].mean() - test[:, default].mean())
            error = math.sqrt(2 * (0.5 * test_own + (0.5 * test_own + SEED_STD**2) / len(val)))
            yield measured_lead(
                list(val),
                (point, default),
                std_error=std_error_of_lead(values, "accuracy", pool.n_val),
                shrunk=math.nan,
                truth=(true, true, error),
            )


def row(name: str, rule: Rule, leads: Sequence[Lead], groups: Sequence[int]) -> str:
    """A line of the table; errors are over `groups`, such as pools, whose searches are not independent."""
    taken = np.array([rule(lead) for lead in leads])
    true = np.array([lead.true for lead in leads])
    gains = 100 * np.where(taken, true, 0.0)
    lost = 100 * np.where([lead.mean > 0 for lead in leads], true, 0.0) - gains
    below = 100.0 * (taken & np.array([lead.test < -2 * lead.test_error for lead in leads]))
    cells = [f"{100 * (1 - taken.mean()):.0f}", *(interval(each, groups) for each in (gains, lost, below))]
    return f"| {name} | " + " | ".join([*cells, f"{100 * float(np.mean(gains < -1)):.1f}"]) + " |"


def interval(values: Floats, groups: Sequence[int]) -> str:
    """The mean with its 95 % t interval over the means of groups."""
    means = [float(values[np.array(groups) == group].mean()) for group in sorted(set(groups))]
    half = half_width(float(np.std(means, ddof=1)), len(means))
    return f"{np.mean(means):.2f} ± {half:.2f}"


def table(leads: Sequence[Lead], groups: Sequence[int], rules: Sequence[str] = tuple(RULES)) -> str:
    """The Markdown table of all rules."""
    head = (
        "rule",
        "default chosen, %",
        "gain",
        "gain lost",
        "below the default beyond noise, %",
        "truly 1 point below, %",
    )
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " --- |" * (len(head) - 1)]
    return "\n".join([*lines, *(row(name, RULES[name], leads, groups) for name in rules)])


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--searches", type=int, default=200, help="per pool and setting")
    parser.add_argument(
        "--lasting", type=float, default=0.5, help="share of a point's noise common to its runs"
    )
    args = parser.parse_args()
    leads, groups, n_vals = [], [], []
    for group, pool in enumerate(pools()):
        rng = np.random.default_rng(group)
        for n_points, n_val in SETTINGS:
            for _ in range(args.searches):
                leads.append(simulated(pool, n_points, n_val, args.lasting, rng))
                groups.append(group)
                n_vals.append(n_val)
    shares = own_shares()
    print(f"own share of the variance: {np.mean(shares):.2f} ({min(shares):.2f} to {max(shares):.2f})\n")
    print(f"simulated\n\n{table(leads, groups)}\n")
    for wanted in sorted(set(n_vals)):
        at = [index for index, n_val in enumerate(n_vals) if n_val == wanted]
        print(f"{wanted} validation images\n")
        print(table([leads[k] for k in at], [groups[k] for k in at], ("best mean", "odds 3 to 1")) + "\n")
    found = list(recorded(np.random.default_rng(0), args.searches))
    sets = [index // args.searches for index in range(len(found))]
    print(f"recorded\n\n{table(found, sets, [name for name in RULES if not name.startswith('drawn')])}")


if __name__ == "__main__":
    main()
