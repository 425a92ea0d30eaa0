"""Planted curves: an optimum inside, at an end, flat, two peaks; and how often a statement is wrong."""

import math

import numpy as np
import pytest

from tlopt.analysis.curves import chosen_on_others
from tlopt.analysis.shape import Place, is_above, paired, possible_best, shape_of

INSIDE = [0.5, 0.7, 0.8, 0.7, 0.5]
RISING = [0.5, 0.6, 0.7, 0.8, 0.9]
TWO_PEAKS = [0.5, 0.8, 0.6, 0.8, 0.5]
FLAT = [0.7] * 5


def planted(means: list[float], *, noise: float, seeds: int = 5, seed: int = 1) -> np.ndarray:
    """Values (places, seeds): a level of each seed, which pairs cancel, and noise of each run."""
    rng = np.random.default_rng(seed)
    levels = rng.normal(0, 0.1, seeds)
    return np.array(means)[:, None] + levels + rng.normal(0, noise, (len(means), seeds))


@pytest.mark.parametrize(
    ("means", "place", "possible"),
    [
        (INSIDE, "inside", (2,)),
        (RISING, "last", (4,)),
        (RISING[::-1], "first", (0,)),
        (FLAT, "both", (0, 1, 2, 3, 4)),
        ([0.8, 0.8, 0.6, 0.5, 0.4], "near first", (0, 1)),
        ([0.4, 0.5, 0.6, 0.8, 0.8], "near last", (3, 4)),
        (TWO_PEAKS, "inside", (1, 3)),
    ],
)
def test_the_place_of_a_planted_optimum_is_found(
    means: list[float], place: Place, possible: tuple[int, ...]
) -> None:
    shape = shape_of(planted(means, noise=0.005))

    assert (shape.place, shape.possible) == (place, possible)


@pytest.mark.parametrize("means", [INSIDE, RISING, TWO_PEAKS])
def test_nothing_is_told_where_noise_covers_the_curve(means: list[float]) -> None:
    shape = shape_of(planted(means, noise=0.5))

    assert shape.place == "both"
    assert shape.dip is None
    assert shape.ends is not None
    assert not shape.ends.is_told


@pytest.mark.parametrize("means", [INSIDE, RISING, RISING[::-1], FLAT])
def test_one_peak_or_none_is_no_dip(means: list[float]) -> None:
    assert shape_of(planted(means, noise=0.005)).dip is None


def test_a_dip_between_two_peaks_is_found_with_both() -> None:
    assert shape_of(planted(TWO_PEAKS, noise=0.005)).dip == (1, 2, 3)
    assert shape_of(planted(TWO_PEAKS, noise=0.005), higher_is_better=False).dip is not None  # at a peak


def test_of_a_loss_the_lowest_is_the_optimum() -> None:
    shape = shape_of(-planted(INSIDE, noise=0.005), higher_is_better=False)

    assert (shape.best, shape.place) == (2, "inside")


def test_the_ends_differ_by_their_paired_mean_and_interval() -> None:
    shape = shape_of(np.array([[0.1, 0.5, 0.9], [0.3, 0.3, 0.3], [0.2, 0.7, 1.2]]))

    assert shape.ends is not None
    assert shape.ends.mean == pytest.approx(0.2)
    assert shape.ends.half_width == pytest.approx(4.303 * 0.1 / math.sqrt(3), rel=1e-3)
    assert not shape.ends.is_told


def test_a_single_seed_tells_nothing() -> None:
    shape = shape_of(np.array([[0.1], [0.9], [0.5]]))

    assert (shape.best, shape.place, shape.dip) == (1, "unknown", None)
    assert shape.possible == (0, 1, 2)


def test_missing_runs_leave_the_pairs_of_others() -> None:
    difference = paired(np.array([0.5, np.nan, 0.7]), np.array([0.4, 0.1, np.nan]))

    assert difference is not None
    assert (difference.mean, difference.n) == (pytest.approx(0.1), 1)
    assert paired(np.array([np.nan]), np.array([1.0])) is None


def test_equal_gains_of_less_than_an_image_are_no_proof() -> None:
    ahead, behind = np.full(3, 0.52), np.full(3, 0.50)

    assert is_above(ahead, behind, error=0.05)
    assert not is_above(ahead, behind, error=0.05, step=1 / 20)


@pytest.mark.parametrize("means", [FLAT, INSIDE, RISING, [0.5, 0.55, 0.55, 0.55, 0.5]])
def test_the_optimum_is_excluded_from_at_most_one_curve_in_twenty(means: list[float]) -> None:
    best = [i for i, mean in enumerate(means) if mean == max(means)]
    n, wrong = 400, 0
    for seed in range(n):
        possible = possible_best(planted(means, noise=0.05, seed=seed))
        wrong += any(place not in possible for place in best[:1])

    assert wrong <= 0.05 * n + 2 * math.sqrt(n * 0.05 * 0.95)


@pytest.mark.parametrize("means", [FLAT, INSIDE, RISING])
def test_a_dip_is_seen_where_there_is_none_in_at_most_one_curve_in_twenty(means: list[float]) -> None:
    n = 400
    wrong = sum(shape_of(planted(means, noise=0.05, seed=seed)).dip is not None for seed in range(n))

    assert wrong <= 0.05 * n + 2 * math.sqrt(n * 0.05 * 0.95)


def test_of_recipes_without_a_difference_few_are_excluded_although_their_points_were_chosen() -> None:
    rng = np.random.default_rng(0)
    n_points, n = (1, 12, 12), 300
    wrong = naive = 0
    for _ in range(n):
        points = [rng.normal(0, 0.05, (k, 8)) for k in n_points]
        chosen = np.array([chosen_on_others(each, "maximize") for each in points])
        naive += len(possible_best(chosen)) < 3
        wrong += len(possible_best(chosen, choices=points)) < 3

    assert naive / n > 0.12  # t tests of chosen values alone
    assert wrong / n < 0.05


def test_a_recipe_that_is_better_is_still_told_from_one_point() -> None:
    rng = np.random.default_rng(0)
    points = [rng.normal(0.6, 0.02, (1, 5)), rng.normal([[0.6], [0.9], [0.6]], 0.02, (3, 5))]
    chosen = np.array([chosen_on_others(each, "maximize") for each in points])

    assert possible_best(chosen, choices=points) == (1,)
