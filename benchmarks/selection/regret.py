"""Regret of what a search ends with: its best trial, or what a confirmation chooses.

    python -m benchmarks.selection.regret benchmarks/{defaults,insight}/curves/*.json

**Recorded.** The points of the learning curves in shuffled orders, the defaults first, of which a search has
the first 10, 20 or all. Their last validation accuracies are the recorded ones. True accuracies are drawn:
from the posterior given both recorded accuracies, on validation and on the other images, with a normal prior
of the set's mean and spread and the own part of the binomial variances. Drawing them removes the noise of the
images that judge, which would be taken for regret. A run of a confirmation has the true accuracy, the lasting
part of what the validation images have added to the point's recorded value, and new noise.

**Surrogates** are those of `benchmarks.defaults.surrogate`, searched by TPE on one split, or on another split
in each trial.

Regret is the true accuracy of the best of the search's points minus that of the chosen one, in points of
accuracy. Intervals are Student's t over sets of images, which are paired in the last two columns.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import optuna

from benchmarks.defaults.replay import Floats, Recording, read
from benchmarks.defaults.surrogate import Surrogate, fit_surrogate, search
from benchmarks.selection.choice import POINTS, SEED_STD, SEEDS, confirmed, wide
from tlopt.confirmation.evidence import LASTING_SHARE, odds_min, std_error_of_lead
from tlopt.confirmation.interval import half_width
from tlopt.spec.algorithms import TpeSampler
from tlopt.spec.objectives import OWN_SHARE

N_DEFAULTS = 2
SIZES = (10, 20, 33)
TODAY = "confirmed, default unless evidence"


@dataclass(frozen=True, kw_only=True)
class Searched:
    """The trials of a search, the defaults first; arrays over trials, accuracies in [0, 1]."""

    first: Floats  # values of the trials
    true: Floats
    lasting: Floats  # what the validation images add to every run of the point
    n_val: int

    @property
    def own(self) -> Floats:
        """Own part of the binomial variance of a value."""
        share = np.clip(self.true, 0.02, 0.98)
        return np.asarray(OWN_SHARE * share * (1 - share) / self.n_val)

    def runs(self, rng: np.random.Generator, n: int) -> list[Floats]:
        """Values of `n` runs of each point on the same validation images."""
        noise = np.sqrt((1 - LASTING_SHARE) * self.own + SEED_STD**2)
        return [self.true + self.lasting + rng.normal(0, noise) for _ in range(n)]

    def runs_elsewhere(self, rng: np.random.Generator, n: int) -> list[Floats]:
        """Values of `n` runs of each point, each run on other validation images."""
        return [self.true + rng.normal(0, np.sqrt(self.own + SEED_STD**2)) for _ in range(n)]


Choice = Callable[[Searched, np.random.Generator], int]


def nominated(of: Searched) -> list[int]:
    """The trials that a confirmation takes beside the defaults."""
    order = N_DEFAULTS + np.argsort(-of.first[N_DEFAULTS:], kind="stable")
    return [int(k) for k in order[:POINTS]]


def by_rounds(of: Searched, runs: Sequence[Floats], *, odds: int = 1, with_trial: bool = False) -> int:
    """What a confirmation in rounds chooses, given the values of all runs.

    Args:
        odds: Splits that the runs take in turn, for the odds at which a point is chosen over the stronger
            default; 0: no odds are needed.
        with_trial: The value of a point's trial counts as a further run where points are compared.
    """
    finalists = confirmed(N_DEFAULTS, nominated(of), of.first, runs)
    means = np.mean(runs, axis=0)
    among = np.mean([of.first, *runs], axis=0) if with_trial else means
    point, default = max(finalists, key=lambda k: among[k]), int(means[:N_DEFAULTS].argmax())
    values = [[float(run[k]) for run in runs] for k in (*range(N_DEFAULTS), *finalists)]
    if not odds:
        return point if means[point] > means[default] else default
    needed = wide(odds_min(of.n_val * odds, others=odds > 1))
    error = std_error_of_lead(values, "accuracy", of.n_val * odds)
    return point if means[point] - means[default] > needed * error else default


def best_mean(runs: Sequence[Floats]) -> int:
    """The point with the best mean, if all points are run with every seed."""
    return int(np.mean(runs, axis=0).argmax())


CHOICES: dict[str, Choice] = {
    "best last value": lambda of, _: int(of.first.argmax()),
    "confirmed, best mean": lambda of, rng: by_rounds(of, of.runs(rng, SEEDS), odds=0),
    TODAY: lambda of, rng: by_rounds(of, of.runs(rng, SEEDS)),
    "the same, trial counted too": lambda of, rng: by_rounds(of, of.runs(rng, SEEDS), with_trial=True),
    "the same, 7 seeds": lambda of, rng: by_rounds(of, of.runs(rng, 7)),
    "the same, each seed on other images": lambda of, rng: by_rounds(
        of, of.runs_elsewhere(rng, SEEDS), odds=SEEDS
    ),
    "the same, 7 seeds, each on other images": lambda of, rng: by_rounds(
        of, of.runs_elsewhere(rng, 7), odds=7
    ),
    "all points, three seeds": lambda of, rng: best_mean(of.runs(rng, SEEDS)),
    "all points, any number of seeds": lambda of, _: int((of.true + of.lasting).argmax()),
    "all points, ten seeds, each on other images": lambda of, rng: best_mean(of.runs_elsewhere(rng, 10)),
    "the best of those confirmed, in truth": lambda of, _: max(
        (*range(N_DEFAULTS), *nominated(of)), key=lambda k: float(of.true[k])
    ),
}


def drawn(recording: Recording, n_judge: int, rng: np.random.Generator) -> Searched:
    """True accuracies and lasting parts of the recorded points, given what was recorded."""
    val, judge = recording.curves[:, -1], recording.judge
    both = recording.pooled
    own = OWN_SHARE * float(np.mean(both * (1 - both)))
    val_variance, judge_variance = own / recording.n_val + SEED_STD**2, own / n_judge + SEED_STD**2
    seen = val - (val.mean() - judge.mean())  # how hard the validation images are for all points alike
    spread = max(float(judge.var(ddof=1)) - judge_variance, 1e-4)
    precision = 1 / spread + 1 / val_variance + 1 / judge_variance
    mean = (judge.mean() / spread + seen / val_variance + judge / judge_variance) / precision
    true = mean + rng.normal(0, precision**-0.5, len(mean))
    lasting = LASTING_SHARE * own / recording.n_val
    kept = lasting / val_variance
    part = kept * (seen - true) + rng.normal(0, np.sqrt(lasting * (1 - kept)), len(true))
    return Searched(first=seen, true=true, lasting=part, n_val=recording.n_val)


def of_recorded(recording: Recording, n_judge: int, size: int, n_draws: int) -> Iterator[Searched]:
    """Searches that have `size` of the recorded points."""
    rng = np.random.default_rng(size)
    n = len(recording.judge)
    for _ in range(n_draws):
        whole = drawn(recording, n_judge, rng)
        taken = np.r_[:N_DEFAULTS, N_DEFAULTS + rng.permutation(n - N_DEFAULTS)][:size]
        parts = {name: getattr(whole, name)[taken] for name in ("first", "true", "lasting")}
        yield Searched(**parts, n_val=whole.n_val)


def of_surrogate(
    surrogate: Surrogate, n_val: int, n_trials: int, n_searches: int, *, one_split: bool
) -> Iterator[Searched]:
    """Searches of a surrogate by TPE.

    Args:
        one_split: All trials see the same validation images, whose difficulty they have in common; otherwise
            each trial has a split of its own.
    """
    own = surrogate.noise * (OWN_SHARE**0.5 if one_split else 1.0)
    noisy = replace(surrogate, noise=(own**2 + SEED_STD**2) ** 0.5)
    for seed in range(n_searches):
        rng = np.random.default_rng(seed)
        trials = search(noisy, TpeSampler(), seed, n_trials)
        lasting = LASTING_SHARE * OWN_SHARE * surrogate.noise**2
        kept = lasting / noisy.noise**2 if one_split else 0.0
        part = kept * (trials.values - trials.means) + rng.normal(
            0, np.sqrt(lasting * (1 - kept)), len(trials.means)
        )
        yield Searched(first=trials.values, true=trials.means, lasting=part, n_val=n_val)


def regrets(searches: Sequence[Searched]) -> dict[str, float]:
    """The mean regret of each choice, in points of accuracy."""
    found = {}
    for name, choose in CHOICES.items():
        chosen = [choose(of, np.random.default_rng(k)) for k, of in enumerate(searches)]
        lost = [of.true.max() - of.true[k] for of, k in zip(searches, chosen, strict=True)]
        found[name] = 100 * float(np.mean(lost))
    return found


def measured(recording: Recording, size: int, n_draws: int) -> float:
    """Regret of the best last value as the other images measure it, whose noise is part of it."""
    rng, n, found = np.random.default_rng(0), len(recording.judge), []
    for _ in range(n_draws):
        taken = np.r_[:N_DEFAULTS, N_DEFAULTS + rng.permutation(n - N_DEFAULTS)][:size]
        judge = recording.judge[taken]
        found.append(100 * float(judge.max() - judge[recording.curves[taken, -1].argmax()]))
    return float(np.mean(found))


def rows(of: str, by_set: Sequence[dict[str, float]]) -> Iterator[str]:
    """Lines of the table: a choice's regret, and how far it is above half of the best last value's."""
    found = {name: np.array([each[name] for each in by_set]) for name in CHOICES}
    base = found["best last value"]
    for name, own in found.items():
        share = f"{100 * own.mean() / base.mean():.0f}"
        cells = (interval(own, ""), share, interval(own - base / 2), interval(own - found[TODAY]))
        yield f"| {of} | {name} | {' | '.join(cells)} |"


def interval(values: Floats, sign: str = "+") -> str:
    """The mean with its 95 % t interval."""
    half = half_width(float(values.std(ddof=1)), len(values))
    return f"{values.mean():{sign}.2f} ± {half:.2f}"


def main() -> None:
    """Draw, choose and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", type=Path, nargs="+", help="recorded curves")
    parser.add_argument("--draws", type=int, default=400, help="searches per recorded set and size")
    parser.add_argument("--searches", type=int, default=40, help="per surrogate")
    parser.add_argument("--trials", type=int, default=30, help="of a search of a surrogate")
    args = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    recordings = [read(file) for file in args.files]
    judges = [n_judge(file) for file in args.files]
    print("| points | chosen by | regret | of the best last value's, % | above half of it | against tlopt |")
    print("| --- " * 6 + "|")
    for size in SIZES:
        pairs = zip(recordings, judges, strict=True)
        found = [regrets(list(of_recorded(r, n, size, args.draws))) for r, n in pairs]
        raw = [measured(recording, size, args.draws) for recording in recordings]
        print(f"| recorded, {size} | best last value, as measured | {np.mean(raw):.2f} | | | |")
        print("\n".join(rows(f"recorded, {size}", found)))
    for one_split, name in ((True, "surrogates"), (False, "surrogates, a split per trial")):
        found = [
            regrets(list(of_surrogate(surrogate, n_val, args.trials, args.searches, one_split=one_split)))
            for surrogate, n_val in ((fit_surrogate(each), each.n_val) for each in recordings)
        ]
        print("\n".join(rows(name, found)))


def n_judge(file: Path) -> int:
    """Number of the other images of a recording."""
    return int(json.loads(file.read_text())["images"]["judge"])


if __name__ == "__main__":
    main()
