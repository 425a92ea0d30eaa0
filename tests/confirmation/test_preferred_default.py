"""The preferred default is chosen unless another one is better by the evidence, on planted numbers."""

import json
from collections.abc import Sequence
from dataclasses import replace
from statistics import NormalDist

import pytest
from finished import make_contents, make_row, make_verdict
from reported import report

from tlopt.analysis.format import condition_words, gain_sentences
from tlopt.confirmation.evidence import ODDS_MIN
from tlopt.confirmation.verdict import Confirmed, Verdict, ranked
from tlopt.confirmation.verdict_json import as_dict, from_dict
from tlopt.exports.card import how_chosen
from tlopt.reports.html import page
from tlopt.spec.default_names import LINEAR_LABEL, PARTLY_LABEL, PLAIN_LABEL, PROBE_LABEL

STEADY = (0.66, 0.68, 0.70)


def raised(by: float) -> list[float]:
    """Values `by` above the partly frozen network's with each seed, so that only images are in doubt."""
    return [value + by for value in STEADY]


def verdict(
    linear: float, *, point: float = -0.2, preferred: str = PARTLY_LABEL, partly: Sequence[float] = STEADY
) -> Verdict:
    """A confirmation on 60 images: by how much two candidates are ahead of the partly frozen network."""
    rows = [
        make_row("trial 12", raised(point)),
        make_row(LINEAR_LABEL, raised(linear), number=-4),
        make_row(PLAIN_LABEL, raised(-0.1), number=-1),
        make_row(PARTLY_LABEL, partly, number=-5),
    ]
    known = {"val": 60}
    return replace(make_verdict(rows), n_images=known, odds_min=ODDS_MIN, preferred=preferred).settled()


def needed() -> float:
    """The lead that has odds of three to one."""
    lead = verdict(0.001).default_lead
    assert lead is not None
    return NormalDist(sigma=lead.std_error).inv_cdf(0.75)


def test_another_default_is_chosen_at_the_odds_and_the_preferred_one_below() -> None:
    assert verdict(0.95 * needed()).chosen.label == PARTLY_LABEL
    assert verdict(1.05 * needed()).chosen.label == LINEAR_LABEL


def test_the_lead_of_the_strongest_default_is_known_while_the_preferred_one_is_chosen() -> None:
    found = verdict(0.01).default_lead

    assert found is not None
    assert (found.point, found.over, found.mean) == (LINEAR_LABEL, PARTLY_LABEL, pytest.approx(0.01))
    assert 1 < found.odds < ODDS_MIN
    assert verdict(-0.01).default_lead is None
    assert verdict(0.2).default_lead is None


def test_a_searched_point_must_be_ahead_of_every_default() -> None:
    assert verdict(0.9 * needed(), point=1.8 * needed()).chosen.label == PARTLY_LABEL
    assert verdict(0.9 * needed(), point=2.1 * needed()).chosen.label == "trial 12"


def test_among_defaults_alone_the_preferred_one_is_chosen_too() -> None:
    rows = [make_row(LINEAR_LABEL, raised(0.01), number=-4), make_row(PARTLY_LABEL, STEADY, number=-5)]
    only = replace(make_verdict(rows), n_images={"val": 60}, odds_min=ODDS_MIN, preferred=PARTLY_LABEL)

    assert only.chosen.label == LINEAR_LABEL
    assert only.settled().chosen.label == PARTLY_LABEL


@pytest.mark.parametrize("preferred", ["", "a default that this study does not have"])
def test_without_a_preferred_default_the_best_mean_is_chosen(preferred: str) -> None:
    assert verdict(0.01, preferred=preferred).chosen.label == LINEAR_LABEL


def test_a_preferred_default_without_a_value_is_not_chosen() -> None:
    assert verdict(0.01, partly=()).chosen.label == LINEAR_LABEL


def costing(row: Confirmed, multiply_adds: float) -> Confirmed:
    return replace(row, inference_cost={"multiply_adds": multiply_adds})


def test_no_cheaper_one_is_chosen_that_the_strongest_default_is_better_than() -> None:
    first = verdict(0.95 * needed())
    weak = make_row(PROBE_LABEL, raised(-0.95 * needed()), number=-2)  # evidently worse than one of the two
    costs = {PARTLY_LABEL: 300e6, LINEAR_LABEL: 200e6, PLAIN_LABEL: 300e6, "trial 12": 300e6}
    rows = [costing(weak, 100e6), *(costing(row, costs[row.label]) for row in first.rows)]
    ordered = ranked(rows, "accuracy", "maximize")
    cheap = replace(first, rows=ordered, cost_objectives=("multiply_adds",))

    assert cheap.settled().chosen.label == LINEAR_LABEL
    without = [row for row in ordered if row.label != LINEAR_LABEL]
    assert replace(cheap, rows=tuple(without)).settled().chosen.label == PROBE_LABEL


