"""Metrics of planted confusions, against numbers computed by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlopt.training.metrics import Metrics, compute_metrics, confusion_matrix, log_probabilities, mean

# rows: true class 0 four times (three right), class 1 twice (one right), class 2 never, predicted once
PLANTED = np.array([[3, 0, 1], [1, 1, 0], [0, 0, 0]])


def planted(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels with this confusion."""
    labels, predicted = (
        np.repeat(axis, counts.ravel()) for axis in (a.ravel() for a in np.indices(counts.shape))
    )
    return np.eye(len(counts), dtype=np.float32)[predicted], labels


def test_a_confusion_has_the_true_class_in_rows() -> None:
    found = confusion_matrix(np.array([0, 0, 1, 1]), np.array([0, 2, 0, 1]), 3)

    assert found.tolist() == [[1, 0, 1], [1, 1, 0], [0, 0, 0]]


def test_accuracy_is_the_share_of_hits() -> None:
    assert compute_metrics(*planted(PLANTED)).accuracy == 4 / 6


def test_balanced_accuracy_is_the_mean_recall_of_the_classes_that_occur() -> None:
    assert compute_metrics(*planted(PLANTED)).balanced_accuracy == (3 / 4 + 1 / 2) / 2


def test_macro_f1_counts_a_class_that_is_only_predicted_as_nothing() -> None:
    # 2 * hits / (true + predicted): 6 / 8, 2 / 3 and 0 / 1
    assert compute_metrics(*planted(PLANTED)).macro_f1 == pytest.approx((6 / 8 + 2 / 3 + 0) / 3)


def test_a_class_that_neither_occurs_nor_is_predicted_counts_nowhere() -> None:
    found = compute_metrics(*planted(np.array([[2, 0, 0], [0, 1, 0], [0, 0, 0]])))

    assert (found.balanced_accuracy, found.macro_f1) == (1, 1)


def test_log_loss_by_hand() -> None:
    # probabilities 3/4 and 1/4; the labels have 3/4 and 1/4 of them
    logits = np.log(np.array([[3.0, 1.0], [3.0, 1.0]])).astype(np.float32)

    found = compute_metrics(logits, np.array([0, 1])).log_loss

    assert found == pytest.approx(-(math.log(3 / 4) + math.log(1 / 4)) / 2)


def test_log_loss_of_equal_logits_is_the_logarithm_of_the_number_of_classes() -> None:
    assert compute_metrics(np.zeros((4, 5), np.float32), np.arange(4)).log_loss == pytest.approx(math.log(5))


def test_huge_logits_do_not_overflow() -> None:
    found = compute_metrics(np.array([[1e30, 0.0], [1e30, 0.0]], np.float32), np.array([0, 1]))

    assert found.log_loss == pytest.approx(5e29)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_logit_that_is_not_finite_makes_the_log_loss_nan(bad: float) -> None:
    assert math.isnan(
        compute_metrics(np.array([[bad, 0.0], [0.0, 1.0]], np.float32), np.array([1, 1])).log_loss
    )


@given(
    st.lists(st.lists(st.floats(-50, 50), min_size=3, max_size=3), min_size=1, max_size=5), st.floats(-20, 20)
)
def test_probabilities_add_up_to_one_and_do_not_see_a_shift(rows: list[list[float]], shift: float) -> None:
    logits = np.array(rows)

    found = log_probabilities(logits)

    np.testing.assert_allclose(np.exp(found).sum(axis=1), 1)
    np.testing.assert_allclose(log_probabilities(logits + shift), found, atol=1e-9)


def test_the_mean_of_metrics_is_each_metrics_mean() -> None:
    low = Metrics(accuracy=0.2, balanced_accuracy=0.4, macro_f1=0.0, log_loss=1.0)
    high = Metrics(accuracy=0.4, balanced_accuracy=0.8, macro_f1=1.0, log_loss=3.0)

    found = mean([low, high]).as_dict()

    assert found == pytest.approx(
        {"accuracy": 0.3, "balanced_accuracy": 0.6, "macro_f1": 0.5, "log_loss": 2.0}
    )
