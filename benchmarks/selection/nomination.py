"""Which trials a confirmation trains again: the best values, or the best means of a model with known noise.

    python -m benchmarks.selection.nomination --orders 20 --seeds 15

The Gaussian process (Matérn 5/2, one length for all keys, fitted by marginal likelihood) knows each trial's
noise, the binomial variance of its validation images. *Spread* passes over points closer than 0.15 to one
that is taken, where all keys are scaled to [0, 1]. Six trials are nominated and confirmed with the two
defaults over three seeds of simulated noise, 20 times.

**Recorded**: the first 10, 20 or all points of the recorded learning curves in shuffled orders. Accuracies on
the other images are taken for the truth. **Surrogates** of the same sets (`benchmarks.defaults.surrogate`):
searches by TPE of 30 trials, with the noise of 48 validation images and known truth.

Prints a Markdown table: points of accuracy by which the best nominated trial and the chosen one fall short of
the best trial, and their difference to nominating by the last value, with Student's t over the five sets.
"""

import argparse
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import optuna
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern

from benchmarks.defaults.replay import Floats, read
from benchmarks.defaults.surrogate import DISTRIBUTIONS, features, fit_surrogate, search
from benchmarks.selection.choice import SEED_STD
from benchmarks.selection.pools import CURVES
from tlopt.confirmation.interval import half_width
from tlopt.spec.algorithms import TpeSampler
from tlopt.spec.objectives import OWN_SHARE

POINTS, SEEDS, CONFIRMATIONS = 6, 3, 20
NEAR = 0.15  # distance of two points, their keys scaled to [0, 1]
N_TRIALS = 30


@dataclass(frozen=True, kw_only=True)
class Searched:
    """The complete trials of one search; the two defaults come first."""

    of: str
    group: str  # the set of images
    inputs: Floats  # (trials, keys), scaled to [0, 1]
    curves: Floats  # (trials, epochs): accuracy on validation
    n_val: int
    true: Floats  # (trials,): accuracy on other images, or without noise


def scaled(params: Sequence[dict[str, float]]) -> Floats:
    """Inputs of the model: `features`, scaled to [0, 1] over the trials."""
    raw = np.array([features(each) for each in params])
    assert raw.shape[1] == len(DISTRIBUTIONS)
    return np.asarray((raw - raw.min(axis=0)) / np.maximum(np.ptp(raw, axis=0), 1e-9))


