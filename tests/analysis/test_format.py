"""Formatted numbers and sentences, from planted values."""

import math
from dataclasses import replace

import pytest
from finished import make_point, make_row, make_verdict, planted

from tlopt.analysis.format import (
    describe,
    gain_sentence,
    gain_sentences,
    point_sentence,
    spread_words,
    value_words,
)
from tlopt.confirmation.verdict import Spread
from tlopt.confirmation.verdict_json import as_dict
from tlopt.spec.default_names import KEPT_LABEL, PLAIN_LABEL, PROBE_LABEL, SCRATCH_LABEL

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


@pytest.mark.parametrize(
    ("changes", "line", "sentence"),
    [
        ({}, "keep 9 freeze 2 lr 0.1", ""),
        (
            {"norm_depth": 9},
            "keep 9 freeze 2 norm 9 lr 0.1",
            "batch-norm layers of the first 9 blocks keep their pretrained statistics",
        ),
        (
            {"norm_depth": 1, "freeze_depth": 0},
            "keep 9 freeze 0 norm 1 lr 0.1",
            "batch-norm layers of the first block keep their pretrained statistics",
        ),
        (
            {"norm_depth": 5, "norm_affine": "keep"},
            "keep 9 freeze 2 norm 5 affine kept lr 0.1",
            "batch-norm layers of the first 5 blocks keep their pretrained statistics, weights and biases"
            " too",
        ),
    ],
)
def test_kept_statistics_are_said(changes: dict[str, object], line: str, sentence: str) -> None:
    point = make_point(**{"transfer_depth": 9, "freeze_depth": 2, **changes})

    assert describe(point) == describe(point.as_dict()) == line
    parts = point_sentence(point).split("; ")
    assert [part for part in parts if "batch-norm" in part] == ([sentence] if sentence else [])


def test_a_single_value_has_no_deviation() -> None:
    assert (value_words(0.5, "accuracy"), value_words(0.5, "log_loss")) == ("50.0 %", "0.5000")


def test_a_gain_whose_interval_excludes_zero_is_ahead() -> None:
    # differences of 2, 3 and 2.5 points: mean 2.5, deviation 0.5, t(2) = 4.3027, half width 1.24
    chosen = make_row("trial 12", (0.95, 0.90, 0.91), (0.89, 0.92, 0.935))

    assert gain_sentence(make_verdict([chosen, *DEFAULTS]), PLAIN_LABEL) == (
        "Against plain fine-tuning, accuracy on test: +2.5 points (95 % interval +1.3 to +3.7, 3 seeds):"
        " ahead."
    )


def test_a_gain_of_two_deviations_over_three_seeds_is_not_told_apart() -> None:
    # differences of 3, 2 and 1 points: half width 4.3027 * 1 / sqrt(3) = 2.5
    assert gain_sentence(planted(), PLAIN_LABEL) == (
        "Against plain fine-tuning, accuracy on test: +2.0 points (95 % interval -0.5 to +4.5, 3 seeds):"
        " not told apart."
    )


def test_a_loss_whose_interval_excludes_zero_is_behind() -> None:
    verdict = make_verdict([make_row("trial 12", (0.95, 0.95, 0.95), (0.81, 0.83, 0.85)), *DEFAULTS])
    assert "-6.0 points (95 % interval -6.0 to -6.0, 3 seeds): behind" in gain_sentence(verdict, PLAIN_LABEL)


def test_a_lower_log_loss_is_a_gain() -> None:
    rows = [make_row("trial 12", (0.91, 0.92, 0.93)), make_row(PROBE_LABEL, (0.80, 0.82, 0.84), number=-2)]
    verdict = make_verdict(rows, objective="log_loss")
    # differences of 0.11, 0.10 and 0.09: half width 4.3027 * 0.01 / sqrt(3) = 0.0248
    assert "on validation, on which it was chosen: +0.1000 (95 % interval +0.0752 to +0.1248" in (
        gain_sentence(verdict, PROBE_LABEL)
    )


def test_one_pair_of_runs_tells_nothing_apart() -> None:
    rows = [make_row("trial 12", (0.9,), (0.9,)), make_row(PLAIN_LABEL, (0.8,), (0.8,), number=-1)]
    assert "+10.0 points (a single seed, so no interval): not told apart" in gain_sentence(
        make_verdict(rows), PLAIN_LABEL
    )