@pytest.mark.parametrize(("linear", "point"), [(0.2, -0.2), (0.01, 0.3)])
@pytest.mark.parametrize("n_val", [60, 10_000_000])  # the latter for infinite odds
def test_a_default_that_stands_in_for_the_choice_is_not_given_its_reason(
    linear: float, point: float, n_val: int
) -> None:
    found = replace(verdict(linear, point=point), n_images={"val": n_val})
    assert found.chosen.label != PARTLY_LABEL

    partly = next(row for row in found.rows if row.label == PARTLY_LABEL)
    first, *_ = gain_sentences(found.of(partly))

    assert "needed" not in first
    assert "preferred" not in first


def test_an_export_keeps_the_choice_and_one_of_an_earlier_version_its_own() -> None:
    stored = json.loads(json.dumps(as_dict(verdict(0.01))))

    after = from_dict(stored)
    assert (after.chosen.label, after.preferred) == (PARTLY_LABEL, PARTLY_LABEL)
    assert after.default_lead == verdict(0.01).default_lead
    assert from_dict({key: value for key, value in stored.items() if key != "preferred"}).preferred == ""


def test_the_reason_names_both_leads() -> None:
    first, *_ = gain_sentences(verdict(0.01, point=0.02))

    # images: sqrt(2 * 0.5 * 0.6 * 0.654 * 0.346 / 60) = 0.0475; Φ(0.01 / 0.0475) = 0.583, odds of 1.4
    assert first == (
        "No searched point is ahead of linear classifier beyond noise; a default is chosen. The best of them,"
        " trial 12, has +1.0 points on validation: the odds that it is better are 1.4 to 1, and 3 to 1 are"
        " needed. Of the defaults, partly frozen network is preferred to linear classifier, which has +1.0"
        " points on validation: the odds that linear classifier is better are 1.4 to 1, and 3 to 1 are"
        " needed."
    )


@pytest.mark.parametrize("ahead_by", [0, 0.0004])
def test_of_equal_defaults_the_preferred_one_is_chosen_and_no_odds_are_given(ahead_by: float) -> None:
    equal = verdict(ahead_by)
    first, *_ = gain_sentences(equal)

    assert equal.chosen.label == PARTLY_LABEL
    assert first.endswith("Of the defaults with the best mean, partly frozen network is preferred.")


def test_nothing_is_said_of_a_preference_where_the_preferred_default_is_the_best() -> None:
    first, *_ = gain_sentences(verdict(-0.01))

    assert (
        first == "No searched point is ahead of partly frozen network on validation; the default is chosen."
    )


def test_odds_too_low_are_not_rounded_up_to_those_that_are_needed() -> None:
    first, *_ = gain_sentences(verdict(0.995 * needed()))

    assert "better are 2.9 to 1, and 3 to 1 are needed" in first


def test_json_has_the_lead_over_the_preferred_default() -> None:
    found = verdict(0.01).default_lead

    assert found is not None
    assert as_dict(verdict(0.01))["default_lead"] == {
        "label": LINEAR_LABEL,
        "default": PARTLY_LABEL,
        "mean": found.mean,
        "std_error": found.std_error,
        "odds": found.odds,
    }
    assert as_dict(verdict(-0.01))["default_lead"] is None


def test_the_condition_names_the_preferred_default_only_where_it_has_a_value() -> None:
    assert condition_words(verdict(0.01)) == (
        "; a point of the search is chosen over the strongest default, and another default over partly frozen"
        " network, only at odds of 3 to 1"
    )
    alone = "; a point of the search is chosen over the strongest default only at odds of 3 to 1"
    assert condition_words(verdict(0.01, partly=())) == alone
    assert condition_words(verdict(0.01, preferred="a default that this study does not have")) == alone


def test_card_and_report_give_the_same_condition() -> None:
    chosen = verdict(0.01)
    condition = condition_words(chosen)

    assert condition in "".join(how_chosen(make_contents(chosen)))
    assert condition in page(report([], verdict=chosen))
    earlier = replace(chosen, odds_min=0.0, preferred="")
    assert " odds" not in page(report([], verdict=earlier))
