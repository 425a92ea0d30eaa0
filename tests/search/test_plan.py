"""Trial specs in the plans of searches and confirmations."""

from dataclasses import replace
from pathlib import Path

import optuna
import pytest
import tiny
from optuna.trial import FixedTrial

from tlopt.search.defaults import defaults
from tlopt.search.plan import StudyPlan, confirm_plan, confirm_seed, search_plan
from tlopt.search.race import KEPT, PLAIN, PROBE, Candidate, Race
from tlopt.spec.trial_spec import TrialSpec

STUDY = tiny.study(
    "freeze_depth = { int = [0, 17] }\nlr = { log = [1e-4, 1.0] }", more="[confirm]\nseeds = 4"
)
FACTS = tiny.facts()
PROBE_POINT, PLAIN_POINT, KEPT_POINT, PARTLY_POINT = (default.point for default in defaults(STUDY, FACTS))
CANDIDATES = (
    Candidate(PROBE, "linear probe", PROBE_POINT),
    Candidate(PLAIN, "plain fine-tuning", PLAIN_POINT),
    Candidate(12, "trial 12", replace(PLAIN_POINT, lr=0.5)),
)


def weights_file(number: int, replicate: int) -> Path:
    return Path(f"{number}/{replicate}")


def tasks(plan: StudyPlan, params: list[dict[str, object]]) -> list[TrialSpec]:
    """One task for each set of parameters, numbered from 0."""
    return [plan.draw(FixedTrial(row, number=number)) for number, row in enumerate(params)]


def search_tasks(lrs: list[float], n_splits: int = 1) -> list[TrialSpec]:
    return tasks(search_plan(STUDY, FACTS, n_splits), [{"freeze_depth": 3, "lr": lr} for lr in lrs])


# The search


def test_the_search_has_the_budget_of_its_file() -> None:
    plan = search_plan(tiny.study("", trials=9), FACTS, 1)

    assert (plan.n_open(optuna.create_study()), plan.hours) == (9, 0.0)


def test_the_search_begins_with_the_defaults_that_its_space_has() -> None:
    both = search_plan(STUDY, FACTS, 1).initial_points(())
    plain_only = search_plan(tiny.study("lr = { log = [1e-4, 1.0] }"), FACTS, 1).initial_points(())

    assert list(both) == [{"freeze_depth": 17, "lr": 0.01}, {"freeze_depth": 0, "lr": 0.00125}]
    assert list(plain_only) == [{"lr": 0.00125}]


@pytest.mark.parametrize(
    ("params", "label"),
    [
        ({"freeze_depth": 17, "lr": 0.01}, "linear probe"),
        ({"freeze_depth": 0, "lr": 0.00125}, "plain fine-tuning"),
        ({"freeze_depth": 0, "lr": 0.01}, ""),
    ],
)
def test_a_default_is_known_by_its_parameters_and_not_prunable(params: dict[str, object], label: str) -> None:
    (task,) = tasks(search_plan(STUDY, FACTS, 1), [params])

    assert (task.label, task.prunable) == (label, not label)


def test_a_trial_trains_once_on_every_split_with_seeds_of_its_own() -> None:
    (task,) = search_tasks([0.5], n_splits=3)

    assert task.splits == (0, 1, 2)
    assert len(set(task.seeds)) == 3


def test_trials_have_different_seeds_and_the_same_ones_in_every_worker() -> None:
    once, again = search_tasks([0.5, 0.5]), search_tasks([0.5, 0.5])

    assert once[0].seeds != once[1].seeds
    assert [task.seeds for task in once] == [task.seeds for task in again]


def test_no_trial_of_a_search_keeps_its_weights() -> None:
    assert search_tasks([0.5])[0].weights_file is None


# The confirmation


def confirmation(n_splits: int = 1) -> StudyPlan:
    race = Race(candidates=CANDIDATES, seeds=4, direction="maximize", halves=False)
    return confirm_plan(STUDY, race, lambda replicate: replicate % n_splits, weights_file)


def test_every_candidate_is_run_once_with_every_seed() -> None:
    plan = confirmation()

    assert plan.n_open(optuna.create_study()) == len(plan.initial_points(())) == 3 * 4
    assert {(row["candidate"], row["replicate"]) for row in plan.initial_points(())} == {
        (number, replicate) for number in (PROBE, PLAIN, 12) for replicate in range(4)
    }


def test_a_run_of_a_confirmation_trains_its_candidates_point_and_is_never_pruned() -> None:
    (task,) = tasks(confirmation(), [{"candidate": 12, "replicate": 2}])

    assert task == TrialSpec(
        point=CANDIDATES[2].point,
        seeds=(confirm_seed(STUDY, 2),),
        splits=(0,),
        label="trial 12",
        prunable=False,
        weights_file=Path("12/2"),
    )


def test_a_run_of_the_default_with_kept_statistics_can_be_drawn() -> None:
    kept = Candidate(KEPT, "fine-tuning with kept statistics", KEPT_POINT)
    race = Race(candidates=(*CANDIDATES, kept), seeds=4, direction="maximize", halves=False)

    (task,) = tasks(
        confirm_plan(STUDY, race, lambda _: 0, weights_file), [{"candidate": KEPT, "replicate": 0}]
    )

    assert (task.point, task.label) == (KEPT_POINT, kept.label)


def test_candidates_share_their_seeds() -> None:
    first = [dict(row) for row in confirmation().initial_points(())]
    of = {
        (row["candidate"], row["replicate"]): t.seeds
        for row, t in zip(first, tasks(confirmation(), first), strict=True)
    }

    assert all(of[PROBE, r] == of[PLAIN, r] == of[12, r] for r in range(4))
    assert len({of[PROBE, r] for r in range(4)}) == 4


def test_replicates_go_round_the_splits() -> None:
    ran = tasks(confirmation(n_splits=3), [{"candidate": 12, "replicate": r} for r in range(4)])

    assert [task.splits for task in ran] == [(0,), (1,), (2,), (0,)]


def test_no_seed_of_the_search_is_one_of_the_confirmation() -> None:
    searched = {seed for task in search_tasks([0.5] * 8, n_splits=3) for seed in task.seeds}

    assert searched.isdisjoint(confirm_seed(STUDY, replicate) for replicate in range(50))


def test_a_fixed_trial_is_a_task_too() -> None:
    plan = search_plan(STUDY, FACTS, 1)

    task = plan.draw(FixedTrial({"freeze_depth": 3, "lr": 0.5}, number=5))

    assert task.point.freeze_depth == 3
