"""Regret of a confirmation by how it spends its runs, if each seed validates on other images.

    python -m benchmarks.selection.allocation benchmarks/{defaults,insight}/curves/*.json --draws 1000

Searches, true accuracies and runs are those of the recorded points in `regret`, whose runs on other images
have no part in common. A point is chosen over the better default at the odds of
`tlopt.confirmation.evidence`, if nothing else is said. *Runs* are those of searched points and of each
default.

*Rounds*: the points that take part, and after how many seeds the better of them go on, ranked by the mean of
their runs and their trial. *OCBA* [Chen, Lin, Yücesan and Chick 2000]: after one run of six points, one run
at a time to where the probability of choosing the best point gains most; points are compared by means drawn
to the search's mean by their known noise, since they have unequally many runs.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.defaults.replay import Floats, read
from benchmarks.selection.choice import SEED_STD, wide
from benchmarks.selection.regret import N_DEFAULTS, SIZES, Searched, interval, n_judge, of_recorded
from tlopt.confirmation.evidence import odds_min, std_error_of_lead

SHIPPED = "6, 3 after 1 of 3 seeds, as shipped"


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """A confirmation in rounds.

    Attributes:
        kept: Points of each round.
        ends: Seeds after each round.
        odds: At which a point is chosen; None: those of the images.
        with_trial: A point's trial counts as one more run where rounds rank.
        trial_at_end: And where the best is chosen.
        best_default_after: Seeds after which only the better default goes on; None: both do.
    """

    kept: tuple[int, ...] = (6, 3)
    ends: tuple[int, ...] = (1, 3)
    odds: float | None = None
    with_trial: bool = True
    trial_at_end: bool = False
    best_default_after: int | None = None

    @property
    def n_runs(self) -> int:
        """Of searched points."""
        lengths = np.diff((0, *self.ends))
        return int(np.dot(self.kept, lengths))

    @property
    def runs(self) -> str:
        """As in the table."""
        return f"{self.n_runs} + {self.ends[-1]}" + (" of one" if self.best_default_after else "")

    def choose(self, of: Searched, rng: np.random.Generator) -> int:
        """The index of the chosen point or default."""
        runs = np.array(of.runs_elsewhere(rng, self.ends[-1]))
        points, defaults = ranked(of.first, range(N_DEFAULTS, len(of.first))), list(range(N_DEFAULTS))
        for n_points, start in zip(self.kept, (0, *self.ends), strict=False):
            points = ranked(_means(of, runs[:start], with_trial=self.with_trial), points)[:n_points]
            if start and start == self.best_default_after:
                defaults = ranked(runs[:start].mean(axis=0), defaults)[:1]
        means = runs.mean(axis=0)
        point = ranked(_means(of, runs, with_trial=self.trial_at_end), points)[0]
        default = ranked(means, defaults)[0]
        values = [[float(value) for value in runs[:, k]] for k in (*defaults, *points)]
        n_images = of.n_val * self.ends[-1]
        error = std_error_of_lead(values, "accuracy", n_images)
        odds = odds_min(n_images, others=True) if self.odds is None else self.odds
        return point if means[point] - means[default] > wide(odds) * error else default


def ranked(values: Floats, among: Sequence[int]) -> list[int]:
    """The indices `among`, the highest of `values` first."""
    return sorted(among, key=lambda k: -values[k])


def _means(of: Searched, runs: Floats, *, with_trial: bool) -> Floats:
    rows = [of.first, *runs] if with_trial or not len(runs) else list(runs)
    return np.asarray(np.mean(rows, axis=0))


@dataclass(frozen=True, kw_only=True)
class Ocba:
    """Six points with one run each, then one run at a time."""

    n_runs: int = 12
    n_points: int = 6
    default_seeds: int = 3

    @property
    def runs(self) -> str:
        """As in the table."""
        return f"{self.n_runs} + {self.default_seeds}"

    def choose(self, of: Searched, rng: np.random.Generator) -> int:
        """The index of the chosen point or default."""
        runs = np.array(of.runs_elsewhere(rng, self.n_runs))
        points = ranked(of.first, range(N_DEFAULTS, len(of.first)))[: self.n_points]
        centre, noise = float(of.first.mean()), float(of.own.mean()) + SEED_STD**2
        prior = max(float(of.first.var(ddof=1)) - noise, 1e-4)
        counts = dict.fromkeys(points, 1)

        def posterior(k: int, n: int) -> float:
            mean = (of.first[k] + float(runs[:n, k].sum())) / (n + 1)
            return float(centre + (mean - centre) * prior / (prior + noise / (n + 1)))

        while sum(counts.values()) < self.n_runs:
            means = {k: posterior(k, n) for k, n in counts.items()}
            counts[_next_run(means, counts)] += 1
        n_default = self.default_seeds
        default = max(range(N_DEFAULTS), key=lambda k: runs[:n_default, k].mean())
        point = max(points, key=lambda k: posterior(k, counts[k]))
        lead = float(runs[: counts[point], point].mean() - runs[:n_default, default].mean())
        error = (noise / counts[point] + noise / n_default) ** 0.5
        odds = odds_min(of.n_val * n_default, others=True)
        return point if lead > wide(odds) * error else default


def _next_run(means: dict[int, float], counts: dict[int, int]) -> int:
    """The point that is furthest behind its share of the runs, all points having equal noise."""
    best = max(means, key=lambda k: means[k])
    share = {k: 1 / max(means[best] - mean, 1e-3) ** 2 for k, mean in means.items() if k != best}
    share[best] = sum(each**2 for each in share.values()) ** 0.5
    whole, n_runs = sum(share.values()), sum(counts.values()) + 1
    return max(share, key=lambda k: share[k] / whole * n_runs - counts[k])


_THREE = Rounds()
WAYS: dict[str, Rounds | Ocba] = {
    "6, 3 after 1 of 3 seeds, odds 3 to 1": replace(_THREE, odds=3.0),
    SHIPPED: _THREE,
    "the same, best mean": replace(_THREE, odds=1.0),
    "the same, trial not counted": replace(_THREE, with_trial=False),
    "the same, trial counted at the end too": replace(_THREE, trial_at_end=True),
    "6 with 3 seeds": Rounds(kept=(6,), ends=(3,)),
    "4 with 3 seeds": Rounds(kept=(4,), ends=(3,)),
    "8, 4 after 1 of 3": Rounds(kept=(8, 4)),
    "12, 3 after 1 of 3": Rounds(kept=(12, 3)),
    "6, by OCBA": Ocba(),
    "6, by OCBA, 20 runs": Ocba(n_runs=20, default_seeds=5),
    "6, 3, 2 after 1, 3 of 4": Rounds(kept=(6, 3, 2), ends=(1, 3, 4)),
    "6, 3, 2 after 1, 3 of 5": Rounds(kept=(6, 3, 2), ends=(1, 3, 5)),
    "6, 3, 2 after 1, 3 of 7": Rounds(kept=(6, 3, 2), ends=(1, 3, 7)),
    "the same, the best default alone after 3": Rounds(kept=(6, 3, 2), ends=(1, 3, 7), best_default_after=3),
    "8, 4, 2 after 1, 3 of 7, the same": Rounds(kept=(8, 4, 2), ends=(1, 3, 7), best_default_after=3),
}


def mean_regret(
    searches: Sequence[Searched], choose: Callable[[Searched, np.random.Generator], int]
) -> float:
    """In points of accuracy."""
    chosen = [choose(of, np.random.default_rng(k)) for k, of in enumerate(searches)]
    return 100 * float(np.mean([of.true.max() - of.true[k] for of, k in zip(searches, chosen, strict=True)]))


def lines(files: Sequence[Path], size: int, n_draws: int) -> Iterator[str]:
    """The table's lines for searches of `size` trials."""
    by_set = [list(of_recorded(read(file), n_judge(file), size, n_draws)) for file in files]
    base = np.array([mean_regret(each, lambda of, _: int(of.first.argmax())) for each in by_set])
    found = {name: np.array([mean_regret(each, way.choose) for each in by_set]) for name, way in WAYS.items()}
    for name, own in found.items():
        share = f"{100 * own.mean() / base.mean():.0f}"
        against = "" if name == SHIPPED else interval(own - found[SHIPPED])
        cells = (WAYS[name].runs, interval(own, ""), share, interval(own - base / 2), against)
        yield f"| {size} | {name} | {' | '.join(cells)} |"


def main() -> None:
    """Draw, choose and print."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("files", type=Path, nargs="+", help="recorded curves")
    parser.add_argument("--draws", type=int, default=1000, help="searches per recorded set and size")
    args = parser.parse_args()
    titles = ("trials", "points and rounds", "runs", "regret", "of the best last value's, %")
    print(f"| {' | '.join((*titles, 'above half of it', 'against shipped'))} |")
    print("| --- " * 7 + "|")
    for size in SIZES:
        print("\n".join(lines(args.files, size, args.draws)))


if __name__ == "__main__":
    main()
