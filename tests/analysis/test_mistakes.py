"""Rates, confused pairs, mistakes, calibration and thresholds of predictions, against counts by hand."""

import numpy as np
import pytest
from predicted import make_predictions
from sklearn import metrics

from tlopt.analysis.mistakes import (
    best_threshold,
    binary_curves,
    calibration,
    class_rates,
    confused_pairs,
    confusion,
    mistakes,
    recalls_at,
)

THREE = make_predictions(
    # true class, predicted class, probability of the predicted one
    [(0, 0, 0.9), (0, 0, 0.8), (0, 1, 0.95), (0, 1, 0.6), (1, 1, 0.7), (1, 0, 0.99), (2, 2, 1.0)],
    class_names=("daisy", "rose", "tulip"),
)
PERFECT = make_predictions([(0, 0, 0.9), (1, 1, 0.8)], class_names=("daisy", "rose"))


def test_rows_are_true_classes_and_columns_predicted_ones() -> None:
    assert confusion(THREE).tolist() == [[2, 2, 0], [1, 1, 0], [0, 0, 1]]


def test_recall_and_precision_are_counted() -> None:
    daisy, rose, tulip = class_rates(THREE)

    assert (daisy.n, daisy.n_right, daisy.recall, daisy.precision) == (4, 2, 0.5, 2 / 3)
    assert (rose.recall, rose.precision) == (0.5, 1 / 3)
    assert (tulip.recall, tulip.precision) == (1.0, 1.0)


def test_a_class_without_images_or_predictions_has_no_rate() -> None:
    (_, other) = class_rates(make_predictions([(0, 0, 0.9)], class_names=("daisy", "rose")))

    assert (other.recall, other.precision) == (None, None)


def test_the_pair_with_most_images_comes_first() -> None:
    first, second = confused_pairs(THREE, 5)

    assert (first.true, first.predicted, first.n, first.share) == ("daisy", "rose", 2, 0.5)
    assert (second.true, second.predicted, second.n) == ("rose", "daisy", 1)
    assert confused_pairs(PERFECT, 5) == ()


def test_mistakes_come_surest_first_with_their_files() -> None:
    found = list(mistakes(THREE, 2))

    assert [(each.file, each.true, each.predicted) for each in found] == [
        ("5.png", "rose", "daisy"),
        ("2.png", "daisy", "rose"),
    ]
    assert list(mistakes(PERFECT, 2)) == []


def test_the_calibration_error_is_the_weighted_gap_of_the_bins() -> None:
    # four images at 0.75, three of them right: no gap; two at 0.95, none right: a gap of 0.95
    rows = [(0, 0, 0.75)] * 3 + [(0, 1, 0.75)] + [(0, 1, 0.95)] * 2

    found = calibration(make_predictions(rows, class_names=("daisy", "rose")))

    assert found.ece == pytest.approx(2 / 6 * 0.95)
    assert [(each.n, each.accuracy) for each in found.bins if each.n] == [(4, 0.75), (2, 0.0)]


def test_perfect_predictions_have_a_calibration_too() -> None:
    found = calibration(PERFECT)

    assert found.accuracy == 1.0
    assert found.ece == pytest.approx(0.15)


def test_the_curves_are_those_of_scikit_learn() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 80)
    # two decimals, so that many images share a score
    scores = np.clip(0.4 * labels + 0.6 * random.random(80), 0, 1).round(2)
    rows = [
        (int(t), int(s >= 0.5), float(s if s >= 0.5 else 1 - s)) for t, s in zip(labels, scores, strict=True)
    ]

    curves = binary_curves(make_predictions(rows, class_names=("no", "yes")))

    assert curves is not None
    assert curves.auc == pytest.approx(metrics.roc_auc_score(labels, scores))
    assert curves.average_precision == pytest.approx(metrics.average_precision_score(labels, scores))
    assert curves.positive == "yes"


def test_the_threshold_is_the_one_with_the_best_mean_of_recalls() -> None:
    # probabilities of "yes": no 0.1, no 0.3, yes 0.4, yes 0.9; between 0.3 and 0.4 all are right
    rows = [(0, 0, 0.9), (0, 0, 0.7), (1, 0, 0.6), (1, 1, 0.9)]
    predictions = make_predictions(rows, class_names=("no", "yes"))
    curves = binary_curves(predictions)

    assert curves is not None
    threshold = best_threshold(curves)
    assert threshold == pytest.approx(0.35)
    assert recalls_at(predictions, threshold) == (1.0, 1.0)
    assert recalls_at(predictions, 0.5) == (1.0, 0.5)


def test_the_threshold_of_sure_and_perfect_predictions_can_be_written_down() -> None:
    sure = make_predictions([(0, 0, 0.99999), (1, 1, 0.99999), (1, 1, 0.99998)], class_names=("no", "yes"))
    curves = binary_curves(sure)

    assert curves is not None
    assert recalls_at(sure, float(f"{best_threshold(curves):.3f}")) == (1.0, 1.0)


def test_more_classes_or_one_alone_have_no_curves() -> None:
    assert binary_curves(THREE) is None
    assert binary_curves(make_predictions([(0, 0, 0.9)], class_names=("no", "yes"))) is None
