"""What pruners and samplers would have done: replayed on recorded curves, and on a surrogate fitted to them.

    python benchmarks/choose_defaults.py pruners benchmarks/curves/*.json --plot benchmarks/pruners.png
    python benchmarks/choose_defaults.py samplers benchmarks/curves/*.json

Prints Markdown tables. Pruners and samplers come from `tlopt.search.sampler`, so that our own reading of
`min_epochs` and of seeds is what is measured. Accuracies and regrets are in points (hundredths).
"""

import argparse
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import optuna
from replay import Recording, at_epochs, at_trials, good_pruned, read, replays
from surrogate import fit_surrogate, search

from tlopt.algorithms import (
    GpSampler,
    HalvingPruner,
    HyperbandPruner,
    MedianPruner,
    NoPruner,
    PercentilePruner,
    Pruner,
    QmcSampler,
    RandomSampler,
    Sampler,
    TpeSampler,
)

PRUNERS: dict[str, Pruner] = {
    "none": NoPruner(kind="none"),
    **{
        f"median, startup {n}, min_epochs {m}": MedianPruner(n_startup_trials=n, min_epochs=m)
        for n in (3, 5, 8)
        for m in (1, 2, 3, 4)
    },
    **{
        f"percentile {p:g}, startup 5, min_epochs {m}": PercentilePruner(
            kind="percentile", percentile=p, min_epochs=m
        )
        for p in (25.0, 75.0)
        for m in (2, 3)
    },
    **{
        f"successive_halving, min_epochs {m}, factor {f}": HalvingPruner(
            kind="successive_halving", min_epochs=m, reduction_factor=f
        )
        for f in (2, 3)
        for m in (2, 3, 4)
    },
    **{
        f"hyperband, min_epochs {m}, factor {f}": HyperbandPruner(
            kind="hyperband", min_epochs=m, reduction_factor=f
        )
        for f in (2, 3)
        for m in (2, 3)
    },
}
SAMPLERS: dict[str, Sampler] = {
    "random": RandomSampler(kind="random"),
    "qmc": QmcSampler(kind="qmc"),
    **{f"tpe, startup {n}, candidates 24": TpeSampler(n_startup_trials=n) for n in (4, 8, 16)},
    **{f"tpe, startup 8, candidates {c}": TpeSampler(n_ei_candidates=c) for c in (12, 96)},
    **{f"gp, startup {n}": GpSampler(kind="gp", n_startup_trials=n) for n in (4, 10)},
}
BUDGETS_PRUNER = (10, 20, 30)  # trials
BUDGETS_SAMPLER = (16, 30, 60)


def mean_of(rows: Sequence[Mapping[str, float]], key: str) -> float:
    return float(np.mean([row[key] for row in rows]))


def spread(per_set: Sequence[float], digits: int = 1) -> str:
    """Mean over data sets, with the least and the greatest."""
    return f"{np.mean(per_set):.{digits}f} ({min(per_set):.{digits}f} to {max(per_set):.{digits}f})"


