"""The arithmetic of a verdict, on planted numbers."""

import math
from dataclasses import replace

import finished
import pytest
from finished import make_point, make_row, make_verdict

from tlopt.confirmation.verdict import Confirmed, Spread, Verdict
from tlopt.confirmation.verdict_json import as_dict, from_dict
from tlopt.spec.default_names import PLAIN_LABEL, PROBE_LABEL


def test_a_spread_is_the_mean_and_the_deviation_of_a_sample() -> None:
    assert Spread.of([1.0, 2.0, 6.0]) == Spread(mean=3.0, std=math.sqrt(7.0), n=3)


def test_one_value_has_no_deviation() -> None:
    only = Spread.of([0.25])

    assert (only.mean, only.n) == (0.25, 1)
    assert math.isnan(only.std)


def planted(objective: str = "accuracy") -> Verdict:
    """Trial 12 against the defaults: accuracies in sixteenths, log-losses 1 - accuracy; test for two rows."""
    return make_verdict(
        [
            make_row(PROBE_LABEL, (0.5, 0.625, 0.75), (0.5, 0.5, 0.5), number=-2),
            make_row("trial 12", (0.75, 0.875, 1.0), (0.625, 0.75, 0.6875)),
            make_row(PLAIN_LABEL, (0.75, 0.75, 0.75), number=-1),
        ],
        objective=objective,
    )


# The gain


@pytest.mark.parametrize("objective", ["accuracy", "log_loss"])
@pytest.mark.parametrize(
    ("label", "split", "gain"),
    [
        (PROBE_LABEL, "val", Spread(0.25, 0.0, 3)),  # paired: each seed alone gains a quarter
        (PLAIN_LABEL, "val", Spread(0.125, 0.125, 3)),
        (PROBE_LABEL, "test", Spread(0.1875, 0.0625, 3)),
    ],
)
def test_the_gain_is_paired_by_seed_and_positive_where_the_chosen_one_is_better(
    label: str, split: str, gain: Spread, objective: str
) -> None:
    assert planted(objective).gain(label, split=split) == gain


def test_there_is_no_gain_where_the_other_was_not_measured() -> None:
    assert planted().gain(PLAIN_LABEL, split="test") is None
    assert planted().gain("trial 99", split="val") is None


def test_a_default_that_is_chosen_gains_nothing_over_itself() -> None:
    verdict = make_verdict([make_row(PLAIN_LABEL, (0.75, 0.5)), make_row(PROBE_LABEL, (0.5, 0.5))])

    assert verdict.gain(PLAIN_LABEL, split="val") == Spread(0.0, 0.0, 2)


# The choice


@pytest.mark.parametrize("objective", ["accuracy", "log_loss"])
def test_the_best_mean_on_validation_is_chosen(objective: str) -> None:
    assert [row.label for row in planted(objective).rows] == ["trial 12", PLAIN_LABEL, PROBE_LABEL]


def test_the_test_has_no_say() -> None:
    worse_on_test = make_row("trial 3", (0.75, 0.75), (0.125, 0.125), number=3)
    better_on_test = make_row(PLAIN_LABEL, (0.5, 0.5), (1.0, 1.0), number=-1)

    assert make_verdict([better_on_test, worse_on_test]).chosen.label == "trial 3"


def tied(label: str, loss: float, *, frozen: int = 0, number: int = 3, tested: bool = False) -> Confirmed:
    """A candidate that is right about every validation image."""
    row = make_row(label, (), point=make_point(transfer_depth=9, freeze_depth=frozen), number=number)
    seeds = ({"accuracy": 1.0, "log_loss": loss},) * 3
    return replace(row, val=seeds, test=({"accuracy": 0.5, "log_loss": 1.0},) * 3 if tested else ())


def test_of_equal_candidates_the_probe_is_chosen_then_the_most_frozen_then_the_lowest_log_loss() -> None:
    rows = [
        tied("surest", 0.01),
        tied("unsure", 0.02),
        tied(PLAIN_LABEL, 0.005, number=-1),
        tied("most frozen", 0.03, frozen=6),
        tied("half frozen", 0.001, frozen=5),
        tied(PROBE_LABEL, 0.04, frozen=9, number=-2),
    ]

    labels = [row.label for row in make_verdict(rows).rows]

    assert labels == [PROBE_LABEL, "most frozen", "half frozen", PLAIN_LABEL, "surest", "unsure"]


def test_a_better_mean_goes_before_a_simpler_point() -> None:
    probe = make_row(PROBE_LABEL, (0.99, 1.0, 1.0), number=-2)

    assert make_verdict([probe, tied("trial 3", 0.5)]).chosen.label == "trial 3"


def test_means_that_differ_by_rounding_alone_are_equal() -> None:
    lower, higher = (0.0, 0.0, 0.3), (0.0, 0.1, 0.2)
    assert Spread.of(lower).mean < Spread.of(higher).mean  # by the last bit
    probe, other = make_row(PROBE_LABEL, lower, number=-2), make_row("trial 3", higher, number=3)

    assert make_verdict([probe, other]).chosen.label == PROBE_LABEL


