"""`StudyPlan`: the trials of a search, of a confirmation or of prunings."""

import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.trial import FixedTrial, FrozenTrial, TrialState

from tlopt.errors import Refused
from tlopt.model.facts import BackboneFacts
from tlopt.search import enough, grid, user_params
from tlopt.search.defaults import defaults, initial_points
from tlopt.search.front import FrontPauses
from tlopt.search.promotion import Pauses, Promotion
from tlopt.search.race import PROBE, Race, RunKey
from tlopt.search.sampler_view import in_space
from tlopt.search.space import Params, decode_params, search_space, suggest_params, without_idle_keys
from tlopt.spec import Study
from tlopt.spec.algorithms import FrontPruner, PromotionPruner
from tlopt.spec.outcome import Outcome
from tlopt.spec.point import seed_for
from tlopt.spec.trial_spec import PlannedPruning, PrunedRun, TrialSpec, recipe_point
from tlopt.storage import attributes, optuna_private
from tlopt.storage.attributes import TrialRecord

_CANDIDATE_MAX = 10_000_000


@dataclass(frozen=True, kw_only=True)
class StudyPlan:
    """The trials of a study and how workers draw them."""

    hours: float  # hours after the study's creation in which trials may start; 0: no limit
    initial_points: Callable[[Sequence[FrozenTrial]], Sequence[Params]]  # from the trials so far; drawn first
    n_open: Callable[[optuna.Study], int]  # number of trials to finish so far, over all workers
    space: Mapping[str, BaseDistribution]  # parameters of every trial, in drawing order
    accept: Callable[[Mapping[str, Any]], Params]  # encodes parameters given by users, or raises Refused
    trial_spec: Callable[[int, Params], TrialSpec]  # from a trial's number and parameters
    min_epochs: int  # epochs of every trial before the first pruner check
    limits: Mapping[str, float] = field(default_factory=dict)  # of inference costs; others are not trained
    pauses: Pauses | None = None  # by which trials pause and the best go on
    cost_objectives: tuple[str, ...] = ()  # inference costs that are minimised beside the metric
    front_pruner: FrontPruner | None = None  # the rule by which trials with several objectives are stopped

    def draw(self, trial: optuna.Trial | FixedTrial | FrozenTrial) -> TrialSpec:
        """The spec of `trial`; parameters that it lacks are drawn.

        Raises:
            Refused: the trial was given parameters that do not belong to this study.
        """
        foreign = {n: v for n, v in trial.params.items() if trial.distributions[n] != self.space.get(n)}
        user_params.check_drawn(foreign, trial.distributions, self.space)
        self.accept(foreign)
        if isinstance(trial, optuna.Trial):
            optuna_private.fix_params(trial, self.accept(optuna_private.fixed_params(trial)))
        with warnings.catch_warnings():
            if foreign:  # Optuna would warn about their ranges, but `accept` has checked their values
                warnings.simplefilter("ignore", RuntimeWarning)
            params = suggest_params(trial, self.space)
        return self.trial_spec(trial.number, params)

    def sampler_trials(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """`trials` as the sampler should see them."""
        if self.pauses is not None:
            trials = self.pauses.as_sampled(trials)
        return in_space(trials, self.space, self._whole, constraints=tuple(self.limits))

    def _whole(self, params: Mapping[str, Any]) -> Params | None:
        try:
            known = self.accept(params)
        except Refused:
            return None
        return known if known.keys() == self.space.keys() else None


def search_plan(
    study: Study, facts: BackboneFacts, n_splits: int, labels: Collection[str] | None = None
) -> StudyPlan:
    """The plan of a search: the initial points that are in the space, then sampled points; or of a grid.

    Args:
        labels: of the defaults of a study that has begun; None: of a new study.
    """
    study = without_idle_keys(study, facts)
    if study.is_grid:
        return _grid_plan(study, facts, n_splits)
    known = [(d.label, d.params) for d in defaults(study, facts, labels) if d.params is not None]
    starts = initial_points(study, facts, [params for _, params in known])

    def accept(given: Mapping[str, Any]) -> Params:
        return user_params.encode_user_params(given, study)

    def trial_spec(number: int, params: Params) -> TrialSpec:
        label = next((label for label, of_default in known if of_default == params), "")
        return TrialSpec(
            point=(point := decode_params(params, study, facts)),
            seeds=tuple(seed_for(study.seed, "trial", number, r) for r in range(n_splits)),
            splits=tuple(range(n_splits)),
            label=label,
            prunable=not label and not point.is_linear,
        )

    return StudyPlan(
        hours=study.budget.hours,
        initial_points=lambda _: starts,
        n_open=enough.n_open(study),
        space=search_space(study),
        accept=accept,
        trial_spec=trial_spec,
        min_epochs=getattr(study.pruner, "min_epochs", 0),
        limits=study.constraints.limits,
        pauses=_pauses(study),
        cost_objectives=study.cost_objectives,
        front_pruner=study.pruner if isinstance(study.pruner, FrontPruner) else None,
    )


def _pauses(study: Study) -> Pauses | None:
    match study.pruner:
        case PromotionPruner() as pruner:
            return Promotion(pruner=pruner, direction=study.direction)
        case FrontPruner(pauses=True) as pruner if not study.budget.hours:
            return FrontPauses(pruner=pruner, direction=study.direction)
    return None


def _grid_plan(study: Study, facts: BackboneFacts, n_splits: int) -> StudyPlan:
    """The plan of a grid: each point once for each replicate r, with split r % n_splits, without pruning."""
    points = grid.grid_points(study, facts)
    recipes = {each.point: each.recipes for each in points}
    all_params = grid.open_params(study, points)

    def trial_spec(_number: int, params: Params) -> TrialSpec:
        point, replicate = decode_params(params, study, facts), params[grid.REPLICATE]
        return TrialSpec(
            point=point,
            seeds=(seed_for(study.seed, grid.REPLICATE, replicate),),
            splits=(replicate % n_splits,),
            label="",
            prunable=False,
            recipes=recipes.get(point, ()),
            keeps_train_accuracy=True,
        )

    return StudyPlan(
        hours=study.budget.hours,
        initial_points=lambda _: all_params,
        n_open=lambda opened: grid.n_open(study, opened),
        space=grid.grid_space(study),
        accept=lambda given: grid.encode_grid_params(given, study),
        trial_spec=trial_spec,
        min_epochs=0,
        limits=study.constraints.limits,
        cost_objectives=study.cost_objectives,
    )


def confirm_plan(
    study: Study, race: Race, split_of: Callable[[int], int], weights_file: Callable[[int, int], Path]
) -> StudyPlan:
    """The plan of a confirmation: the rounds of `race` without pruning.

    Args:
        split_of: maps a replicate to its split.
        weights_file: maps a candidate's number and a replicate to the path for the trained tensors.
    """
    by_number = {candidate.number: candidate for candidate in race.candidates}

    def accept(given: Mapping[str, Any]) -> Params:
        if given:
            raise Refused("tlopt itself plans the runs of a confirmation; enqueue the point in the search")
        return {}

    def trial_spec(_number: int, params: Params) -> TrialSpec:
        number, replicate = params["candidate"], params["replicate"]
        candidate = by_number.get(number)
        if candidate is None:
            raise Refused(f"candidate = {number}: the confirmation has {', '.join(map(str, by_number))}")
        return TrialSpec(
            point=candidate.point,
            seeds=(confirm_seed(study, replicate),),
            splits=(split_of(replicate),),
            label=candidate.label,
            prunable=False,
            weights_file=weights_file(number, replicate),
        )

    def open_points(trials: Sequence[FrozenTrial]) -> list[Params]:
        return [
            {"candidate": number, "replicate": r} for number, r in race.runs(run_values(ended_runs(trials)))
        ]

    space = {
        # unchanged if there is no linear classifier, so that confirmations of earlier versions can continue
        "candidate": IntDistribution(min(PROBE, *by_number), _CANDIDATE_MAX),
        "replicate": IntDistribution(0, _CANDIDATE_MAX),
    }
    return StudyPlan(
        hours=0.0,
        initial_points=open_points,
        n_open=lambda opened: race.n_open(run_values(ended_runs(attributes.trials_of(opened)))),
        space=space,
        accept=accept,
        trial_spec=trial_spec,
        min_epochs=0,
    )


def prune_plan(
    prunings: Sequence[PlannedPruning],
    split_of: Callable[[int], int],
    run_weights: Callable[[int, int], Path],
    result_file: Callable[[int], Path],
) -> StudyPlan:
    """The plan of the second stage: each pruning once, in order, by the training of its run.

    Args:
        split_of: maps a replicate to its split.
        run_weights: maps a candidate's number and a replicate to the path of the run's trained tensors.
        result_file: maps a pruning's index to the path for its result.
    """

    def accept(given: Mapping[str, Any]) -> Params:
        if given:
            raise Refused("tlopt itself plans the prunings of a study; name further ones in [prune]")
        return {}

    def trial_spec(_number: int, params: Params) -> TrialSpec:
        index = params["pruning"]
        if index >= len(prunings):
            raise Refused(f"pruning = {index}: the study has {len(prunings)}, counted from 0")
        planned = prunings[index]
        return TrialSpec(
            point=recipe_point(planned.point, epochs=planned.epochs),
            seeds=(planned.seed,),
            splits=(split_of(planned.replicate),),
            label=planned.goal.words,
            prunable=False,
            weights_file=result_file(index),
            pruned=PrunedRun(
                point=planned.point,
                weights_file=run_weights(planned.candidate, planned.replicate),
                goal=planned.goal,
            ),
        )

    return StudyPlan(
        hours=0.0,
        initial_points=lambda _: [{"pruning": index} for index in range(len(prunings))],
        n_open=lambda _: len(prunings),
        space={"pruning": IntDistribution(0, _CANDIDATE_MAX)},
        accept=accept,
        trial_spec=trial_spec,
        min_epochs=0,
    )


def ended_runs(trials: Sequence[FrozenTrial]) -> dict[RunKey, TrialRecord]:
    """The ended runs of a confirmation, with or without a value."""
    return {
        (trial.params["candidate"], trial.params["replicate"]): TrialRecord.from_frozen(trial)
        for trial in trials
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        and attributes.ran_here(trial)
        and "replicate" in trial.params
    }


def run_values(ended: Mapping[RunKey, TrialRecord]) -> dict[RunKey, float | None]:
    """The value of each run; None if it has none."""
    return {
        run: record.value if record.outcome == Outcome.COMPLETE else None for run, record in ended.items()
    }


def confirm_seed(study: Study, replicate: int) -> int:
    """Seed of a replicate of the confirmation, equal for all candidates and not used in the search."""
    return seed_for(study.seed, "confirm", replicate)
