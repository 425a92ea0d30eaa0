"""A default is chosen unless a searched point is better by the evidence, on planted numbers."""

import json
import math
from dataclasses import replace
from statistics import NormalDist

import pytest
from finished import make_row, make_verdict
from hypothesis import given
from hypothesis import strategies as st

from tlopt.confirmation.evidence import (
    LASTING_SHARE,
    ODDS_MIN,
    Lead,
    odds_min,
    residual_variance,
    std_error_of_lead,
)
from tlopt.confirmation.verdict import Verdict
from tlopt.confirmation.verdict_json import as_dict, from_dict
from tlopt.spec.default_names import PLAIN_LABEL, PROBE_LABEL
from tlopt.spec.objectives import OWN_SHARE, own_variance

QUARTILE = 0.674490  # Φ of it is 0.75: odds of 3 to 1


def lead(mean: float, std_error: float = 0.01) -> Lead:
    return Lead(point="trial 12", over=PROBE_LABEL, mean=mean, std_error=std_error)


# Odds


@pytest.mark.parametrize(
    ("mean", "odds"), [(0.0, 1.0), (0.01 * QUARTILE, 3.0), (-0.01 * QUARTILE, 1 / 3), (0.0164485, 19.0)]
)
def test_odds_are_those_of_a_normal_error(mean: float, odds: float) -> None:
    assert lead(mean).odds == pytest.approx(odds, rel=1e-4)


@pytest.mark.parametrize(("mean", "odds"), [(0.001, math.inf), (0.0, 0.0), (-0.001, 0.0)])
def test_without_an_error_any_lead_is_certain(mean: float, odds: float) -> None:
    assert lead(mean, std_error=0.0).odds == odds


def test_a_huge_lead_has_infinite_odds_and_no_error() -> None:
    assert lead(1.0).odds == math.inf


@pytest.mark.parametrize(
    ("n_images", "others", "odds"),
    [
        *((31, False, 6.0), (32, False, 4.0), (59, False, 4.0), (60, False, ODDS_MIN), (0, False, ODDS_MIN)),
        *((72, True, 2.0), (143, True, 2.0), (144, True, 1.5), (1000, True, 1.5)),
    ],
)
def test_few_images_need_higher_odds_and_other_images_lower_ones(
    n_images: int, others: bool, odds: float
) -> None:
    assert odds_min(n_images, others=others) == odds


# The standard error


def test_what_candidates_and_seeds_add_is_no_residual() -> None:
    assert residual_variance([(0.5, 0.6, 0.8), (0.6, 0.7, 0.9), (0.1, 0.2, 0.4)]) == pytest.approx(0)


def test_the_residual_is_divided_by_its_degrees_of_freedom() -> None:
    # the columns' means are 1/4, 3/4 and 1/2, so that four of six residuals are a quarter
    assert residual_variance([(0.0, 1.0, 0.5), (0.5, 0.5, 0.5)]) == pytest.approx(4 / 16 / 2)


def test_the_own_variance_is_six_tenths_of_the_binomial_one() -> None:
    # 39 of 48 right, and one of two more: 40 / 50 = 0.8
    assert own_variance("accuracy", 39 / 48, 48) == pytest.approx(OWN_SHARE * 0.8 * 0.2 / 48)
    assert own_variance("macro_f1", 39 / 48, 48) == own_variance("accuracy", 39 / 48, 48)
    assert own_variance("accuracy", 1.0, 48) > 0


@pytest.mark.parametrize(("objective", "n_images"), [("log_loss", 48), ("accuracy", 0)])
def test_an_unknown_variance_is_left_out(objective: str, n_images: int) -> None:
    assert own_variance(objective, 0.8, n_images) == 0


def test_the_error_of_a_lead_has_both_parts() -> None:
    values = [(0.0, 1.0, 0.5), (0.5, 0.5, 0.5)]
    training, images = 2 * (1 / 8) / 3, 2 * LASTING_SHARE * own_variance("accuracy", 0.5, 48)

    assert std_error_of_lead(values, "accuracy", 48) == pytest.approx(math.sqrt(training + images))
    assert std_error_of_lead(values, "accuracy", 0) == pytest.approx(math.sqrt(training))


# The choice

STEADY = (0.80, 0.82, 0.84)


def verdict(ahead: float, *, n_images: int = 48, n_splits: int = 1, odds_min: float = ODDS_MIN) -> Verdict:
    """Trial 12 is `ahead` of the probe with every seed, so that only the images are in doubt."""
    rows = [
        make_row("trial 12", [value + ahead for value in STEADY]),
        make_row("trial 5", (0.5, 0.5, 0.5), number=5),
        make_row(PROBE_LABEL, STEADY, number=-2),
        make_row(PLAIN_LABEL, [value - 0.1 for value in STEADY], number=-1),
    ]
    known = {"val": n_images}
    return replace(make_verdict(rows), n_images=known, n_splits=n_splits, odds_min=odds_min).settled()