def pruner_tables(recordings: Sequence[Recording], n_orders: int, plot: Path | None) -> None:
    """Print both tables; each number is a mean over orders, then mean (least to greatest) over data sets."""
    done = {
        label: [replays(recording, pruner, n_orders) for recording in recordings]
        for label, pruner in PRUNERS.items()
    }
    summary: dict[str, tuple[float, float]] = {}
    for n_trials in BUDGETS_PRUNER:
        print(f"\n{n_trials} trials\n\n| pruner | epochs, % of full | regret | best lost, % | judge |")
        print("| --- | --- | --- | --- | --- |")
        for label, by_set in done.items():
            rows = [
                [at_trials(r, x, n_trials) for x in runs] for r, runs in zip(recordings, by_set, strict=True)
            ]
            share = [100 * mean_of(x, "share") for x in rows]
            regret = [mean_of(x, "regret") for x in rows]
            lost = [100 * mean_of(x, "lost") for x in rows]
            judge = [mean_of(x, "judge") for x in rows]
            summary[label] = float(np.mean(share)), float(np.mean(regret))
            print(
                f"| {label} | {spread(share, 0)} | {spread(regret)} | {spread(lost, 0)} | {spread(judge)} |"
            )
    print(
        "\n| pruner | gap at the epochs of 10 full trials | of 15 | trials for 10"
        " | good slow starters pruned, % | other good points pruned, % |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    for label, by_set in done.items():
        cells = []
        for n_full in (10, 15):
            rows = [
                [at_epochs(r, x, n_full) for x in runs] for r, runs in zip(recordings, by_set, strict=True)
            ]
            cells.append(spread([mean_of(x, "gap") for x in rows]))
            if n_full == 10:
                trials = spread([mean_of(x, "trials") for x in rows], 0)
        shares = [good_pruned(r, runs) for r, runs in zip(recordings, by_set, strict=True)]
        slow, others = (spread([100 * x[i] for x in shares], 0) for i in (0, 1))
        print(f"| {label} | {cells[0]} | {cells[1]} | {trials} | {slow} | {others} |")
    if plot is not None:
        draw(summary, plot, f"{BUDGETS_PRUNER[-1]} trials, mean of {len(recordings)} data sets")


def draw(summary: Mapping[str, tuple[float, float]], file: Path, title: str) -> None:
    """Write a PNG of epochs spent against regret, one dot a pruner."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.2), dpi=80, layout="constrained")
    for kind in ("none", "median", "percentile", "successive_halving", "hyperband"):
        dots = [xy for label, xy in summary.items() if label.split(",")[0].split(" ")[0] == kind]
        axes.scatter(*zip(*dots, strict=True), label=kind)
    axes.set(xlabel="epochs spent, % of full", ylabel="regret, points of accuracy", title=title)
    axes.legend()
    figure.savefig(file)


def sampler_tables(recordings: Sequence[Recording], n_seeds: int, only: str) -> None:
    """Print, for each budget, regret of the best mean found and of the trial with the best value."""
    surrogates = [fit_surrogate(recording) for recording in recordings]
    for recording, s in zip(recordings, surrogates, strict=True):
        print(f"{recording.name}: r2 {s.r2:.2f}, noise {100 * s.noise:.1f}, best {100 * s.best:.1f} points")
    labels = [label for label in SAMPLERS if label.startswith(only)]
    print("\n| sampler | measure | " + " | ".join(f"{n} trials" for n in BUDGETS_SAMPLER) + " |")
    print("| --- | --- |" + " --- |" * len(BUDGETS_SAMPLER))
    for label in labels:
        found, picked = [], []
        for s in surrogates:
            for seed in range(n_seeds):
                means, values = search(s, SAMPLERS[label], seed, BUDGETS_SAMPLER[-1])
                found.append([100 * (s.best - means[:n].max()) for n in BUDGETS_SAMPLER])
                picked.append([100 * (s.best - means[values[:n].argmax()]) for n in BUDGETS_SAMPLER])
        for name, rows in (("best found", found), ("best value", picked)):
            low, middle, high = np.quantile(np.array(rows), (0.25, 0.5, 0.75), axis=0)
            cells = [f"{m:.1f} ({a:.1f} to {b:.1f})" for a, m, b in zip(low, middle, high, strict=True)]
            print(f"| {label} | {name} | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("pruners", "samplers"))
    parser.add_argument("curves", nargs="+", type=Path, help="files that record_curves.py wrote")
    parser.add_argument("--orders", type=int, default=60, help="shuffled orders for each pruner and data set")
    parser.add_argument("--seeds", type=int, default=30, help="searches for each sampler and data set")
    parser.add_argument("--only", default="", help="samplers whose label begins so")
    parser.add_argument("--plot", type=Path, help="PNG of the pruners at the largest budget")
    args = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    recordings = [read(file) for file in args.curves]
    if args.what == "pruners":
        pruner_tables(recordings, args.orders, args.plot)
    else:
        sampler_tables(recordings, args.seeds, args.only)


if __name__ == "__main__":
    main()
