"""Trials that pause, and asynchronous successive halving: the decisions of `pruner.kind = "promotion"`.

Every trial pauses after a few epochs, and goes on once it is among the best share of all trials that have
come as far: algorithm 2 of Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning" (arXiv
1810.05934). Optuna's `SuccessiveHalvingPruner` decides at once instead: it stops a trial for good, and lets
the first ones go on because there is nothing yet to compare them with.

In Optuna's terms a paused trial is waiting. It keeps its number and its checkpoint, and counts toward the
budget. Once no other trial can come, those that are still paused end as pruned; but before one trial is
complete, which few trials may never be by promotion alone, the best of them goes on to its end.

`search.front` pauses trials with several objectives, by the same order of what comes next.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from optuna.trial import FrozenTrial, TrialState

from tlopt.spec import objectives
from tlopt.spec.algorithms import PromotionPruner
from tlopt.storage import attributes

Decision = Literal["continue", "pause", "prune"]


@dataclass(frozen=True)
class Next:
    """The next trial of a worker: a waiting one, or a new one."""

    trials: tuple[FrozenTrial, ...]  # waiting ones, the first to be preferred; empty: a new one
    ends: bool = False  # the trial is pruned where it paused


@dataclass(frozen=True, kw_only=True)
class Pauses(ABC):
    """When the trials of one study pause, and which of them goes on.

    Args:
        direction: of the objective that is learnt epoch by epoch.
    """

    direction: str

    @property
    @abstractmethod
    def first(self) -> int:
        """Number of epochs after which a trial pauses first."""

    @property
    @abstractmethod
    def factor(self) -> int:
        """The quotient of the numbers of epochs of two pauses."""

    @abstractmethod
    def promoted(self, trials: Sequence[FrozenTrial], rung: int) -> list[FrozenTrial]:
        """The trials that go on after `rung` epochs while others have still to begin, the best first."""

    @abstractmethod
    def following(
        self, trials: Sequence[FrozenTrial], paused: Sequence[FrozenTrial], *, n_running: int
    ) -> Next | None:
        """What becomes of the paused trials once no other trial can begin; None: wait for running ones.

        Args:
            paused: at least one; those with the most epochs come first.
        """

    @abstractmethod
    def as_sampled(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """`trials` as the sampler should see them: a waiting trial would teach it nothing."""

    def over(self, trials: Sequence[FrozenTrial], paused: Sequence[FrozenTrial]) -> FrozenTrial | None:
        """A paused trial that ends where it is, whatever is still to begin; None unless overridden."""
        return None

    def rungs(self, n_epochs: int) -> Iterator[int]:
        """Numbers of epochs after which a trial of `n_epochs` epochs is compared, ascending."""
        rung = self.first
        while rung < n_epochs:
            yield rung
            rung *= self.factor

    def is_compared(self, trial: FrozenTrial, rung: int) -> bool:
        """Whether the trial has a value after `rung` epochs, and more epochs to come then."""
        there = trial.state != TrialState.FAIL and rung - 1 in attributes.curve_of(trial)
        return there and rung in self.rungs(attributes.network_epochs(trial))

    def next_trial(self, trials: Sequence[FrozenTrial], *, n_trials: int, may_begin: bool) -> Next | None:
        """The next trial of a worker; None if it has to wait for others.

        Trials of lost workers and enqueued ones come first, then paused ones by the epochs they have, then
        new ones.

        Args:
            trials: of the study; those that other software ran elsewhere have no attributes of tlopt.
            n_trials: number of trials to finish.
            may_begin: whether the study's hours allow new trials.
        """
        waiting = [trial for trial in trials if trial.state == TrialState.WAITING]
        if others := [trial for trial in waiting if not attributes.paused_at(trial)]:
            return Next(tuple(others))
        paused = sorted(waiting, key=attributes.paused_at, reverse=True)
        if over := self.over(trials, paused):
            return Next((over,), ends=True)
        if promoted := self._first_promoted(trials, paused):
            return Next((promoted,))
        n_running = sum(trial.state == TrialState.RUNNING for trial in trials)
        n_ended = sum(_counts(trial) for trial in trials)
        if may_begin and n_ended + n_running + len(paused) < n_trials:
            return Next(())
        return self.following(trials, paused, n_running=n_running) if paused else None

    def _first_promoted(
        self, trials: Sequence[FrozenTrial], paused: Sequence[FrozenTrial]
    ) -> FrozenTrial | None:
        """The best promoted one of the paused trials in the highest rung that has one."""
        for rung in sorted(set(map(attributes.paused_at, paused)), reverse=True):
            there = numbers(trial for trial in paused if attributes.paused_at(trial) == rung)
            for trial in self.promoted(trials, rung):
                if trial.number in there:
                    return trial
        return None


@dataclass(frozen=True, kw_only=True)
class Promotion(Pauses):
    """The rule of one study with one objective.

    Args:
        pruner: of the study file.
    """

    pruner: PromotionPruner

    @property
    def first(self) -> int:
        return self.pruner.min_epochs

    @property
    def factor(self) -> int:
        return self.pruner.reduction_factor

    def ranked(self, trials: Sequence[FrozenTrial], rung: int) -> list[FrozenTrial]:
        """The trials with a value after `rung` epochs and more epochs to come then, the best first.

        Equal values rank by number.
        """
        reached = [trial for trial in trials if self.is_compared(trial, rung)]
        return sorted(reached, key=lambda t: (self._cost(t, rung), t.number))

    def _cost(self, trial: FrozenTrial, rung: int) -> float:
        return objectives.cost(trial.intermediate_values[rung - 1], self.direction)

    def promoted(self, trials: Sequence[FrozenTrial], rung: int) -> list[FrozenTrial]:
        """The best 1 / `reduction_factor` (rounded down) of the trials at `rung`, the best first."""
        ranked = self.ranked(trials, rung)
        return ranked[: len(ranked) // self.pruner.reduction_factor]

    def at_rung(self, trials: Sequence[FrozenTrial], number: int, rung: int, n_trials: int) -> Decision:
        """What becomes of a trial that has reached `rung`.

        It is pruned if enough others are better already, so that it could never be promoted: this bounds the
        checkpoints of paused trials.

        Args:
            n_trials: number of trials that the study finishes; no more can reach a rung.
        """
        if number in numbers(self.promoted(trials, rung)):
            return "continue"
        n_promoted_max = max(1, n_trials // self.pruner.reduction_factor)  # one is always to end complete
        return "pause" if number in numbers(self.ranked(trials, rung)[:n_promoted_max]) else "prune"

    def following(
        self, trials: Sequence[FrozenTrial], paused: Sequence[FrozenTrial], *, n_running: int
    ) -> Next | None:
        """They end; but without a complete trial, the best of those that came furthest goes on."""
        if n_running:
            return None
        if not any(trial.state == TrialState.COMPLETE and attributes.ran_here(trial) for trial in trials):
            return Next((self._furthest(paused),))
        return Next((paused[0],), ends=True)

    def _furthest(self, paused: Sequence[FrozenTrial]) -> FrozenTrial:
        """The best of the paused trials in their highest rung."""
        rung = max(map(attributes.paused_at, paused))
        there = [trial for trial in paused if attributes.paused_at(trial) == rung]
        return next(iter(self.ranked(there, rung)), there[0])

    def as_sampled(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """`trials` with paused ones that others have overtaken as pruned, for the sampler alone.

        One that is about to be promoted stays out: Optuna's TPE would rank it below all complete trials.
        """
        rungs = {rung for trial in trials if (rung := attributes.paused_at(trial))}
        promoted = {rung: numbers(self.promoted(trials, rung)) for rung in rungs}

        def shown(trial: FrozenTrial) -> FrozenTrial:
            rung = attributes.paused_at(trial)
            return _as_pruned(trial) if rung and trial.number not in promoted[rung] else trial

        return [shown(trial) for trial in trials]


def _as_pruned(trial: FrozenTrial) -> FrozenTrial:
    trial = copy.copy(trial)
    trial.state = TrialState.PRUNED
    trial.value = trial.intermediate_values[max(trial.intermediate_values)]
    return trial


def numbers(trials: Iterable[FrozenTrial]) -> set[int]:
    """The numbers of the trials."""
    return {trial.number for trial in trials}


def _counts(trial: FrozenTrial) -> bool:
    return trial.state in (TrialState.COMPLETE, TrialState.PRUNED) and attributes.ran_here(trial)
