"""Pruners replayed on recorded learning curves, and samplers on a surrogate fitted to them.

    python -m benchmarks.defaults.choose pruners benchmarks/defaults/curves/*.json --orders 30
    python -m benchmarks.defaults.choose samplers benchmarks/defaults/curves/{flowers5,rsscn7,signdigits}.json

Prints Markdown tables. Pruners and samplers are built by tlopt's own functions, so that `min_epochs` and
seeds have the same meaning as in tlopt. Accuracies and regrets are in points (hundredths).
"""

import argparse
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import optuna
from optuna.pruners import BasePruner, WilcoxonPruner

from benchmarks.defaults.replay import Recording, Replay, at_epochs, at_trials, good_pruned, read, replays
from benchmarks.defaults.surrogate import fit_surrogate, search
from tlopt.spec.algorithms import (
    GpSampler,
    HalvingPruner,
    HyperbandPruner,
    MedianPruner,
    NoPruner,
    PercentilePruner,
    Pruner,
    RandomSampler,
    Sampler,
    TpeSampler,
)

PRUNERS: dict[str, Pruner | BasePruner] = {
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
    # compares with the best trial epoch by epoch, and assumes independent values
    **{
        f"wilcoxon, p {p:g}, min_epochs {m}": WilcoxonPruner(p_threshold=p, n_startup_steps=m)
        for p in (0.1, 0.2)
        for m in (2, 4)
    },
}
SAMPLERS: dict[str, Sampler] = {
    "random": RandomSampler(kind="random"),
    **{
        f"tpe, startup {n}, candidates 24": TpeSampler(n_startup_trials=n, n_ei_candidates=24)
        for n in (4, 8, 16)
    },
    "tpe, startup 8, candidates 96": TpeSampler(n_startup_trials=8, n_ei_candidates=96),
    "gp, startup 10": GpSampler(kind="gp", n_startup_trials=10),
}
BUDGETS_TRIALS = (10, 20, 30)
BUDGETS_EPOCHS = (10, 15)  # in full trials
BUDGETS_SAMPLER = (16, 30, 60)

Done = Mapping[str, Sequence[tuple[Recording, Replay]]]


def spread(per_set: Sequence[float], digits: int = 1) -> str:
    """Mean over data sets, with minimum and maximum in brackets."""
    return f"{np.mean(per_set):.{digits}f} ({min(per_set):.{digits}f} to {max(per_set):.{digits}f})"


def pruner_tables(recordings: Sequence[Recording], n_orders: int, plot: Path | None) -> None:
    """Print all tables; figures are means over orders, then over data sets (minimum to maximum)."""
    done: Done = {
        label: [(r, run) for r in recordings for run in replays(r, pruner, n_orders)]
        for label, pruner in PRUNERS.items()
    }
    for n in BUDGETS_TRIALS:
        print(f"\n{n} trials\n\n| pruner | epochs, % of full | regret | best lost, % | judge |")
        print("| --- | --- | --- | --- | --- |")
        for label, runs in done.items():
            rows = by_set((r, at_trials(r, run, n)) for r, run in runs)
            cells = [spread(rows["share"], 0), spread(rows["regret"]), spread(rows["lost"], 0)]
            print(f"| {label} | " + " | ".join([*cells, spread(rows["judge"])]) + " |")
    for n in BUDGETS_EPOCHS:
        print(f"\nthe epochs of {n} full trials\n\n| pruner | trials | gain on val | gain on judge |")
        print("| --- | --- | --- | --- |")
        for label, runs in done.items():
            rows = by_set((r, at_epochs(r, run, n)) for r, run in runs)
            cells = [spread(rows["trials"], 0), spread(rows["val"]), spread(rows["judge"])]
            print(f"| {label} | " + " | ".join(cells) + " |")
    print("\n| pruner | good slow starters pruned, % | other good points pruned, % |\n| --- | --- | --- |")
    for label, runs in done.items():
        rows = by_set((r, good_pruned(r, run)) for r, run in runs)
        print(f"| {label} | {spread(rows['slow'], 0)} | {spread(rows['other'], 0)} |")
    if plot is not None:
        draw(done, plot)


