"""A study as its sampler sees it: only trials of its search space; for a Gaussian process also pruned ones.

Users may add trials that tlopt did not run. Those whose parameters are a complete point of the search inform
the sampler as if it had drawn them. Others are left out, because a missing parameter or a different range
would change the space that Optuna infers for all trials.

Optuna's Gaussian process uses only complete and running trials. It would therefore sample again close to
points that were pruned or ran out of memory ("Points that could not be trained" in
benchmarks/defaults/README.md).
"""

import copy
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any, cast

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from tlopt.storage.attributes import OUTCOME_CONSTRAINT, last_values

Transform = Callable[[Sequence[FrozenTrial]], list[FrozenTrial]]


def view(study: optuna.Study, transform: Transform) -> optuna.Study:
    """A view of `study` with `transform` applied to its trials; the stored study is unchanged."""
    return cast(optuna.Study, _View(study, transform))


class _View:
    """A study with transformed trials; everything else is delegated."""

    def __init__(self, study: optuna.Study, transform: Transform) -> None:
        self._study = study
        self._transform = transform

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Like `optuna.Study.get_trials`."""
        trials = self._transform(self._study.get_trials(deepcopy=deepcopy))
        return [trial for trial in trials if states is None or trial.state in states]

    def _get_trials(
        self,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
        use_cache: bool = False,
    ) -> list[FrozenTrial]:
        return self.get_trials(deepcopy, states)


def in_space(
    trials: Sequence[FrozenTrial],
    space: Mapping[str, BaseDistribution],
    accept: Callable[[Mapping[str, Any]], Mapping[str, Any] | None],
    *,
    constraints: Sequence[str] = (),
) -> list[FrozenTrial]:
    """The trials drawn from `space`, and copies of others whose parameters can be encoded in it.

    Args:
        trials: linear classifiers among them are left out, because they lack the other parameters.
        accept: encodes a trial's parameters in the space; returns None if they are not a complete point.
        constraints: names of the study's own constraints.
    """
    found = []
    networks = (trial for trial in trials if trial.params.get("classifier", "network") == "network")
    expected = (OUTCOME_CONSTRAINT, *constraints)
    for trial in (_constrained(trial, expected) for trial in networks):
        ours = all(trial.distributions[name] == space.get(name) for name in trial.params)
        if ours and (space.keys() == trial.params.keys() or not trial.state.is_finished()):
            found.append(trial)
            continue
        params = accept(trial.params)
        if params is not None:
            trial = copy.copy(trial)
            trial.distributions, trial.params = dict(space), dict(params)
            found.append(trial)
    return found


def _constrained(trial: FrozenTrial, expected: Sequence[str]) -> FrozenTrial:
    """`trial`, or a copy with the `expected` constraints, which every trial run by tlopt has.

    Optuna's Gaussian process needs the same constraints on all trials; those that users `tell` may lack them.
    Constraints of other software are part of that on the outcome.
    """
    if not trial.state.is_finished() or trial.constraints.keys() == set(expected):
        return trial
    others = [value for name, value in trial.constraints.items() if name not in expected[1:]]
    constraints = {name: trial.constraints.get(name, -1.0) for name in expected}
    constraints[OUTCOME_CONSTRAINT] = 1.0 if any(value > 0 for value in others) else -1.0
    own = {key: value for key, value in trial.system_attrs.items() if not key.startswith("constraints")}
    trial = copy.copy(trial)
    trial.system_attrs = own | optuna.create_trial(value=0.0, constraints=constraints).system_attrs
    return trial


def as_complete(
    trials: Sequence[FrozenTrial], directions: Sequence[optuna.study.StudyDirection]
) -> list[FrozenTrial]:
    """`trials` with pruned ones as complete, with their last reported values, or left out without any.

    Infeasible trials get the worst value of the complete ones in each objective.
    """
    values = [trial.values for trial in trials if trial.state == TrialState.COMPLETE]
    worst = [
        (min if direction == optuna.study.StudyDirection.MAXIMIZE else max)(column)
        for direction, column in zip(directions, zip(*values, strict=True), strict=False)
    ]
    found = []
    for trial in trials:
        if trial.state == TrialState.PRUNED:
            broken = any(each > 0 for each in trial.constraints.values())
            last = worst if broken else last_values(trial)
            if not last:
                continue
            trial = copy.copy(trial)
            trial.state, trial.values = TrialState.COMPLETE, last
        found.append(trial)
    return found
