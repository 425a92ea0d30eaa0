"""Should the partly frozen network be a default of every confirmation?

    python -m benchmarks.selection.fourth_default --searches 200

Compares three ways to treat it in the same searches: *absent*, as where the depths are not searched;
*searched*, as one more point that a search tries first; and *default*, confirmed with every seed and compared
by its mean alone. In all of them a searched point needs odds of three to one over the strongest default.

Searches are simulated as in `choice`, among the recipes of six sets; recorded ones choose among real means
over two seeds on 48 validation images. Accuracies are those of the chosen point: true ones in simulations,
on 300 test images in recorded runs. *Below*: the share of searches that end a point or more below the best of
the three other defaults, which nobody knows.
"""

import argparse
import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from benchmarks.defaults.replay import Floats
from benchmarks.selection.choice import POINTS, SETTINGS, Search, confirmed, interval, search, wide
from benchmarks.selection.pools import (
    PARTLY_FROZEN,
    RECIPE_DEFAULTS,
    Measured,
    recipe_pools,
    recipes_with_partly_frozen,
    twice_measured,
)
from tlopt.confirmation.evidence import ODDS_MIN, std_error_of_lead
from tlopt.search.race import Candidate, Race

DEFAULTS = (*RECIPE_DEFAULTS, PARTLY_FROZEN)
N_THREE = len(RECIPE_DEFAULTS)
WAYS = ("absent", "searched", "default")


def chosen(values: Floats, n_defaults: int, finalists: Sequence[int], n_val: int) -> int:
    """The index of the chosen point.

    Args:
        values: (seeds, points) on validation, the defaults first.
        finalists: indices of the searched points that got every seed.
        n_val: number of validation images.
    """
    means = values.mean(axis=0)
    default = int(means[:n_defaults].argmax())
    if not len(finalists):
        return default
    point = int(max(finalists, key=lambda k: float(means[k])))
    rows = [[float(value) for value in values[:, k]] for k in (*range(n_defaults), *finalists)]
    error = std_error_of_lead(rows, "accuracy", n_val)
    return point if float(means[point] - means[default]) > wide(ODDS_MIN) * error else default


def of_search(found: Search, way: str, n_val: int) -> int:
    """The index of the point that a simulated search ends with."""
    kept = np.arange(len(found.true))
    if way == "absent":
        kept = np.delete(kept, N_THREE)
    n_defaults = N_THREE + (way == "default")
    first, runs = found.first[kept], [run[kept] for run in found.runs]
    best = [int(k) for k in n_defaults + np.argsort(-first[n_defaults:])[:POINTS]]
    finalists = confirmed(n_defaults, best, first, runs)
    return int(kept[chosen(np.array(runs), n_defaults, finalists, n_val)])


def of_recorded(found: Measured, way: str, others: Sequence[int]) -> int:
    """The index of the recipe that a confirmation of recorded runs chooses.

    Args:
        others: indices of the nominated recipes, beside the defaults and the partly frozen network.
    """
    n_defaults = N_THREE + (way == "default")
    with_fourth: tuple[int, ...] = () if way == "absent" else (N_THREE,)
    kept: list[int] = [*range(N_THREE), *with_fourth, *others[: POINTS - (way == "searched")]]
    return kept[chosen(found.val[:, kept], n_defaults, range(n_defaults, len(kept)), found.n_val)]


def simulations(n_searches: int) -> Iterator[tuple[int, dict[str, float], float]]:
    """Of each search its pool, the true accuracy of each way, and of the best of the three defaults."""
    for group, pool in enumerate(recipe_pools(recipes_with_partly_frozen(), DEFAULTS)):
        rng = np.random.default_rng(group)
        for (n_points, n_val), _ in itertools.product(SETTINGS, range(n_searches)):
            found = search(pool, n_points, n_val, 0.5, rng)
            true = {way: float(found.true[of_search(found, way, n_val)]) for way in WAYS}
            yield group, true, float(found.true[:N_THREE].max())


def recordings(n_draws: int) -> Iterator[tuple[int, dict[str, float], float]]:
    """Of each draw of nominated recipes its set, the test accuracy of each way, and of the best default."""
    rng = np.random.default_rng(0)
    for group, found in enumerate(twice_measured(recipes_with_partly_frozen(), DEFAULTS)):
        test, n = found.test.mean(axis=0), found.n_defaults
        for _ in range(n_draws):
            others = [int(k) for k in n + rng.permutation(len(test) - n)]
            yield (
                group,
                {way: float(test[of_recorded(found, way, others)]) for way in WAYS},
                float(test[:N_THREE].max()),
            )


def table(found: Sequence[tuple[int, dict[str, float], float]]) -> Iterator[str]:
    """Markdown, with 95 % t intervals over sets of images."""
    groups = [group for group, *_ in found]
    best = np.array([each for *_, each in found])
    accuracies: dict[str, Floats] = {way: np.array([true[way] for _, true, _ in found]) for way in WAYS}
    titles = ("partly frozen network", "accuracy, %", "against absent", "against searched")
    yield f"| {' | '.join((*titles, 'below, %', 'against searched'))} |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for way, own in accuracies.items():
        against = ["", ""]
        for place, other in enumerate(WAYS[:2]):
            gained: Floats = 100 * (own - accuracies[other])
            against[place] = interval(gained, groups) if other != way else ""
        below: list[Floats] = [
            100 * (each < best - 0.01).astype(float) for each in (own, accuracies["searched"])
        ]
        fewer = "" if way == "searched" else interval(below[0] - below[1], groups)
        cells = [f"{100 * own.mean():.1f}", *against, interval(below[0], groups), fewer]
        yield f"| {way} | {' | '.join(cells)} |"


def n_runs(n_defaults: int) -> int:
    """Runs of a confirmation of six points with three seeds."""
    numbers = [*range(-n_defaults, 0), *range(POINTS)]
    rows = tuple(Candidate(number, str(number), None) for number in numbers)  # type: ignore[arg-type]
    return Race(candidates=rows, seeds=3, direction="maximize").n_planned({})


def main() -> None:
    """Simulate, replay and print."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--searches", type=int, default=200, help="per pool and setting")
    args = parser.parse_args()
    for title, found in (
        ("simulated", list(simulations(args.searches))),
        ("recorded", list(recordings(args.searches))),
    ):
        print(f"{title}\n\n" + "\n".join(table(found)) + "\n")
    print(f"runs of a confirmation: {n_runs(N_THREE)} with three defaults, {n_runs(N_THREE + 1)} with four")


if __name__ == "__main__":
    main()
