"""Which networks benchmarks/compact/sizes.py chooses, and what its tables say, from planted rows."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from finished import make_point

from benchmarks.compact.sizes_cell import chosen_points
from benchmarks.compact.sizes_settings import FIRST, Settings, first_structures
from benchmarks.compact.sizes_tables import Cell, cells, tables
from tlopt.spec.default_names import KEPT_LABEL, PARTLY_LABEL, PLAIN_LABEL
from tlopt.spec.point import Point


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


def with_answers(right: list[int]) -> dict[str, Any]:
    bits = np.packbits(np.array(right, bool)).tobytes().hex()
    return row(0.8, float(np.mean(right)), 100) | {"right": bits, "n_test": len(right)}


def test_the_interval_of_the_points_lost_is_that_over_test_images() -> None:
    both, one = [1] * 8 + [0] * 2, [1] * 6 + [0] * 4
    rows = {"whole": [with_answers(both)], "stage 2": [with_answers(one)]}
    cell = Cell("net", "flowers5", [{"rows": rows, "latency": {}}])

    assert cell.lost("stage 2", 1) == pytest.approx(20)
    # two of ten differences are 1, the others 0
    assert cell.half_width("stage 2", 1) == pytest.approx(196 * np.std([1, 1] + [0] * 8, ddof=1) / 10**0.5)


def test_earlier_rows_have_neither_an_interval_nor_another_reference(cell: Cell) -> None:
    assert cell.half_width("stage 2", 1) is None
    run = {"kind": "run", "network": "net", "data": "flowers5", **cell.runs[0]}
    assert (len(cells([run])), len(cells([run], "fine-tuned"))) == (1, 0)


def trial(val: float, multiply_adds: int, point: Point, label: str = "") -> dict[str, Any]:
    return {"val": val, "multiply_adds": multiply_adds, "point": point.as_dict(), "label": label}


def test_of_structures_within_a_limit_the_best_is_chosen_else_the_smallest_near_the_whole() -> None:
    points = [replace(make_point(), batch_size=size) for size in (1, 2, 3, 4, 5)]
    labels = (PLAIN_LABEL, KEPT_LABEL, PARTLY_LABEL)
    search = {
        "whole": [trial(v, 9, p, n) for v, p, n in zip((0.5, 0.6, 0.7), points, labels, strict=False)],
        "structure": [trial(0.70, 3, points[3]), trial(0.69, 2, points[4])],
    }

    assert chosen_points(search, within=True) == (points[2], points[1], points[3])
    assert chosen_points(search, within=False) == (points[2], points[1], points[4])


def test_a_line_names_the_settings_that_differ_from_the_first_runs() -> None:
    assert Settings().recorded == {}
    assert Settings(train=300, ways=("l1",)).recorded == {"train": 300, "ways": ["l1"]}
    assert (Settings().folder, Settings(train=300).folder) == ("", "300-150-400")


def test_fast_structures_begin_in_each_resolution_and_slow_ones_in_the_highest() -> None:
    sides = [values["resolution"] for values in first_structures("fast", (48, 64))]
    assert sides == [64] * 4 + [48] * 4
    assert {values["resolution"] for values in first_structures("slow", (48, 64))} == {64}
    assert [values.get("resolution") for values in first_structures("slow", ())] == [None] * 3
    assert {name: rates["lr"] for name, (_, rates) in FIRST.items()} == {"slow": 0.001, "fast": 0.0045}


def test_the_networks_of_the_readme_are_those_of_the_recorded_runs() -> None:
    folder = Path(__file__).parents[2] / "benchmarks" / "compact"
    files = [folder / f"{name}.jsonl" for name in ("sizes", "lite0")]
    rows = [[json.loads(line) for line in file.read_text().splitlines()] for file in files]
    found = {line for some in rows for line in tables(some)}
    starts = tuple(f"| {row['network']} |" for row in rows[0])
    shown = [line for line in (folder / "README.md").read_text().splitlines() if line.startswith(starts)]
    assert len(shown) == 20
    assert [line for line in shown if line not in found] == []
