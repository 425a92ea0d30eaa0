"""Rules that end a search before 60 trials: epochs saved, and accuracy lost.

    python -m benchmarks.selection.enough --seeds 25

**Surrogates** of the five recorded sets (`benchmarks.defaults.surrogate`), searched by TPE for 60 trials with
the noise of 48 or 200 validation images. The best six trials and the defaults are confirmed with three seeds,
20 times. Lost is the true accuracy of what is chosen after 60 trials minus that after the rule's end.

**Recorded searches** of `benchmarks.peers` (tlopt with one and with two workers, 240 training and 120
validation images), of which the first 60 trials count. Lost is the accuracy of the best trial's point, after
those minus that after the rule's end: trained anew by three seeds and judged on 400 other images.

Prints two Markdown tables; intervals are 1.96 standard errors over searches.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import comb
from pathlib import Path

import numpy as np
import optuna

from benchmarks.defaults.replay import Floats, read
from benchmarks.defaults.surrogate import Trials, fit_surrogate, search
from benchmarks.peers.referee import Case, judgements
from benchmarks.selection.choice import SEED_STD
from benchmarks.selection.pools import CURVES, PEERS
from tlopt.spec.algorithms import TpeSampler
from tlopt.spec.objectives import OWN_SHARE
from tlopt.spec.point import Point
from tlopt.spec.sections import ENOUGH_AFTER, ENOUGH_MAX, ENOUGH_MIN

N_VAL = (48, 200)
N_VAL_PEERS = 120
POINTS, SEEDS, CONFIRMATIONS = 6, 3, 20

Rule = Callable[[Floats, int], int]  # from values (NaN: pruned) and validation images to the number of trials


def fixed(n: int) -> Rule:
    """A search of `n` trials."""
    return lambda values, _: min(n, len(values))


def without_a_better_one(n_since: int, least: int) -> Rule:
    """A search of at least `least` trials ends when the last `n_since` found nothing better."""

    def rule(values: Floats, _: int) -> int:
        best, at = -1.0, 0
        for index, value in enumerate(values):
            if value > best:
                best, at = float(value), index
            if index + 1 >= least and index - at >= n_since:
                return index + 1
        return len(values)

    return rule


def doubling_below(gain: float, least: int) -> Rule:
    """A search ends when the best trial is less than `gain` ahead of the best of half of them.

    On average over halves, and less the share of the values' variance that is noise of the validation images.
    """

    def rule(values: Floats, n_val: int) -> int:
        for n in range(least, len(values)):
            complete = np.sort(values[:n][~np.isnan(values[:n])])
            if len(complete) >= 8 and _doubled(complete, n_val) < gain:
                return n
        return len(values)

    return rule


def _doubled(complete: Floats, n_val: int) -> float:
    n, half = len(complete), (len(complete) + 1) // 2
    weights = np.array([comb(index, half - 1) / comb(n, half) for index in range(n)])
    variance = max(float(complete.var(ddof=1)), 1e-12)
    noise = OWN_SHARE * float(np.mean(complete * (1 - complete))) / n_val
    return float((complete[-1] - weights @ complete) * max(0.0, 1 - noise / variance))


RULES: dict[str, Rule] = {
    **{f"{n} trials": fixed(n) for n in (16, 24, 30, 36)},
    **{
        f"{n_since} without a better one, at least {least}": without_a_better_one(n_since, least)
        for least in (16, 24)
        for n_since in (12, 16)
    },
    **{
        f"doubling gained less than {100 * gain:g} points, at least 24": doubling_below(gain, 24)
        for gain in (0.005, 0.0075, 0.01)
    },
}
assert f"{ENOUGH_AFTER} without a better one, at least {ENOUGH_MIN}" in RULES


@dataclass(frozen=True, kw_only=True)
class Ended:
    """What a rule does to one search."""

    n_trials: int
    saved: float  # share of the epochs
    lost: float  # accuracy


def on_surrogates(n_val: int, n_seeds: int) -> Iterator[Trials]:
    """Searches of 60 trials, the defaults first."""
    for file in sorted(CURVES.glob("*.json")):
        surrogate = fit_surrogate(read(file))
        own = OWN_SHARE * surrogate.best * (1 - surrogate.best) / n_val
        noisy = replace(surrogate, noise=(own + SEED_STD**2) ** 0.5)
        for seed in range(n_seeds):
            yield search(noisy, TpeSampler(n_startup_trials=8, n_ei_candidates=24), seed, ENOUGH_MAX)


def chosen(of: Trials, n_val: int, n: int) -> float:
    """The mean true accuracy of what confirmations choose among the best of the first `n` trials."""
    taken = np.r_[0, 1, 2 + np.argsort(-of.values[2:n])[:POINTS]]
    true = of.means[taken]
    noise = np.sqrt(OWN_SHARE * true * (1 - true) / n_val + SEED_STD**2)
    rng = np.random.default_rng(ENOUGH_MAX)  # the same for every rule, so that differences are paired
    runs = true + noise * rng.standard_normal((CONFIRMATIONS, SEEDS, len(true)))
    return float(true[runs.mean(axis=1).argmax(axis=1)].mean())


def end_simulated(rule: Rule, of: Trials, n_val: int) -> Ended:
    """What `rule` does to a search on a surrogate, whose trials all train alike long."""
    n, n_all = rule(of.values, n_val), len(of.values)
    return Ended(n_trials=n, saved=1 - n / n_all, lost=chosen(of, n_val, n_all) - chosen(of, n_val, n))


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """A recorded search."""

    values: Floats  # NaN: pruned
    epochs: Floats
    judged: dict[int, float]  # accuracy on other images, of the trials that were the best at some time


def recorded() -> Iterator[Recorded]:
    """The searches by tlopt whose best trials were all judged."""
    known = judgements(PEERS)
    for file in sorted(PEERS.parent.glob("*-tlopt?.json")):
        run = json.loads(file.read_text())
        trials = run["trials"][:ENOUGH_MAX]
        judged = {}
        for index, trial in enumerate(trials):
            key = Case(Path(run["data"]), Point.from_dict(trial["point"])).key
            if key in known:
                judged[index] = float(np.mean(known[key]))
        yield Recorded(
            values=np.array([trial["accuracy"][-1] if trial["complete"] else np.nan for trial in trials]),
            epochs=np.array([float(len(trial["accuracy"])) for trial in trials]),
            judged=judged,
        )


def end_recorded(rule: Rule, of: Recorded) -> Ended:
    """What `rule` does to a recorded search."""
    n = rule(of.values, N_VAL_PEERS)
    whole, ended = (of.judged[int(np.nanargmax(of.values[:k]))] for k in (len(of.values), n))
    return Ended(n_trials=n, saved=1 - float(of.epochs[:n].sum() / of.epochs.sum()), lost=whole - ended)


def row(name: str, ended: Sequence[Ended]) -> str:
    """A line of a table."""
    lost = 100 * np.array([each.lost for each in ended])
    n_trials = [each.n_trials for each in ended]
    error = 1.96 * lost.std(ddof=1) / len(lost) ** 0.5
    saved = 100 * np.mean([each.saved for each in ended])
    counts = f"{np.mean(n_trials):.0f} ({min(n_trials)} to {max(n_trials)})"
    return f"| {name} | {counts} | {saved:.0f} | {lost.mean():.2f} ± {error:.2f} |"


def main() -> None:
    """Search, end and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=25, help="searches per set and number of images")
    args = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    head = "| rule | trials | epochs saved, % | points lost |\n| --- | --- | --- | --- |"
    for n_val in N_VAL:
        searches = list(on_surrogates(n_val, args.seeds))
        print(f"\nsurrogates, {n_val} validation images\n\n{head}")
        for name, rule in RULES.items():
            print(row(name, [end_simulated(rule, each, n_val) for each in searches]))
    runs = list(recorded())
    print(f"\n{len(runs)} recorded searches\n\n{head}")
    for name, rule in RULES.items():
        print(row(name, [end_recorded(rule, run) for run in runs]))


if __name__ == "__main__":
    main()
