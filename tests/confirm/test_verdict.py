"""The arithmetic of a verdict, on planted numbers."""

import math
from dataclasses import replace

import pytest
from finished import make_row, make_verdict

from tlopt.confirm.verdict import PLAIN_LABEL, PROBE_LABEL, Spread, Verdict, as_dict


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


def test_the_log_loss_breaks_a_tie() -> None:
    surer, unsure = (
        replace(make_row(label, ()), val=({"accuracy": 0.75, "log_loss": loss},))
        for label, loss in (("surer", 0.25), ("unsure", 0.5))
    )

    assert make_verdict([unsure, surer]).chosen.label == "surer"


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
    assert record["gain"][PLAIN_LABEL] == {"val": {"mean": 0.125, "std": 0.125, "n": 3}, "test": None}


def test_a_deviation_that_does_not_exist_is_null() -> None:
    verdict = make_verdict([make_row("trial 12", (0.75,)), make_row(PLAIN_LABEL, (0.5,))])

    assert as_dict(verdict)["gain"][PLAIN_LABEL]["val"] == {"mean": 0.25, "std": None, "n": 1}
