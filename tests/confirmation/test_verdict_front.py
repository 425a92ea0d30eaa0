"""The front of a confirmation: points that no other one beats in mean metric and costs, with every seed."""

import io
from dataclasses import replace

import pytest
from finished import make_point, make_row, make_verdict
from rich.console import Console

from tlopt.analysis.format import gain_sentences
from tlopt.analysis.front import confirmed_front_sentence
from tlopt.app.tables import verdict_table
from tlopt.confirmation.verdict import Confirmed, Verdict, ranked
from tlopt.confirmation.verdict_json import as_dict, from_dict
from tlopt.spec.default_names import KEPT_LABEL, PROBE_LABEL


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


def test_two_costs_and_a_resolution_leave_the_point_room_in_80_columns(verdict: Verdict) -> None:
    rows = [replace(row, point=make_point(resolution=32 * n)) for n, row in enumerate(verdict.rows, 1)]
    wide = replace(verdict, rows=tuple(rows), cost_limits={"parameters": 5e6})
    console = Console(width=80, record=True, file=io.StringIO())

    console.print(verdict_table(wide))

    said = console.export_text()
    assert "parameters" in said
    assert "32 px keep" in said
    assert "64 px keep" in said


def test_any_point_of_the_front_can_stand_in_for_the_chosen_one(verdict: Verdict) -> None:
    small = verdict.front[1]

    assert verdict.of(small).chosen.label == "small"
    assert {row.label for row in verdict.of(small).rows} == {row.label for row in verdict.rows}


# The choice


def searched(label: str, mean: float, cost: float) -> Confirmed:
    """A point of `cost` million multiply-adds with runs a per cent apart; odd costs rise over the seeds."""
    step = 0.01 if cost % 2 else -0.01
    plain = make_row(label, [mean - step, mean, mean + step], number=int(cost))
    return replace(plain, inference_cost={"multiply_adds": cost * 1e6, "parameters": 1e6})


def settled(*rows: Confirmed, costs: tuple[str, ...] = ("multiply_adds",), odds_min: float = 3.0) -> Verdict:
    return replace(make_verdict(rows), cost_objectives=costs, odds_min=odds_min).settled()


def test_the_cheaper_of_two_that_are_not_told_apart_is_chosen_and_the_reason_said() -> None:
    verdict = settled(searched("trial 3", 0.902, 300), searched("trial 8", 0.900, 21))

    assert verdict.chosen.label == "trial 8"
    assert verdict.passed_over is not None
    assert verdict.passed_over.odds < 3
    assert next(gain_sentences(verdict)).startswith(
        "Trial 8 costs less than trial 3, which has +0.2 points on validation: the odds that trial 3 is"
    )


def test_a_dearer_point_is_chosen_where_it_is_better_by_evidence() -> None:
    verdict = settled(searched("trial 3", 0.95, 300), searched("trial 8", 0.80, 21))

    assert verdict.chosen.label == "trial 3"
    assert verdict.passed_over is None


def test_of_several_cheaper_ones_the_cheapest_that_is_not_evidently_worse_is_chosen() -> None:
    rows = [searched(f"trial {cost}", mean, cost) for mean, cost in ((0.902, 300), (0.901, 101), (0.9, 20))]

    assert settled(*rows).chosen.label == "trial 20"
    assert settled(*rows, searched("trial 5", 0.7, 5)).chosen.label == "trial 20"


def test_what_tables_show_as_equal_is_not_better_however_small_the_error() -> None:
    first = searched("trial 3", 0.90004, 300)
    rows = [replace(first, val=({"accuracy": 0.90004, "log_loss": 0.1},) * 3), searched("trial 8", 0.9, 20)]
    second = replace(rows[1], val=({"accuracy": 0.9, "log_loss": 0.1},) * 3)

    assert settled(rows[0], second).chosen.label == "trial 8"


def test_a_point_must_be_nowhere_dearer_to_be_preferred() -> None:
    fewer, more = searched("trial 3", 0.902, 300), searched("trial 8", 0.900, 21)
    larger = replace(more, inference_cost={**more.inference_cost, "parameters": 2e6})

    assert settled(fewer, larger, costs=("multiply_adds", "parameters")).chosen.label == "trial 3"


def test_with_one_objective_or_an_earlier_confirmation_the_best_mean_stays() -> None:
    rows = searched("trial 3", 0.902, 300), searched("trial 8", 0.900, 21)

    assert settled(*rows, costs=()).chosen.label == "trial 3"
    assert settled(*rows, odds_min=0.0).chosen.label == "trial 3"


def test_a_cheaper_default_goes_before_a_point_that_is_not_evidently_better() -> None:
    probe = replace(searched(PROBE_LABEL, 0.900, 21), number=-1)

    verdict = settled(searched("trial 3", 0.902, 300), probe)

    assert verdict.chosen.label == PROBE_LABEL
    assert [said.split(",")[0] for said in gain_sentences(verdict)][:2] == [
        "Linear probe costs less than trial 3",
        "Linear probe is itself the choice.",
    ]


def test_of_equal_means_the_cheaper_one_comes_first_where_a_cost_is_limited() -> None:
    rows = [searched("trial 3", 0.9, 300), searched("trial 8", 0.9, 20)]

    assert ranked(rows, "accuracy", "maximize", ("multiply_adds",))[0].label == "trial 8"
    assert ranked(rows, "accuracy", "maximize")[0].label == "trial 3"


def test_limited_costs_are_columns_of_the_confirmation_and_kept_in_its_result() -> None:
    rows = [searched("trial 3", 0.902, 300), searched("trial 8", 0.900, 21)]
    verdict = replace(make_verdict(rows), cost_limits={"multiply_adds": 400e6})

    assert [row["inference_cost"]["multiply_adds"] for row in as_dict(verdict)["candidates"]] == [300e6, 21e6]
    assert from_dict(as_dict(verdict)).cost_names == ("multiply_adds",)
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(verdict_table(verdict))
    shown = console.export_text()
    assert "multiply-adds" in shown
    assert "300 M" in shown
