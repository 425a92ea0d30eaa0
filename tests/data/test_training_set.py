"""The images and labels that a run trains on: parts of a split, nested, and labels made false."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlopt.data.training_set import some_images, with_noise

LABELS = np.array([0] * 60 + [1] * 30 + [2] * 10)
TRAIN = np.arange(0, 100, 2)  # 30, 15 and 5 of the classes


@given(st.integers(3, 49), st.integers(0, 2**31))
def test_a_part_is_of_the_split_and_has_every_class_in_proportion(n: int, seed: int) -> None:
    part = some_images(TRAIN, LABELS, n, seed=seed)
    counts = Counter(LABELS[part].tolist())

    assert len(part) == len(set(part)) == n
    assert set(part) <= set(TRAIN)
    for label, size in enumerate((30, 15, 5)):
        assert counts[label] >= 1
        assert abs(counts[label] - n * size / 50) <= 2


@given(st.integers(1, 48), st.integers(0, 2**31))
def test_fewer_images_are_among_more_of_the_same_seed(n: int, seed: int) -> None:
    few, many = (set(some_images(TRAIN, LABELS, size, seed=seed)) for size in (n, n + 1))

    assert few < many


def test_another_seed_draws_others() -> None:
    assert set(some_images(TRAIN, LABELS, 20, seed=1)) != set(some_images(TRAIN, LABELS, 20, seed=2))


@pytest.mark.parametrize("n", [0, 50, 51])
def test_all_images_are_the_split_itself(n: int) -> None:
    assert some_images(TRAIN, LABELS, n, seed=1) is TRAIN


@given(st.floats(0.01, 0.9), st.integers(0, 2**31))
def test_exactly_a_share_of_the_training_labels_is_false(share: float, seed: int) -> None:
    noisy = with_noise(LABELS, TRAIN, share, n_classes=3, seed=seed)
    false = np.flatnonzero(noisy != LABELS)

    assert len(false) == round(share * len(TRAIN))
    assert set(false) <= set(TRAIN)
    assert set(noisy) <= {0, 1, 2}


def test_a_label_that_is_false_stays_so_at_a_larger_share_and_true_labels_are_untouched() -> None:
    less, more = (with_noise(LABELS, TRAIN, share, n_classes=3, seed=5) for share in (0.1, 0.4))
    false = less != LABELS

    assert (less[false] == more[false]).all()
    assert with_noise(LABELS, TRAIN, 0.0, n_classes=3, seed=5) is LABELS
