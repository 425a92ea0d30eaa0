"""What the trials of a study are to do: of a search, or of the confirmation of its best points."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna

from tlopt.model.facts import Limits
from tlopt.search.samplers import Params
from tlopt.search.space import defaults, likely, suggest
from tlopt.spec import Study
from tlopt.spec.point import Point, seed_for
from tlopt.spec.trial_spec import Task

PROBE, PLAIN = -2, -1  # candidates that are no trial of the search
_CANDIDATE_MAX = 10_000_000


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A study as its workers see it."""

    trials: int  # complete or pruned, over all workers
    hours: float  # no trial starts later than this after the first; 0: no limit
    first: Sequence[Params]  # drawn before the sampler is asked
    task_of: Callable[[optuna.Trial], Task]
    min_epochs: int  # that every trial finishes before the pruner is asked


@dataclass(frozen=True)
class Candidate:
    """A point to be confirmed; `number` is its trial in the search, or PROBE or PLAIN."""

    number: int
    label: str
    point: Point


def search_plan(study: Study, limits: Limits, n_splits: int) -> Plan:
    """The search itself: the defaults and a likely point where the space has them, then the sampler's."""
    known = [(d.label, d.params) for d in defaults(study, limits) if d.params is not None]
    first = [params for _, params in known]
    guess = likely(study, limits)
    if guess is not None and guess not in first:
        first.append(guess)

    def task_of(trial: optuna.Trial) -> Task:
        point = suggest(trial, study, limits)
        label = next((label for label, params in known if params == trial.params), "")
        return Task(
            point=point,
            seeds=tuple(seed_for(study.seed, "trial", trial.number, r) for r in range(n_splits)),
            splits=tuple(range(n_splits)),
            label=label,
            prunable=not label,
        )

    return Plan(
        trials=study.budget.trials,
        hours=study.budget.hours,
        first=first,
        task_of=task_of,
        min_epochs=getattr(study.pruner, "min_epochs", 0),
    )


def confirm_plan(
    study: Study, candidates: Sequence[Candidate], n_splits: int, weights_file: Callable[[int, int], Path]
) -> Plan:
    """Every candidate once for every seed, never pruned; replicate r trains on split r modulo their number.

    Args:
        weights_file: where the trained tensors of (candidate's number, replicate) go.
    """
    by_number: Mapping[int, Candidate] = {candidate.number: candidate for candidate in candidates}

    def task_of(trial: optuna.Trial) -> Task:
        number = trial.suggest_int("candidate", PROBE, _CANDIDATE_MAX)
        replicate = trial.suggest_int("replicate", 0, _CANDIDATE_MAX)
        candidate = by_number[number]
        return Task(
            point=candidate.point,
            seeds=(confirm_seed(study, replicate),),
            splits=(replicate % n_splits,),
            label=candidate.label,
            prunable=False,
            weights_file=weights_file(number, replicate),
        )

    first = [
        {"candidate": candidate.number, "replicate": replicate}
        for replicate in range(study.confirm.seeds)
        for candidate in candidates
    ]
    return Plan(trials=len(first), hours=0.0, first=first, task_of=task_of, min_epochs=0)


def confirm_seed(study: Study, replicate: int) -> int:
    """The seed of a confirmation's replicate: the same for every candidate, unlike any of the search's."""
    return seed_for(study.seed, "confirm", replicate)
