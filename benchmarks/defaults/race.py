"""Regret of the point that a confirmation chooses, in simulated searches: every seed for all, or rounds.

    python -m benchmarks.defaults.race --searches 2000

A search has 16 or 40 points; the true accuracies are 85 % minus the absolute value of a Gumbel variable with
scale 0.03 or 0.06. An observed accuracy on 48 or 120 validation images adds normal noise: 0.6 of the binomial
variance, since all points see the same images, and a seed's standard deviation of 0.015. Rounds are those of
`tlopt.search.race`; defaults are left out. Prints a Markdown table: runs, and mean regret in points
of accuracy over the eight settings, with the standard error of its difference to 3 points and 3 seeds.
"""

import argparse
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from tlopt.search.race import Candidate, Race, RunKey

PLANS = {  # points, seeds, rounds
    "3 points, 3 seeds": (3, 3, False),
    "6 points, 3 seeds, in rounds": (6, 3, True),
    "5 points, 3 seeds": (5, 3, False),
    "8 points, 3 seeds, in rounds": (8, 3, True),
    "8 points, 3 seeds": (8, 3, False),
    "8 points, 7 seeds, in rounds": (8, 7, True),
}
SETTINGS = tuple(itertools.product((16, 40), (0.03, 0.06), (48, 120)))
SEED_STD = 0.015  # of accuracy, over seeds
SHARED_VARIANCE = 0.4  # of the binomial variance, common to all points on the same images
_POINT: Any = None  # a race depends only on values


def true_accuracies(n_points: int, scale: float, rng: np.random.Generator) -> np.ndarray:
    """Accuracies of a search's points, 0.05 to 0.99."""
    return np.asarray(np.clip(0.85 - np.abs(rng.gumbel(0, scale, n_points)), 0.05, 0.99))


def observed(true: np.ndarray, n_images: int, rng: np.random.Generator) -> np.ndarray:
    """Accuracies on `n_images` validation images after training with one seed."""
    variance = (1 - SHARED_VARIANCE) * true * (1 - true) / n_images + SEED_STD**2
    return np.asarray(true + rng.normal(0, np.sqrt(variance)))


def confirmed(first: np.ndarray, runs: Sequence[np.ndarray], plan: tuple[int, int, bool]) -> tuple[int, int]:
    """The index of the chosen point, and the number of runs.

    Args:
        first: observed accuracy of each point in the search.
        runs: likewise for each seed of the confirmation.
        plan: see `PLANS`.
    """
    n_points, seeds, halves = plan
    best = [int(n) for n in np.argsort(-first)[:n_points]]
    candidates = tuple(Candidate(n, str(n), _POINT, float(first[n])) for n in best)
    race = Race(candidates=candidates, seeds=seeds, direction="maximize", halves=halves)
    ended: dict[RunKey, float | None] = {}
    while free := [run for run in race.runs(ended) if run not in ended]:
        ended |= {(n, seed): float(runs[seed][n]) for n, seed in free}
    left = set(best) - race.dropped(ended)
    return max(left, key=lambda n: np.mean([runs[seed][n] for seed in range(seeds)])), len(ended)


def simulate(n_searches: int, seed: int) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """Regret of each plan by setting and search, 0 to 1, and its number of runs."""
    rng = np.random.default_rng(seed)
    regrets = {name: np.zeros((len(SETTINGS), n_searches)) for name in PLANS}
    n_runs = dict.fromkeys(PLANS, 0)
    seeds_max = max(seeds for _, seeds, _ in PLANS.values())
    for at, (n_points, scale, n_images) in enumerate(SETTINGS):
        for search in range(n_searches):
            true = true_accuracies(n_points, scale, rng)
            first, *runs = (observed(true, n_images, rng) for _ in range(1 + seeds_max))
            for name, plan in PLANS.items():
                chosen, n_runs[name] = confirmed(first, runs, plan)
                regrets[name][at, search] = true.max() - true[chosen]
    return regrets, n_runs


def table(regrets: dict[str, np.ndarray], n_runs: dict[str, int]) -> str:
    """The Markdown table, in points of accuracy."""
    lines = ["| confirmation | runs | regret | against 3 points, 3 seeds | least to most, by setting |"]
    lines.append("| --- | --- | --- | --- | --- |")
    base = next(iter(regrets.values()))
    for name, regret in regrets.items():
        change = 100 * (regret - base)
        error = change.std(axis=1).mean() / np.sqrt(change.size)
        ratios = 100 * (regret.mean(axis=1) / base.mean(axis=1) - 1)
        lines.append(
            f"| {name} | {n_runs[name]} | {100 * regret.mean():.2f} | {change.mean():+.2f} ± {error:.2f} "
            f"| {ratios.min():+.0f} % to {ratios.max():+.0f} % |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run the simulation and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--searches", type=int, default=2000, help="per setting")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    print(table(*simulate(args.searches, args.seed)))


if __name__ == "__main__":
    main()
