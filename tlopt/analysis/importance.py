"""Which searched keys mattered, as Optuna sees it, in bounded time."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import optuna
from optuna.trial import FrozenTrial, TrialState

from tlopt.plots.series import evenly
from tlopt.spec.objectives import Direction

TRIALS_MIN = 12  # complete ones: with fewer the best tenth is a single trial
TRIALS_MAX = 2000  # of which an importance is computed; takes seconds


@dataclass(frozen=True, kw_only=True)
class Importance:
    """Shares by parameter, largest first, that add up to 1; empty where `note` says why there is none."""

    shares: tuple[tuple[str, float], ...]
    note: str


def importance(trials: Sequence[FrozenTrial], direction: Direction) -> Importance:
    """Optuna's importance (PED-ANOVA) of every parameter of the complete ones among `trials`.

    What sets the best tenth of the trials apart from all of them counts. Of more than `TRIALS_MAX` trials so
    many, evenly spaced, are used.
    """
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE and trial.params]
    if len(complete) < TRIALS_MIN:
        return _none(f"{len(complete)} complete trials; it takes at least {TRIALS_MIN} to tell.")
    if len({trial.value for trial in complete}) == 1:
        return _none("All complete trials have the same value.")
    used = [complete[index] for index in evenly(len(complete), TRIALS_MAX)]
    try:
        shares = _shares(used, direction)
    except (RuntimeError, ValueError) as error:
        return _none(f"Optuna could not tell: {error}")
    of = f"{len(used)} of " if len(used) < len(complete) else ""
    note = (
        f"PED-ANOVA over {of}{len(complete)} complete trials: what sets the best tenth apart from the rest."
    )
    return Importance(shares=tuple(sorted(shares.items(), key=lambda item: -item[1])), note=note)


def _shares(trials: Sequence[FrozenTrial], direction: Direction) -> dict[str, float]:
    study = optuna.create_study(direction=direction)
    with warnings.catch_warnings():
        # it warns of parameters that a trial lacks, as after a change of the ranges, and leaves those out
        warnings.simplefilter("ignore")
        study.add_trials(trials)
        return optuna.importance.get_param_importances(
            study, evaluator=optuna.importance.PedAnovaImportanceEvaluator()
        )


def _none(note: str) -> Importance:
    return Importance(shares=(), note=note)