def by_set(rows: Iterable[tuple[Recording, Mapping[str, float]]]) -> dict[str, list[float]]:
    """The mean of each measure on each data set; NaN values are left out."""
    sets: dict[str, list[Mapping[str, float]]] = defaultdict(list)
    for recording, row in rows:
        sets[recording.name].append(row)
    names = next(iter(sets.values()))[0]
    return {
        name: [float(np.nanmean([row[name] for row in each])) for each in sets.values()] for name in names
    }


def draw(done: Done, file: Path) -> None:
    """Write a PNG of epochs spent against regret at the largest budget, one dot per setting."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    n = BUDGETS_TRIALS[-1]
    dots: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for label, runs in done.items():
        rows = by_set((r, at_trials(r, run, n)) for r, run in runs)
        dots[label.split()[0].strip(",")].append(
            (float(np.mean(rows["share"])), float(np.mean(rows["regret"])))
        )
    figure, axes = plt.subplots(figsize=(7, 4.2), dpi=80, layout="constrained")
    for kind, points in dots.items():
        axes.scatter(*zip(*points, strict=True), label=kind)
    axes.set(xlabel="epochs spent, % of full", ylabel="regret, points of accuracy", title=f"{n} trials")
    axes.legend()
    figure.savefig(file)


def sampler_tables(recordings: Sequence[Recording], n_seeds: int, n_trials: int, only: str) -> None:
    """Print the regret of the best trial found and of the trial with the best value, for each budget."""
    surrogates = [fit_surrogate(recording) for recording in recordings]
    for recording, s in zip(recordings, surrogates, strict=True):
        print(f"{recording.name}: r2 {s.r2:.2f}, noise {100 * s.noise:.1f}, best {100 * s.best:.1f} points")
    labels = [label for label in SAMPLERS if label.startswith(only)]
    budgets = [n for n in BUDGETS_SAMPLER if n <= n_trials]
    print("\n| sampler | measure | " + " | ".join(f"{n} trials" for n in budgets) + " |")
    print("| --- | --- |" + " --- |" * len(budgets))
    for label in labels:
        found, picked = [], []
        for s in surrogates:
            for seed in range(n_seeds):
                trials = search(s, SAMPLERS[label], seed, budgets[-1])
                means, values = trials.means, trials.values
                found.append([100 * (s.best - means[:n].max()) for n in budgets])
                picked.append([100 * (s.best - means[values[:n].argmax()]) for n in budgets])
        for name, rows in (("best found", found), ("best value", picked)):
            low, middle, high = np.quantile(np.array(rows), (0.25, 0.5, 0.75), axis=0)
            cells = [f"{m:.1f} ({a:.1f} to {b:.1f})" for a, m, b in zip(low, middle, high, strict=True)]
            print(f"| {label} | {name} | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("pruners", "samplers"), help="what to compare")
    parser.add_argument("curves", nargs="+", type=Path, help="files of benchmarks.defaults.record_curves")
    parser.add_argument("--orders", type=int, default=60, help="shuffled orders per pruner and data set")
    parser.add_argument("--seeds", type=int, default=30, help="searches per sampler and data set")
    parser.add_argument(
        "--trials", type=int, choices=BUDGETS_SAMPLER, default=60, help="largest budget of the samplers"
    )
    parser.add_argument("--only", default="", help="only samplers whose label begins with this")
    parser.add_argument("--plot", type=Path, help="PNG of the pruners at the largest budget")
    args = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    recordings = [read(file) for file in args.curves]
    if args.what == "pruners":
        pruner_tables(recordings, args.orders, args.plot)
    else:
        sampler_tables(recordings, args.seeds, args.trials, args.only)


if __name__ == "__main__":
    main()
