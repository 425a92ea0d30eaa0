"""Fronts agree with Optuna's, hypervolumes with areas counted by hand and by chance."""

import hypothesis
import numpy as np
import optuna
import pytest
import tiny
from hypothesis import strategies as st

from tlopt.search.defaults import defaults
from tlopt.search.front import hypervolume, hypervolumes, most_of
from tlopt.spec.objectives import dominates, front_of
from tlopt.storage import attributes

ROWS = st.lists(st.tuples(*[st.integers(0, 5)] * 2), min_size=1, max_size=12)
ROWS_OF_THREE = st.lists(st.tuples(*[st.integers(0, 5)] * 3), min_size=1, max_size=10)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [((1, 1), (1, 2), True), ((1, 1), (1, 1), False), ((1, 3), (2, 2), False), ((0, 0, 1), (1, 1, 1), True)],
)
def test_dominance_needs_one_better_and_no_worse_value(
    one: tuple[int, ...], other: tuple[int, ...], expected: bool
) -> None:
    assert dominates(one, other) is expected


@hypothesis.given(ROWS)
@hypothesis.settings(max_examples=30)
def test_the_front_is_that_of_optuna(rows: list[tuple[int, int]]) -> None:
    study = optuna.create_study(directions=["minimize", "minimize"])
    study.add_trials([optuna.trial.create_trial(values=list(map(float, row))) for row in rows])

    assert front_of(rows) == sorted(trial.number for trial in study.best_trials)


def test_a_hypervolume_counted_by_hand() -> None:
    # 3 x 1 beside 1 x 2 below the reference (4, 4), of the staircase (1, 3), (3, 1)
    assert hypervolume([(1, 3), (3, 1)], (4, 4)) == 3 * 1 + 1 * 2
    assert hypervolume([(4, 0)], (4, 4)) == 0
    assert hypervolume([], (4, 4)) == 0
    assert hypervolume([(0, 0, 0), (1, 1, 1)], (2, 3, 4)) == 24


@hypothesis.given(ROWS_OF_THREE)
@hypothesis.settings(max_examples=40)
def test_a_hypervolume_is_the_number_of_cells_that_a_row_dominates(rows: list[tuple[int, int, int]]) -> None:
    side = 6
    cells = np.stack(np.meshgrid(*[np.arange(side)] * 3), axis=-1).reshape(-1, 3)
    covered = sum(any((np.array(row) <= cell).all() for row in rows) for cell in cells)

    assert hypervolume(rows, (side, side, side)) == covered


@hypothesis.given(ROWS)
def test_dominated_rows_add_no_hypervolume(rows: list[tuple[int, int]]) -> None:
    front = [rows[i] for i in front_of(rows)]

    assert hypervolume(front, (6, 6)) == hypervolume(rows, (6, 6))


def test_few_rows_of_a_front_are_spread_over_it() -> None:
    front = [(-0.9, 100.0), (-0.89, 99.0), (-0.88, 98.0), (-0.7, 10.0), (-0.7, 10.0), (-0.2, 1.0)]

    assert most_of(front, 1) == [0]
    assert set(most_of(front, 3)) == {0, 3, 5}
    assert len(most_of(front, 9)) == 5
    assert most_of([], 3) == []


def test_hypervolumes_are_shares_that_grow_to_that_of_the_front() -> None:
    search = "lr = { log = [1e-4, 1.0] }"
    study = tiny.study(search)
    several = study.model_copy(update={"objectives": ("accuracy", "parameters")})
    point = defaults(study, tiny.facts())[0].point.as_dict()
    trials = []
    for number, values in enumerate([[0.5, 10.0], [0.4, 10.0], [0.25, 5.0]]):
        trial = optuna.trial.create_trial(values=values, user_attrs={attributes.POINT: point})
        trial.number = number
        trials.append(attributes.TrialRecord.from_frozen(trial))

    found = hypervolumes(trials, several)

    # below 1.1 times the largest cost, 11: 0.5 x 1, then also 0.25 x 5 more
    assert found == pytest.approx({0: 0.5 / 11, 1: 0.5 / 11, 2: 1.75 / 11})
    assert hypervolumes([], several) == {}
