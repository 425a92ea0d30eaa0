"""Importance of keys by Optuna's PED-ANOVA, with an interval, beside what chance alone would give."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState

from tlopt.plots.series import evenly
from tlopt.search import sampler_view
from tlopt.spec.objectives import Direction, cost
from tlopt.storage.attributes import last_values, violations

TRIALS_MIN = 10  # complete or pruned; half of them are then the best, half the rest
BEST_MIN = 5  # trials that PED-ANOVA's documentation wants at least among the best
BEST_SHARE = 0.1
FEW_TRIALS = 50  # below this the best tenth has fewer than `BEST_MIN` trials, so more count as the best
TRIALS_MAX = 1000  # largest number used; with shuffles and resamples this takes some seconds
N_SHUFFLES = 20  # the largest of 20 is exceeded by chance one time in 21
N_RESAMPLES = 100  # bootstrap samples of the trials
INTERVAL = (0.025, 0.975)  # quantiles over them


@dataclass(frozen=True, kw_only=True)
class Share:
    """The share of the difference between the best trials and all trials that one key accounts for."""

    key: str
    share: float  # the shares of all keys add up to 1
    low: float  # lower end of its 95 % interval
    high: float
    chance: float  # the largest that this key got from shuffled values, on the same scale; may exceed 1

    @property
    def stands_out(self) -> bool:
        """Whether the whole interval lies above any share that shuffled values gave."""
        return self.low > self.chance


@dataclass(frozen=True, kw_only=True)
class Importance:
    """Shares by key, largest first; empty where `note` says why there are none."""

    shares: tuple[Share, ...]
    note: str


def importance(trials: Sequence[FrozenTrial], direction: Direction) -> Importance:
    """The importance of every key that varied among the complete and pruned ones of `trials`.

    Compares the best tenth of the trials, at least `BEST_MIN`, with all of them. A pruned trial is never
    among the best, since its last value is of an early epoch, nor is an infeasible one, which here counts as
    pruned. Of more than `TRIALS_MAX` trials, that many are used, evenly spaced. Linear
    classifiers are left out, since they lack the keys.
    """
    networks = [trial for trial in trials if trial.params.get("classifier", "network") == "network"]
    ended = [t for t in networks if t.state in (TrialState.COMPLETE, TrialState.PRUNED) and t.params]
    complete = [trial for trial in ended if _is_ranked(trial)]
    numbers = _numbers(ended, len(complete))
    if len(ended) < TRIALS_MIN or len(complete) < BEST_MIN:
        return _none(f"{numbers} trials: it takes {TRIALS_MIN} trials, {BEST_MIN} of them complete, to tell.")
    if len({last_values(trial)[0] for trial in complete}) == 1:
        return _none("All complete trials have the same value, so no key can be told to matter.")
    used = [ended[index] for index in evenly(len(ended), TRIALS_MAX)]
    varied, constant = _keys(used)
    if not varied:
        return _none("No key varied among these trials.")
    try:
        shares = _shares(used, varied, direction)
    except (RuntimeError, ValueError) as error:
        return _none(f"Optuna could not tell: {error}")
    if not shares:
        return _none("The best trials are spread over every key as all trials are: no key stands out.")
    return Importance(shares=shares, note=_note(len(used), len(ended), numbers, constant))


def _keys(trials: Sequence[FrozenTrial]) -> tuple[list[str], list[str]]:
    """The keys with two values or more among `trials`, and those with one.

    PED-ANOVA gives even a constant key a share, since it compares densities with a prior on the whole range.
    """
    values: dict[str, set[object]] = {}
    for trial in trials:
        for key, value in trial.params.items():
            values.setdefault(key, set()).add(value)
    values.pop("replicate", None)  # of a grid: which seed
    return [k for k, v in values.items() if len(v) > 1], [k for k, v in values.items() if len(v) == 1]


def _shares(trials: Sequence[FrozenTrial], keys: list[str], direction: Direction) -> tuple[Share, ...]:
    study, costs = _study_of(trials, direction)
    random = np.random.default_rng(0)
    quantile = min(0.5, max(BEST_SHARE, BEST_MIN / len(trials)))
    divergence = _divergences(study, keys, costs, quantile)
    total = sum(divergence.values())
    if total <= 0:
        return ()
    shuffled = [_divergences(study, keys, random.permutation(costs), quantile) for _ in range(N_SHUFFLES)]
    resampled = list(_resampled(study, keys, costs, quantile, random))
    rows = []
    for key, value in divergence.items():
        low, high = np.quantile([each[key] for each in resampled], INTERVAL)
        chance = max(each[key] for each in shuffled) / total
        rows.append(Share(key=key, share=value / total, low=float(low), high=float(high), chance=chance))
    return tuple(sorted(rows, key=lambda row: -row.share))


def _resampled(
    study: optuna.Study,
    keys: list[str],
    costs: NDArray[np.float64],
    quantile: float,
    random: np.random.Generator,
) -> Iterator[dict[str, float]]:
    """Shares by key in bootstrap samples of the trials."""
    trials = study.get_trials(deepcopy=False)
    for _ in range(N_RESAMPLES):
        sample = [trials[row] for row in random.integers(len(trials), size=len(trials))]
        drawn = {name for trial in sample for name in trial.params}
        found = _divergences(_of(study, sample), [key for key in keys if key in drawn], costs, quantile)
        total = sum(found.values())
        if total > 0:
            yield {key: found.get(key, 0.0) / total for key in keys}


def _of(study: optuna.Study, trials: list[FrozenTrial]) -> optuna.Study:
    """`study` with other trials; nothing is stored or logged."""
    return sampler_view.view(study, lambda _: trials)


def _study_of(
    trials: Sequence[FrozenTrial], direction: Direction
) -> tuple[optuna.Study, NDArray[np.float64]]:
    """A study with `trials` as complete trials, and their costs in order; pruned trials cost the most."""
    costs = np.array(
        [cost(last_values(t)[0], direction) if _is_ranked(t) and last_values(t) else np.nan for t in trials]
    )
    costs = np.where(np.isnan(costs), np.nanmax(costs) + 1, costs)
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(verbosity, optuna.logging.WARNING))  # a new study is logged
    study = optuna.create_study()
    optuna.logging.set_verbosity(verbosity)
    study.add_trials(
        optuna.trial.create_trial(params=t.params, distributions=t.distributions, value=float(value))
        for t, value in zip(trials, costs, strict=True)
    )
    return study, costs


def _is_ranked(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.COMPLETE and not violations(trial)


def _divergences(
    study: optuna.Study, keys: list[str], costs: NDArray[np.float64], quantile: float
) -> dict[str, float]:
    """The distance of the best trials' density from that of all, by key; `costs` by trial number."""
    with warnings.catch_warnings():
        # `normalize` is experimental, and a `target` is said to be minimised, as costs are to be
        warnings.simplefilter("ignore")
        return optuna.importance.get_param_importances(
            study,
            evaluator=optuna.importance.PedAnovaImportanceEvaluator(target_quantile=quantile),
            params=keys,
            target=lambda trial: float(costs[trial.number]),
            normalize=False,
        )


def _numbers(ended: Sequence[FrozenTrial], n_complete: int) -> str:
    """The numbers of trials, as in "40 complete and 12 pruned"."""
    infeasible = any(t.state == TrialState.COMPLETE and violations(t) for t in ended)
    others = "pruned or infeasible" if infeasible else "pruned"
    return f"{n_complete} complete and {len(ended) - n_complete} {others}"


def _note(n_used: int, n_ended: int, numbers: str, constant: Sequence[str]) -> str:
    best = max(BEST_MIN, round(BEST_SHARE * n_used))
    of = f"{n_used} of " if n_used < n_ended else ""
    said = [
        f"PED-ANOVA over {of}{n_ended} trials, {numbers}: what sets the best {best} apart from all of them.",
        f"By chance: the largest share that the key got in {N_SHUFFLES} runs with shuffled values; a share"
        " that is not above it may be chance.",
    ]
    if n_used < FEW_TRIALS:
        said.append(f"With {n_used} trials only a strong effect shows.")
    if constant:
        said.append(f"Left out, since they had one value in all trials: {', '.join(constant)}.")
    return " ".join(said)


def _none(note: str) -> Importance:
    return Importance(shares=(), note=note)
