"""The prunings of a study's second stage: a study of their own, NAME.prune, with one trial for each.

It belongs to one search, as `companion` says. What is planned is stored; goals that are added to the study
file, and those of another run once the confirmation has chosen another one, are added to the end.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import optuna

from tlopt.confirmation.companion import has_start_of
from tlopt.confirmation.verdict import Verdict
from tlopt.errors import NotReady
from tlopt.spec import Study
from tlopt.spec.outcome import Outcome
from tlopt.spec.point import Point
from tlopt.spec.trial_spec import PlannedPruning, PruneGoal
from tlopt.storage.attributes import PRUNINGS, TrialRecord


def planned_prunings(study: Study, verdict: Verdict) -> tuple[PlannedPruning, ...]:
    """The prunings of the network that is exported, one for each goal of `[prune]`.

    Raises:
        NotReady: the confirmation is not finished, or has chosen no network that can be trained on.
    """
    chosen = verdict.chosen
    if not verdict.finished or not chosen.val:
        raise NotReady(f"{study.name}: the confirmation has chosen no network yet; first: tlopt confirm")
    if chosen.point.is_linear:
        raise NotReady(
            f"{study.name}: the confirmation has chosen a linear classifier on features of a frozen network,"
            " so that there is no recipe to train a smaller one by"
        )
    replicate = verdict.exported_replicate
    return tuple(
        PlannedPruning(
            candidate=chosen.number,
            replicate=replicate,
            seed=chosen.seeds[replicate],
            point=chosen.point,
            epochs=study.prune.epochs or chosen.point.epochs,
            goal=goal,
        )
        for goal in study.prune.goals
    )


def add_prunings(opened: optuna.Study, planned: Sequence[PlannedPruning]) -> None:
    """Store the `planned` prunings that are new after those that `opened` has."""
    known = [_to_json(each) for each in stored_prunings(opened)]
    new = [row for row in map(_to_json, planned) if row not in known]
    if new:
        opened.set_user_attr(PRUNINGS, known + new)


def stored_prunings(opened: optuna.Study) -> tuple[PlannedPruning, ...]:
    """The prunings that are planned, by index."""
    return tuple(
        PlannedPruning(
            **row
            | {
                "point": Point.stored(row["point"], f"pruning {index} of {opened.study_name}"),
                "goal": PruneGoal(**row["goal"]),
            }
        )
        for index, row in enumerate(opened.user_attrs.get(PRUNINGS, []))
    )


def belongs(prunings: optuna.Study, search: optuna.Study) -> bool:
    """Whether `prunings` belongs to `search`, and not to an earlier search of the same name."""
    return PRUNINGS in prunings.user_attrs and has_start_of(prunings, search)


def of_choice(
    records: Sequence[TrialRecord], planned: Sequence[PlannedPruning], study: Study, verdict: Verdict
) -> list[TrialRecord]:
    """The ended ones of the `planned` prunings that `[prune]` asks for, of the network that is exported.

    Others remain once the file has other goals, or the confirmation has chosen another network.

    Args:
        records: trials of the prunings.

    Raises:
        NotReady: as `planned_prunings`.
    """
    wanted = planned_prunings(study, verdict)
    indices = {index for index, each in enumerate(planned) if each in wanted}
    return [each for each in records if each.counts and each.pruning in indices]


def smallest(records: Sequence[TrialRecord], quantity: str) -> TrialRecord | None:
    """The complete trial with the smallest network; of equals the one with the lower log-loss; or None."""
    complete = [each for each in records if each.outcome == Outcome.COMPLETE]
    return min(
        complete,
        key=lambda each: (each.inference_cost[quantity], each.metrics.get("log_loss", 0.0), each.number),
        default=None,
    )


def _to_json(planned: PlannedPruning) -> dict[str, Any]:
    return asdict(planned) | {"point": planned.point.as_dict()}
