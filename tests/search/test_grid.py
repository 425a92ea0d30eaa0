"""Grids: their points, each once; equal seeds for all points; what users may enqueue."""

from collections import Counter
from typing import Any

import optuna
import pytest
import tiny
from optuna.trial import TrialState

from tlopt.errors import Refused, SpecError
from tlopt.search.grid import check_grid, grid_points
from tlopt.search.plan import StudyPlan, search_plan
from tlopt.search.samplers import InitialPointsSampler
from tlopt.spec import Study
from tlopt.storage.attributes import POINT

FACTS = tiny.facts()
GRID = '[sampler]\nkind = "grid"\nrepeats = 3\n'
TWO = "freeze_depth = { choice = [0, 8, 17] }\nlr = { choice = [0.01, 0.1] }\n"
RECIPES = (
    GRID
    + "[sampler.recipes]\n"
    + '"default" = {}\n'
    + '"best depth" = { transfer_depth = [0.5, 1.0] }\n'
    + '"linear" = { classifier = "logistic", transfer_depth = [0.5, 1.0] }\n'
)


def of(search: str = TWO, more: str = GRID, trials: int = 18) -> Study:
    return tiny.study(search, more=more, trials=trials)


def begun(study: Study, n_splits: int = 2) -> tuple[optuna.Study, StudyPlan]:
    plan = search_plan(study, FACTS, n_splits)
    sampler = InitialPointsSampler(plan.initial_points, study.sampler, seed=1, transform=plan.sampler_trials)
    return optuna.create_study(direction="maximize", sampler=sampler), plan


def run(opened: optuna.Study, plan: StudyPlan, n: int, value: float = 0.5) -> list[Any]:
    specs = []
    for _ in range(n):
        trial = opened.ask()
        specs.append(plan.draw(trial))
        trial.set_user_attr(POINT, specs[-1].point.as_dict())
        opened.tell(trial, value)
    return specs


def test_there_is_a_point_for_each_combination() -> None:
    points = [each.point for each in grid_points(of(), FACTS)]

    assert {(p.freeze_depth, p.lr) for p in points} == {(f, lr) for f in (0, 8, 17) for lr in (0.01, 0.1)}
    assert len(points) == 6


def test_a_range_of_whole_numbers_is_a_list() -> None:
    points = grid_points(of("freeze_depth = { int = [3, 6] }"), FACTS)

    assert [each.point.freeze_depth for each in points] == [3, 4, 5, 6]


def test_combinations_that_mean_the_same_are_one_point() -> None:
    search = "freeze_depth = { choice = [4, 8] }\ntransfer_depth = { choice = [4, 8] }"
    points = [each.point for each in grid_points(of(search), FACTS)]

    assert sorted((p.transfer_depth, p.freeze_depth) for p in points) == [(4, 4), (8, 4), (8, 8)]


def test_a_point_of_several_recipes_is_trained_once_and_has_all_their_names() -> None:
    points = grid_points(of("lr = 0.01", RECIPES), FACTS)

    assert {(e.point.classifier, e.point.transfer_depth): e.recipes for e in points} == {
        ("network", 17): ("default", "best depth"),
        ("network", 8): ("best depth",),
        ("logistic", 17): ("linear",),  # of one depth, since a linear classifier takes the whole network
    }


def test_keys_outside_of_recipes_are_combined_with_all_of_them() -> None:
    points = grid_points(of("lr = 0.01\ntrain_images = { choice = [20, 40] }", RECIPES), FACTS)

    assert Counter(each.point.train_images for each in points) == {20: 3, 40: 3}


def test_a_budget_that_is_not_the_grids_is_refused_with_the_number() -> None:
    check_grid(of(), FACTS)
    with pytest.raises(SpecError, match=r"budget.trials = 20: the grid has 6 points .* write trials = 18"):
        check_grid(of(trials=20), FACTS)


def test_every_point_has_every_seed_once_and_early_trials_have_the_first() -> None:
    opened, plan = begun(of())
    specs = run(opened, plan, 18)

    assert Counter((s.point.freeze_depth, s.point.lr, s.seeds) for s in specs).most_common(1)[0][1] == 1
    assert len({spec.seeds for spec in specs}) == 3
    assert len({spec.seeds for spec in specs[:6]}) == 1
    assert plan.n_open(opened) == 18


def test_seeds_take_turns_at_the_splits_and_are_equal_for_all_points() -> None:
    opened, plan = begun(of(), n_splits=2)
    split_of = {(spec.seeds, spec.splits) for spec in run(opened, plan, 18)}

    assert sorted(splits for _, splits in split_of) == [(0,), (0,), (1,)]


def test_nothing_is_pruned() -> None:
    assert not any(spec.prunable for spec in run(*begun(of()), 18))


def test_seeds_that_are_added_later_run_alone() -> None:
    opened, plan = begun(of())
    run(opened, plan, 18)
    more = of(more=GRID.replace("3", "4"), trials=24)
    plan = search_plan(more, FACTS, 2)
    opened.sampler = InitialPointsSampler(plan.initial_points, more.sampler, seed=1)
    specs = run(opened, plan, 6)

    assert {trial.params["replicate"] for trial in opened.trials[18:]} == {3}
    assert len({(spec.point.freeze_depth, spec.point.lr) for spec in specs}) == 6


def test_a_failed_run_is_drawn_again() -> None:
    opened, plan = begun(of())
    trial = opened.ask()
    first = plan.draw(trial)
    opened.tell(trial, state=TrialState.FAIL)

    (again,) = run(opened, plan, 1)
    assert (again.point, again.seeds) == (first.point, first.seeds)


def test_what_users_enqueue_is_run_beside_the_grid() -> None:
    opened, plan = begun(of())
    opened.enqueue_trial({"freeze_depth": 8, "lr": 0.1})
    specs = run(opened, plan, 19)

    assert plan.n_open(opened) == 19
    assert specs[0].point.freeze_depth == 8
    own = Counter((s.point.freeze_depth, s.point.lr, s.seeds) for s in specs[1:])
    assert set(own.values()) == {1}
    assert len(own) == 18


@pytest.mark.parametrize("given", [{"freeze_depth": 5}, {"replicate": -1}, {"replicate": 0.5}, {"depth": 1}])
def test_what_is_not_of_the_grid_is_refused(given: dict[str, Any]) -> None:
    plan = search_plan(of(), FACTS, 1)

    with pytest.raises(Refused, match=next(iter(given))):
        plan.accept(given)
