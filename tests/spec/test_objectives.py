"""The order of an objective's values: fractions are maximised, log-loss is minimised."""

from typing import get_args

import pytest

from tlopt.spec import objectives
from tlopt.spec.objectives import Direction, Objective


@pytest.mark.parametrize(
    ("objective", "direction"),
    [
        ("accuracy", "maximize"),
        ("balanced_accuracy", "maximize"),
        ("macro_f1", "maximize"),
        ("log_loss", "minimize"),
    ],
)
def test_only_log_loss_is_minimised(objective: Objective, direction: Direction) -> None:
    assert objectives.direction_of(objective) == direction
    assert objectives.is_fraction(objective) == (direction == "maximize")


def test_every_objective_has_a_direction() -> None:
    assert {objectives.direction_of(name) for name in get_args(Objective)} == set(get_args(Direction))


@pytest.mark.parametrize(("direction", "best", "gain"), [("maximize", 0.75, 0.25), ("minimize", 0.25, -0.25)])
def test_better_best_gain_and_order_agree(direction: Direction, best: float, gain: float) -> None:
    values = [0.5, 0.75, 0.25]

    assert objectives.best(values, direction) == best
    assert objectives.gain(0.75, 0.5, direction) == gain
    assert objectives.is_better(0.75, 0.5, direction) == (gain > 0)
    assert sorted(values, key=lambda value: objectives.cost(value, direction))[0] == best


def test_nothing_is_best_of_nothing() -> None:
    assert objectives.best([], "maximize") is None


@pytest.mark.parametrize("direction", get_args(Direction))
def test_not_a_number_is_never_better(direction: Direction) -> None:
    assert not objectives.is_better(float("nan"), 0.5, direction)
    assert not objectives.is_better(0.5, float("nan"), direction)
    assert not objectives.is_better(0.5, 0.5, direction)


@pytest.mark.parametrize(
    ("name", "excess", "said"),
    [
        ("bytes", 0.05, "5 %"),
        ("multiply_adds", 0.123456, "12.3 %"),
        ("bytes", 30.34, "3,034 %"),
        ("x", 0.2, "0.2"),
    ],
)
def test_violations_are_told_without_powers_of_ten(name: str, excess: float, said: str) -> None:
    assert objectives.excess_size(name, excess) == said
