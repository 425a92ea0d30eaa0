"""The front of a confirmation: points that no other one beats in mean metric and costs, with every seed."""

import io
from dataclasses import replace

import pytest
from finished import make_point, make_row, make_verdict
from rich.console import Console

from tlopt.analysis.front import confirmed_front_sentence
from tlopt.app.tables import verdict_table
from tlopt.confirmation.verdict import KEPT_LABEL, Confirmed, Verdict, as_dict, from_dict


def row(label: str, mean: float, cost: float, **changes: bool) -> Confirmed:
    plain = make_row(label, [mean - 0.01, mean, mean + 0.01], point=make_point(), number=len(label))
    return replace(plain, inference_cost={"multiply_adds": cost, "parameters": 1.0}, **changes)


@pytest.fixture
def verdict() -> Verdict:
    rows = (
        row("large", 0.92, 300e6),
        row("slower and no better", 0.90, 400e6),
        row("small", 0.85, 20e6),
        row("worse", 0.80, 20e6),
        row("dropped", 0.99, 1e6, dropped=True),
        make_row("of unknown cost", [0.99, 0.99, 0.99]),
    )
    return replace(make_verdict(rows), cost_objectives=("multiply_adds",))


def test_beaten_and_dropped_points_and_those_of_unknown_cost_are_not_on_the_front(verdict: Verdict) -> None:
    assert [row.label for row in verdict.front] == ["large", "small"]


def test_one_objective_has_no_front(verdict: Verdict) -> None:
    single = replace(verdict, cost_objectives=())

    assert single.front == ()
    assert "front" not in as_dict(single)
    assert confirmed_front_sentence(single) == ""


def test_the_front_is_written_and_read_back(verdict: Verdict) -> None:
    written = as_dict(verdict)

    assert written["front"] == ["large", "small"]
    assert [row.label for row in from_dict(written).front] == ["large", "small"]
    assert from_dict(written).cost_objectives == ("multiply_adds",)


def test_a_sentence_names_the_points_with_their_costs(verdict: Verdict) -> None:
    finished = replace(verdict, n_finished=verdict.n_expected)

    assert confirmed_front_sentence(finished) == (
        "The front of the confirmed points: large (92.0 %, 300 M multiply-adds);"
        " small (85.0 %, 20 M multiply-adds)."
    )


def test_no_name_is_cut_short_in_80_columns(verdict: Verdict) -> None:
    point = make_point(transfer_depth=17, norm_depth=17, lr_ratio=0.3, l2=0.02)
    row = make_row(KEPT_LABEL, [1.0, 1.0, 1.0], [0.3, 0.6, 0.7], point=point, number=-4)
    wide = replace(verdict, rows=(replace(row, inference_cost={"multiply_adds": 31.34e6}),))
    console = Console(width=80, record=True, file=io.StringIO())

    console.print(verdict_table(wide))

    said = console.export_text()
    assert "…" not in said
    assert "fine-tuning" in said


def test_any_point_of_the_front_can_stand_in_for_the_chosen_one(verdict: Verdict) -> None:
    small = verdict.front[1]

    assert verdict.of(small).chosen.label == "small"
    assert {row.label for row in verdict.of(small).rows} == {row.label for row in verdict.rows}
