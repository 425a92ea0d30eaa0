"""How numbers are said, on planted ones."""

import math

import pytest
from finished import make_row, make_verdict, planted

from tlopt.analysis.format import gain_sentence, gain_sentences, seeds_words, spread_words, value_words
from tlopt.confirm.verdict import Spread
from tlopt.spec.default_names import PLAIN_LABEL, PROBE_LABEL, SCRATCH_LABEL

DEFAULTS = (make_row(PLAIN_LABEL, (0.89, 0.90, 0.91), (0.87, 0.89, 0.91), number=-1),)


@pytest.mark.parametrize(
    ("spread", "objective", "words"),
    [
        (Spread(0.9234, 0.0151, 3), "accuracy", "92.3 ± 1.5 %"),
        (Spread(0.9234, 0.0151, 3), "log_loss", "0.9234 ± 0.0151"),
        (Spread(0.9234, math.nan, 1), "macro_f1", "92.3 %"),
        (None, "accuracy", "—"),
    ],
)
def test_a_spread_is_said_in_per_cent_but_a_log_loss_as_it_is(
    spread: Spread | None, objective: str, words: str
) -> None:
    assert spread_words(spread, objective) == words


def test_a_single_value_has_no_deviation() -> None:
    assert (value_words(0.5, "accuracy"), value_words(0.5, "log_loss")) == ("50.0 %", "0.5000")


def test_one_seed_is_not_seeds() -> None:
    assert (seeds_words(1), seeds_words(3)) == ("1 seed", "3 seeds")


def test_a_gain_above_its_spread_is_told_with_it() -> None:
    sentence = gain_sentence(planted(), PLAIN_LABEL)
    assert sentence == (
        "Gain over plain fine-tuning in accuracy on test: +2.0 ± 1.0 points (seed by seed, 3 seeds), larger"
        " than its spread."
    )


def test_a_gain_within_its_spread_is_called_that() -> None:
    verdict = make_verdict([make_row("trial 12", (0.95, 0.90, 0.91), (0.95, 0.86, 0.90)), *DEFAULTS])
    assert "not larger than its spread, so chance alone could explain it" in gain_sentence(
        verdict, PLAIN_LABEL
    )


def test_a_loss_on_test_is_called_a_loss() -> None:
    verdict = make_verdict([make_row("trial 12", (0.95, 0.95, 0.95), (0.81, 0.83, 0.85)), *DEFAULTS])
    assert "-6.0 ± 0.0 points (seed by seed, 3 seeds), a loss" in gain_sentence(verdict, PLAIN_LABEL)


def test_a_lower_log_loss_is_a_gain() -> None:
    rows = [make_row("trial 12", (0.91, 0.92, 0.93)), make_row(PROBE_LABEL, (0.80, 0.82, 0.84), number=-2)]
    verdict = make_verdict(rows, objective="log_loss")
    assert "on validation, on which it was chosen: +0.1000 ± 0.0100 (" in gain_sentence(verdict, PROBE_LABEL)


def test_one_pair_of_runs_claims_no_spread() -> None:
    rows = [make_row("trial 12", (0.9,), (0.9,)), make_row(PLAIN_LABEL, (0.8,), (0.8,), number=-1)]
    assert "+10.0 points (seed by seed, 1 seed), one pair of runs" in gain_sentence(
        make_verdict(rows), PLAIN_LABEL
    )


def test_a_default_that_was_not_measured_has_no_gain() -> None:
    assert gain_sentence(make_verdict(DEFAULTS), PROBE_LABEL) == (
        "Against linear probe there is no measured gain."
    )


def test_there_is_a_sentence_for_each_default_that_is_a_candidate() -> None:
    scratch = make_verdict([make_row("trial 12", (0.9, 0.9)), make_row(SCRATCH_LABEL, (0.8, 0.8), number=-1)])

    (only,) = gain_sentences(scratch)

    assert "over training from scratch" in only
    assert len(list(gain_sentences(planted()))) == 2