def needed(n_images: int) -> float:
    """The lead that has odds of three to one if training adds no error."""
    of = verdict(0.001, n_images=n_images).lead
    assert of is not None
    return NormalDist(sigma=of.std_error).inv_cdf(0.75)


@pytest.mark.parametrize("n_images", [48, 120, 1000])
def test_a_searched_point_is_chosen_at_odds_of_three_to_one_and_the_default_below(n_images: int) -> None:
    least = needed(n_images)

    assert verdict(1.05 * least, n_images=n_images).chosen.label == "trial 12"
    assert verdict(0.95 * least, n_images=n_images).chosen.label == PROBE_LABEL


def test_of_few_images_more_points_are_needed() -> None:
    assert needed(48) > 0.02 > needed(1000)


def test_the_other_candidates_keep_their_order() -> None:
    assert [row.label for row in verdict(0.01).rows] == [PROBE_LABEL, "trial 12", PLAIN_LABEL, "trial 5"]


def test_splits_that_seeds_take_in_turn_count_as_more_images() -> None:
    once, thrice = verdict(0.01).lead, verdict(0.01, n_splits=5).lead
    assert once is not None
    assert thrice == verdict(0.01, n_images=3 * 48).lead
    assert thrice is not None
    assert thrice.std_error < once.std_error


def test_an_earlier_confirmation_keeps_the_best_mean() -> None:
    assert verdict(0.001, odds_min=0.0).chosen.label == "trial 12"


def test_steps_of_training_that_disagree_are_no_evidence() -> None:
    rows = [
        make_row("trial 12", (0.95, 0.65, 0.95)),
        make_row(PROBE_LABEL, (0.75, 0.90, 0.75), number=-2),
    ]
    noisy = replace(make_verdict(rows), n_images={"val": 10_000}, odds_min=ODDS_MIN)

    assert noisy.chosen.label == "trial 12"
    assert noisy.settled().chosen.label == PROBE_LABEL


def test_a_lower_log_loss_is_a_lead() -> None:
    rows = [make_row("trial 12", (0.91, 0.92, 0.93)), make_row(PROBE_LABEL, (0.80, 0.82, 0.84), number=-2)]
    found = make_verdict(rows, objective="log_loss").lead

    assert found is not None
    assert found.mean == pytest.approx(0.1)


@pytest.mark.parametrize(
    "rows",
    [
        [make_row("trial 12", STEADY)],
        [make_row(PROBE_LABEL, STEADY, number=-2)],
        [make_row("trial 12", (0.9,)), make_row(PROBE_LABEL, (0.8,), number=-2)],
        [make_row("trial 12", ()), make_row(PROBE_LABEL, STEADY, number=-2)],
        [replace(make_row("trial 12", (0.9,)), dropped=True), make_row(PROBE_LABEL, STEADY, number=-2)],
    ],
)
def test_without_a_pair_with_every_seed_there_is_no_lead_and_the_order_stays(rows: list[object]) -> None:
    of = replace(make_verdict(rows), odds_min=ODDS_MIN)  # type: ignore[arg-type]

    assert of.lead is None
    assert of.settled() == of


def test_an_exported_verdict_is_read_with_its_choice_and_its_reason() -> None:
    before = verdict(0.001)

    after = from_dict(json.loads(json.dumps(as_dict(before))))

    assert after.chosen.label == PROBE_LABEL
    assert (after.lead, after.odds_min) == (before.lead, ODDS_MIN)


ACCURACIES = st.tuples(*[st.integers(0, 48).map(lambda right: right / 48)] * 3)


@given(ours=ACCURACIES, others=st.lists(ACCURACIES, max_size=3), probe=ACCURACIES, plain=ACCURACIES)
def test_settling_chooses_the_best_mean_or_the_stronger_default_and_loses_nobody(
    ours: tuple[float, ...],
    others: list[tuple[float, ...]],
    probe: tuple[float, ...],
    plain: tuple[float, ...],
) -> None:
    rows = [
        make_row("trial 12", ours),
        *(make_row(f"trial {n}", each, number=n) for n, each in enumerate(others)),
        make_row(PROBE_LABEL, probe, number=-2),
        make_row(PLAIN_LABEL, plain, number=-1),
    ]
    before = replace(make_verdict(rows), n_images={"val": 48}, odds_min=ODDS_MIN)

    after = before.settled()

    assert after.chosen.label in (before.chosen.label, before.defaults[0])
    assert after.defaults == before.defaults
    assert sorted(row.label for row in after.rows) == sorted(row.label for row in rows)
    assert after.settled() == after
