"""A study as a Gaussian process has to see it: Optuna's reads complete and running trials alone.

What it does not see it draws again: near copies of points that ran out of memory, and of those that were
pruned (benchmarks/defaults/README.md, "Points that could not be trained").
"""

import copy
from collections.abc import Container
from typing import Any, cast

import optuna
from optuna.trial import FrozenTrial, TrialState


def gp_view(study: optuna.Study) -> optuna.Study:
    """The study, in which pruned trials seem complete with their last report.

    Those that broke a constraint have the worst value of the complete ones. What is stored stays as it is.
    """
    return cast(optuna.Study, _View(study))


class _View:
    """All of a study but its trials."""

    def __init__(self, study: optuna.Study) -> None:
        self._study = study

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """As `optuna.Study.get_trials`."""
        trials = shown(self._study.get_trials(deepcopy=deepcopy), self._study.direction)
        return [trial for trial in trials if states is None or trial.state in states]

    def _get_trials(
        self,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
        use_cache: bool = False,
    ) -> list[FrozenTrial]:
        return self.get_trials(deepcopy, states)


def shown(trials: list[FrozenTrial], direction: optuna.study.StudyDirection) -> list[FrozenTrial]:
    """`trials`, copies in the place of pruned ones; without those of which nothing can be said yet."""
    values = [
        trial.value for trial in trials if trial.state == TrialState.COMPLETE and trial.value is not None
    ]
    worst = (min if direction == optuna.study.StudyDirection.MAXIMIZE else max)(values, default=None)
    found = []
    for trial in trials:
        if trial.state == TrialState.PRUNED:
            value = worst if any(each > 0 for each in trial.constraints.values()) else trial.value
            if value is None:
                continue
            trial = copy.copy(trial)
            trial.state, trial.value = TrialState.COMPLETE, value
        found.append(trial)
    return found
