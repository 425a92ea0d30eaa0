"""Similarity of features: 1 for equal ones, nothing for noise, and hand-computed values."""

import numpy as np
import pytest

from tlopt.insight.similarity import debiased_cka, information_imbalance, neighbourhood_overlap

RNG = np.random.default_rng(0)


def test_cka_of_noise_is_about_zero_with_more_features_than_images() -> None:
    one, other = RNG.normal(size=(64, 1280)), RNG.normal(size=(64, 1280))

    assert abs(debiased_cka(one, other)) < 0.02  # the usual estimate says 0.95


def test_cka_knows_no_rotation_shift_and_unit() -> None:
    one = RNG.normal(size=(50, 8))
    rotation, _ = np.linalg.qr(RNG.normal(size=(8, 8)))

    assert debiased_cka(one, 1000 + 5 * one @ rotation) == pytest.approx(1.0)
    assert np.isnan(debiased_cka(one, np.ones((50, 3))))


def test_cka_is_the_mean_over_all_quadruples() -> None:
    # the definition: a U-statistic over four different images
    from itertools import permutations

    x, y = RNG.normal(size=(6, 2)), RNG.normal(size=(6, 3))
    k, m = x @ x.T, y @ y.T

    def hsic(a: np.ndarray, b: np.ndarray) -> float:
        terms = [a[i, j] * (b[i, j] + b[q, r] - 2 * b[i, q]) for i, j, q, r in permutations(range(6), 4)]
        return float(np.mean(terms))

    assert debiased_cka(x, y) == pytest.approx(hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m)))


def test_overlap_by_hand() -> None:
    line = np.array([[0.0], [1.0], [2.5], [4.5]])  # nearest: 1, 0, 1, 2
    other = np.array([[0.0], [1.0], [4.5], [2.5]])  # nearest: 1, 0, 3, 1

    assert neighbourhood_overlap(line, line, k=1) == 1.0
    assert neighbourhood_overlap(line, other, k=1) == 0.5
    assert neighbourhood_overlap(line, other, k=99) == 1.0


def test_imbalance_by_hand() -> None:
    line = np.array([[0.0], [1.0], [2.5], [4.5]])
    other = np.array([[0.0], [1.0], [4.5], [2.5]])

    # ranks in `other` of the neighbours in `line`: 1, 1, 2 (of 1 for 2), 1 of 3 for 2
    distances = np.abs(other - other.T)
    ranks = [
        1 + int(sum(distances[i] < distances[i, j])) - (distances[i, i] < distances[i, j])
        for i, j in ((0, 1), (1, 0), (2, 1), (3, 2))
    ]
    assert information_imbalance(line, other) == pytest.approx(2 / 4 * np.mean(ranks))
    assert information_imbalance(line, line) == pytest.approx(2 / 4)


def test_imbalance_is_larger_from_a_part_to_the_whole_than_back() -> None:
    whole = RNG.normal(size=(400, 2))
    part = whole[:, :1]

    assert information_imbalance(whole, part) < 0.25 < 0.3 < information_imbalance(part, whole)
    assert information_imbalance(part, RNG.normal(size=(400, 1))) == pytest.approx(1.0, abs=0.1)