def test_a_difference_of_few_images_is_not_told_apart_however_steady() -> None:
    rows = [
        make_row("trial 12", (1.0, 1.0, 1.0), (1.0, 1.0, 1.0)),
        make_row(PLAIN_LABEL, (0.9, 0.9, 0.9), (5 / 6, 5 / 6, 5 / 6), number=-1),
    ]
    verdict = replace(make_verdict(rows), n_images={"test": 6})

    *gains, paired, resolution = gain_sentences(verdict)

    assert gains == [
        "Against plain fine-tuning, accuracy on test: +16.7 points (95 % interval +16.7 to +16.7, 3 seeds):"
        " not told apart, a difference of fewer than 6 images."
    ]
    assert "runs with the same seed" in paired
    assert resolution.startswith("Of 6 test images, each is 16.7 points; a difference of fewer than 6 images")


def test_a_default_that_was_not_measured_has_no_gain() -> None:
    assert (
        gain_sentence(make_verdict(DEFAULTS), PROBE_LABEL) == "The gain over linear probe was not measured."
    )


def test_a_default_that_has_still_to_be_measured_has_no_gain_yet() -> None:
    running = replace(make_verdict([make_row("trial 12", (0.9,), number=12)]), n_finished=1)

    assert gain_sentence(running, PROBE_LABEL) == "The gain over linear probe is not measured yet."


@pytest.mark.parametrize(
    "strongest_first",
    [
        (PROBE_LABEL, PLAIN_LABEL),
        (PROBE_LABEL, KEPT_LABEL, PLAIN_LABEL),
        (KEPT_LABEL, PLAIN_LABEL, PROBE_LABEL),
    ],
)
def test_the_stronger_default_comes_first_for_people_and_programs(strongest_first: tuple[str, ...]) -> None:
    numbers = {PLAIN_LABEL: -1, PROBE_LABEL: -2, KEPT_LABEL: -4}
    values = {label: 0.9 - place / 10 for place, label in enumerate(strongest_first)}
    rows = [make_row(label, (values[label],) * 2, number=numbers[label]) for label in sorted(values)]
    verdict = make_verdict([*rows, make_row("trial 12", (0.95, 0.95))])

    sentences = list(gain_sentences(verdict))[: len(strongest_first)]

    assert [sentence.split(",")[0] for sentence in sentences] == [f"Against {e}" for e in strongest_first]
    assert f"ahead of {strongest_first[0]}" in repr(verdict)
    assert as_dict(verdict)["defaults"] == list(strongest_first)
    assert next(iter(as_dict(verdict)["gain"])) == strongest_first[0]


def test_there_is_a_sentence_for_each_default_that_is_a_candidate() -> None:
    scratch = make_verdict([make_row("trial 12", (0.9, 0.9)), make_row(SCRATCH_LABEL, (0.8, 0.8), number=-1)])

    only, paired = gain_sentences(scratch)

    assert "Against training from scratch" in only
    assert "Student's t" in paired


def test_a_chosen_default_alone_has_no_interval_to_explain() -> None:
    (only,) = gain_sentences(make_verdict([make_row(PLAIN_LABEL, (0.9, 0.9), number=-1)]))

    assert only == "No searched point is ahead of plain fine-tuning on validation; the default is chosen."


def test_a_default_chosen_for_want_of_evidence_says_what_was_missing() -> None:
    rows = [
        make_row("trial 12", (0.83, 0.83, 0.83)),
        make_row(PLAIN_LABEL, (0.82, 0.82, 0.82), number=-1),
    ]
    verdict = replace(make_verdict(rows), n_images={"val": 48}, odds_min=3.0).settled()
    # images: sqrt(2 * 0.5 * 0.6 * 0.813 * 0.187 / 48) = 0.0436; Φ(0.0100 / 0.0436) = 0.591, odds of 1.4
    first, *_ = gain_sentences(verdict)

    assert first == (
        "No searched point is ahead of plain fine-tuning beyond noise; the default is chosen. The best of"
        " them, trial 12, has +1.0 points on validation: the odds that it is better are 1.4 to 1, and 3 to 1"
        " are needed."
    )


def test_before_every_run_has_ended_nothing_is_chosen() -> None:
    leads = replace(make_verdict([make_row(PLAIN_LABEL, (0.9, 0.9), number=-1)]), n_expected=12)

    (only,) = gain_sentences(leads)

    assert only == "So far no searched point is ahead of plain fine-tuning on validation."
