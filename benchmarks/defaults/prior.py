"""A prior for the sampler from other sets of images, which fades with own trials: searches on surrogates.

    python -m benchmarks.defaults.prior benchmarks/{defaults,insight}/curves/*.json

Each set's surrogate is searched by Optuna's TPE. The prior is what the other sets say about their common
points: the mean of their standardised accuracies. TPE is given these points as further trials, with values on
the scale of the search's own, fewer of them the more own trials there are. *Three first points*: the best of
them by the other sets are tried first instead. Prints the regret of the best trial, without noise, after 10,
20 and 30 trials.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from benchmarks.defaults.replay import Floats, Recording, read
from benchmarks.defaults.surrogate import DISTRIBUTIONS, Surrogate, features, fit_surrogate
from tlopt.confirmation.interval import half_width
from tlopt.spec.objectives import OWN_SHARE

N_TRIALS = 30
AFTER = (10, 20, 30)
N_FIRST = 3


@dataclass(frozen=True, kw_only=True)
class Prior:
    """Points with their mean standardised accuracy on other sets, best first."""

    params: Sequence[dict[str, Any]]
    scores: Floats


Fading = Callable[
    [int], float
]  # from the number of own trials to the share of the prior's points that is given


ARMS: dict[str, tuple[Fading, int]] = {  # and how many of the prior's points are tried first
    "TPE": (lambda n: 0.0, 0),
    "prior, gone after 15 trials": (lambda n: max(0.0, 1 - n / 15), 0),
    "prior, gone after 30 trials": (lambda n: 1 - n / 30, 0),
    "prior that stays": (lambda n: 1.0, 0),
    "three first points": (lambda n: 0.0, N_FIRST),
}


def prior_of(others: Sequence[Recording]) -> Prior:
    """The prior of `others`, over the points that all of them have, the defaults left out."""
    n = min(len(each.pooled) for each in others)
    scores = np.mean(
        [(each.pooled[:n] - each.pooled[:n].mean()) / each.pooled[:n].std() for each in others], axis=0
    )
    order = [int(k) for k in np.argsort(-scores) if k > 1]
    return Prior(params=[others[0].params[k] for k in order], scores=scores[order])


def given(
    prior: Prior, share: float, own: Sequence[FrozenTrial], rng: np.random.Generator
) -> list[FrozenTrial]:
    """A random `share` of the prior's points as trials, on the scale of the own values."""
    values = [trial.value for trial in own if trial.value is not None]
    centre, spread = (float(np.mean(values)), max(float(np.std(values)), 0.02)) if values else (0.5, 0.1)
    taken = rng.permutation(len(prior.params))[: round(share * len(prior.params))]
    return [_trial(prior.params[k], centre + spread * float(prior.scores[k])) for k in taken]


def _trial(params: dict[str, Any], value: float) -> FrozenTrial:
    return create_trial(state=TrialState.COMPLETE, value=value, params=params, distributions=DISTRIBUTIONS)


def search(surrogate: Surrogate, prior: Prior, arm: str, seed: int) -> Floats:
    """True accuracies of the trials of one search, which begins with the defaults."""
    fading, n_first = ARMS[arm]
    rng = np.random.default_rng(seed)
    noise = surrogate.noise * OWN_SHARE**0.5
    own: list[FrozenTrial] = []
    means = []
    first = [*surrogate.first, *prior.params[:n_first]]
    for number in range(N_TRIALS):
        if number < len(first):
            params = first[number]
        else:
            sampler = optuna.samplers.TPESampler(seed=1000 * seed + number)
            study = optuna.create_study(direction="maximize", sampler=sampler)
            study.add_trials([*given(prior, fading(number), own, rng), *own])
            params = study.ask(DISTRIBUTIONS).params
        means.append(float(surrogate.mean(np.array([features(params)]))[0]))
        own.append(_trial(params, means[-1] + noise * rng.standard_normal()))
    return np.array(means)


def regrets(means: Floats, best: float) -> list[float]:
    """Points of accuracy by which the best of the first trials is behind the best of the surrogate."""
    return [100 * (best - float(means[:n].max())) for n in AFTER]


def main() -> None:
    """Search and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+", help="recorded curves")
    parser.add_argument("--seeds", type=int, default=8, help="searches per set")
    args = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    recordings = [read(file) for file in args.files]
    found: dict[str, list[Floats]] = {arm: [] for arm in ARMS}
    for recording in recordings:
        surrogate = fit_surrogate(recording)
        prior = prior_of([each for each in recordings if each is not recording])
        for arm in ARMS:
            rows = [regrets(search(surrogate, prior, arm, s), surrogate.best) for s in range(args.seeds)]
            found[arm].append(np.mean(rows, axis=0))
    print("| sampler | " + " | ".join(f"{n} trials | against TPE" for n in AFTER) + " |")
    print("| --- " * (1 + 2 * len(AFTER)) + "|")
    base = np.array(found["TPE"])
    for arm, by_set in found.items():
        own = np.array(by_set)
        cells = []
        for column in range(len(AFTER)):
            difference = own[:, column] - base[:, column]
            half = half_width(float(difference.std(ddof=1)), len(difference))
            cells += [f"{own[:, column].mean():.2f}", f"{difference.mean():+.2f} ± {half:.2f}"]
        print(f"| {arm} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