def posterior_mean(inputs: Floats, values: Floats, n_val: int) -> Floats:
    """The mean of a Gaussian process with known noise at the trials themselves."""
    centre, scale = float(values.mean()), max(float(values.std()), 0.02)
    drawn = (values + centre) / 2  # a share of 1 or 0 has no binomial variance
    noise = drawn * (1 - drawn) / n_val
    kernel = ConstantKernel(1.0, (0.1, 10.0)) * Matern(0.7, (0.15, 5.0), nu=2.5)
    model = GaussianProcessRegressor(kernel, alpha=noise / scale**2, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(inputs, (values - centre) / scale)
    return np.asarray(centre + scale * model.predict(inputs))


def best(scores: Floats) -> list[int]:
    """Indices of the trials with the best scores."""
    return [int(index) for index in np.argsort(-scores, kind="stable")[:POINTS]]


def best_spread(scores: Floats, inputs: Floats) -> list[int]:
    """Indices of the best trials of which none is near a better one."""
    taken: list[int] = []
    for index in np.argsort(-scores, kind="stable"):
        if all(np.linalg.norm(inputs[index] - inputs[other]) >= NEAR for other in taken):
            taken.append(int(index))
    return taken[:POINTS]


def last(of: Searched) -> Floats:
    """Accuracy after the last epoch."""
    return of.curves[:, -1]


def last_three(of: Searched) -> Floats:
    """Mean accuracy of the last three epochs."""
    return np.asarray(of.curves[:, -3:].mean(axis=1))


def model(values: Callable[[Searched], Floats]) -> Callable[[Searched], Floats]:
    """The model's mean of `values`."""
    return lambda of: posterior_mean(of.inputs, values(of), of.n_val)


NOMINATIONS: dict[str, Callable[[Searched], list[int]]] = {
    "last value": lambda of: best(last(of)),
    "last value, spread": lambda of: best_spread(last(of), of.inputs),
    "mean of three epochs": lambda of: best(last_three(of)),
    "Gaussian process": lambda of: best(model(last)(of)),
    "Gaussian process, spread": lambda of: best_spread(model(last)(of), of.inputs),
    "Gaussian process of three epochs": lambda of: best(model(last_three)(of)),
}


def recorded(n_orders: int) -> Iterator[Searched]:
    """The first points of the recorded curves in shuffled orders, the defaults first."""
    for file in sorted(CURVES.glob("*.json")):
        recording = read(file)
        n = len(recording.judge)
        for order in range(n_orders):
            shuffled = np.r_[:2, 2 + np.random.default_rng(order).permutation(n - 2)]
            for size in (10, 20, n):
                taken = shuffled[:size]
                yield Searched(
                    of=f"recorded, {size if size < n else 'all'}",
                    group=recording.name,
                    inputs=scaled([recording.params[index] for index in taken]),
                    curves=recording.curves[taken],
                    n_val=recording.n_val,
                    true=recording.judge[taken],
                )


def simulated(n_seeds: int) -> Iterator[Searched]:
    """Searches by TPE on the surrogates."""
    for file in sorted(CURVES.glob("*.json")):
        surrogate = fit_surrogate(read(file))
        for seed in range(n_seeds):
            trials = search(surrogate, TpeSampler(), seed, N_TRIALS)
            yield Searched(
                of=f"surrogates, {N_TRIALS}",
                group=file.stem,
                inputs=scaled(trials.params),
                curves=trials.values[:, None],
                n_val=48,
                true=trials.means,
            )


def short_of_best(of: Searched, nominated: Sequence[int]) -> tuple[float, float]:
    """Points of accuracy by which the best of `nominated` and the chosen one fall short of the best trial."""
    taken = list(dict.fromkeys((0, 1, *nominated)))
    true = of.true[taken]
    noise = np.sqrt(OWN_SHARE * true * (1 - true) / of.n_val + SEED_STD**2)
    runs = true + noise * np.random.default_rng(0).standard_normal((CONFIRMATIONS, SEEDS, len(true)))
    chosen = true[runs.mean(axis=1).argmax(axis=1)].mean()
    whole = of.true.max()
    return 100 * float(whole - of.true[list(nominated)].max()), 100 * float(whole - chosen)


def table(searches: Sequence[Searched]) -> str:
    """The Markdown table."""
    lines = ["| trials | nominated by | best nominated | difference | chosen | difference |"]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    for kind in dict.fromkeys(each.of for each in searches):
        own = [each for each in searches if each.of == kind]
        groups = np.array([each.group for each in own])
        sets = sorted(set(groups))
        base = np.array([short_of_best(each, NOMINATIONS["last value"](each)) for each in own])
        for name, nominate in NOMINATIONS.items():
            if "three epochs" in name and own[0].curves.shape[1] == 1:
                continue
            found = np.array([short_of_best(each, nominate(each)) for each in own])
            differences = np.array([(found - base)[groups == each].mean(axis=0) for each in sets]).T
            cells = [
                f"{mean:.2f} | {each.mean():+.2f} ± {half_width(float(each.std(ddof=1)), len(sets)):.2f}"
                for mean, each in zip(found.mean(axis=0), differences, strict=True)
            ]
            lines.append(f"| {kind} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Nominate, confirm and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--orders", type=int, default=30, help="shuffled orders per set")
    parser.add_argument("--seeds", type=int, default=20, help="searches per surrogate")
    args = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    print(table([*recorded(args.orders), *simulated(args.seeds)]))


if __name__ == "__main__":
    main()