def test_a_choice_whose_test_was_read_is_kept_against_an_equal_one() -> None:
    rows = [tied(PROBE_LABEL, 0.04, frozen=9, number=-2, tested=True), tied("trial 3", 0.5, tested=True)]

    assert make_verdict(rows).chosen.label == "trial 3"


@pytest.mark.parametrize("objective", ["accuracy", "log_loss"])
def test_a_candidate_without_a_value_is_never_chosen(objective: str) -> None:
    worst = make_row(PROBE_LABEL, (0.0, 0.0))
    verdict = make_verdict([make_row("diverged", ()), worst], objective=objective)

    assert [row.label for row in verdict.rows] == [PROBE_LABEL, "diverged"]


def test_a_spread_that_was_not_measured_is_none() -> None:
    row = planted().row(PLAIN_LABEL)

    assert row is not None
    assert row.spread("accuracy", split="test") is None
    assert row.spread("accuracy") == Spread(0.75, 0.0, 3)


# As numbers in a file


def test_the_record_holds_every_number_and_the_gains() -> None:
    record = as_dict(planted())

    assert (record["chosen"], record["direction"], record["test_readings"]) == ("trial 12", "maximize", 1)
    assert record["candidates"][0]["val"][1] == {"accuracy": 0.875, "log_loss": 0.125}
    gain = record["gain"][PLAIN_LABEL]
    assert gain["test"] is None
    assert {name: gain["val"][name] for name in ("mean", "std", "n")} == {"mean": 0.125, "std": 0.125, "n": 3}
    # t(2) = 4.3027: 0.125 ± 4.3027 * 0.125 / sqrt(3)
    assert gain["val"]["interval"] == pytest.approx((0.125 - 0.31052, 0.125 + 0.31052), abs=1e-5)
    assert gain["val"]["standing"] == "not told apart"


def test_a_deviation_that_does_not_exist_is_null() -> None:
    verdict = make_verdict([make_row("trial 12", (0.75,)), make_row(PLAIN_LABEL, (0.5,))])

    gain = as_dict(verdict)["gain"][PLAIN_LABEL]["val"]
    assert (gain["mean"], gain["std"], gain["n"], gain["interval"]) == (0.25, None, 1, None)


def test_a_record_without_numbers_of_images_is_read() -> None:
    record = as_dict(planted())
    del record["n_images"]  # as written before they were kept

    assert from_dict(record).n_images == {}


# Ahead or not


def compared(ours: tuple[float, ...], theirs: tuple[float, ...], **n_images: int) -> str | None:
    rows = [make_row("trial 12", (1.0,) * len(ours), ours), make_row(PLAIN_LABEL, (0.0,) * len(ours), theirs)]
    return replace(make_verdict(rows), n_images=n_images).standing(PLAIN_LABEL, split="test")


@pytest.mark.parametrize(
    ("ours", "theirs", "standing"),
    [
        ((0.53, 0.52, 0.525), (0.50, 0.50, 0.50), "ahead"),
        ((0.47, 0.48, 0.475), (0.50, 0.50, 0.50), "behind"),
        ((0.53, 0.52, 0.51), (0.50, 0.50, 0.50), "not told apart"),  # two deviations, p = 0.07
        ((0.53,), (0.50,), "not told apart"),
        ((), (), None),
    ],
)
def test_a_candidate_is_ahead_where_the_paired_interval_excludes_zero(
    ours: tuple[float, ...], theirs: tuple[float, ...], standing: str | None
) -> None:
    assert compared(ours, theirs) == standing


@pytest.mark.parametrize(("n_images", "standing"), [(100, "ahead"), (99, "not told apart"), (0, "ahead")])
def test_a_difference_has_to_be_about_six_images(n_images: int, standing: str) -> None:
    assert compared((0.56, 0.56, 0.56), (0.50, 0.50, 0.50), test=n_images) == standing


def test_a_verdict_is_a_line_a_table_and_a_frame() -> None:
    verdict = finished.planted()

    assert repr(verdict) == (
        "<Verdict flowers: trial 12, accuracy on test: 91.0 ± 1.0 %, not told apart from plain fine-tuning>"
    )
    table = verdict._repr_html_()
    assert "<td>linear probe</td><td>82.0 ± 2.0 %</td><td>81.0 ± 2.0 %</td>" in table
    frame = verdict.to_frame()
    assert len(frame) == 18
    chosen = frame[(frame.candidate == "trial 12") & (frame.split == "test")]
    assert list(chosen.accuracy) == [0.90, 0.91, 0.92]


def test_names_in_the_table_are_escaped() -> None:
    verdict = make_verdict([make_row("<b>", (0.5, 0.6))])

    assert "<td>&lt;b&gt;</td>" in verdict._repr_html_()
