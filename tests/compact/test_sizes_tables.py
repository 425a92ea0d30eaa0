"""Which network a cell of benchmarks/compact/sizes.py ends with, and its hypervolume, from planted rows."""

import pytest

from benchmarks.compact.sizes_tables import Cell


def row(val: float, test: float, multiply_adds: int) -> dict[str, float]:
    return {"val": val, "test": test, "parameters": multiply_adds, "multiply_adds": multiply_adds}


@pytest.fixture
def cell() -> Cell:
    rows = {
        "whole": [row(0.80, 0.70, 100)],
        "structure": [row(0.75, 0.60, 50)],
        "stage 2": [row(0.79, 0.70, 60), row(0.70, 0.50, 40)],
        "l1": [row(0.60, 0.30, 60), row(0.50, 0.20, 40)],
        "tlopt": [row(0.74, 0.60, 30), row(0.79, 0.60, 20)],
    }
    return Cell("net", "flowers5", [{"rows": rows, "latency": {"1": {"stage 2 1": 0.5}}}])


def test_the_last_round_within_a_point_of_validation_is_chosen(cell: Cell) -> None:
    assert (cell.chosen("stage 2"), cell.chosen("l1"), cell.chosen("tlopt")) == (1, 0, 2)
    assert cell.ratios("stage 2", 1) == pytest.approx(
        {"parameters": 100 / 60, "multiply_adds": 100 / 60, "latency 1": 2.0}
    )


def test_the_hypervolume_is_that_above_chance_and_below_the_reference_cost(cell: Cell) -> None:
    # chance is 0.2 and the reference cost 110: 0.5 wide from 60, 0.3 more from 40, of 0.8 and 110
    assert cell.hypervolume("stage 2") == pytest.approx((0.5 * 50 + 0.3 * 20) / (0.8 * 110))
    assert cell.hypervolume("tlopt") == pytest.approx(0.4 * 90 / (0.8 * 110))
