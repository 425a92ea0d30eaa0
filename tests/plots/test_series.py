"""Series in figures, with planted numbers."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from tlopt.plots.axes import cost_axis, even_ticks, log_axis, log_ticks
from tlopt.plots.series import MEDIAN_POINTS_MIN, best_so_far, evenly, running_median, value_limits
from tlopt.system.words import si_words

VALUES = st.lists(st.none() | st.floats(-1e6, 1e6), max_size=40)


def test_the_best_so_far_ignores_trials_without_a_value() -> None:
    best = best_so_far([None, 0.3, 0.2, None, 0.5], "maximize")

    np.testing.assert_array_equal(best, [np.nan, 0.3, 0.3, 0.3, 0.5])


def test_the_best_log_loss_is_the_lowest() -> None:
    np.testing.assert_array_equal(best_so_far([0.9, 1.2, 0.4], "minimize"), [0.9, 0.9, 0.4])


@given(VALUES)
def test_the_best_so_far_never_gets_worse(values: list[float | None]) -> None:
    best = best_so_far(values, "maximize")
    there = best[~np.isnan(best)]

    assert len(best) == len(values)
    assert (np.diff(there) >= 0).all()


def test_the_running_median_at_one_depth_includes_all_its_trials() -> None:
    x = np.repeat([0.0, 5.0], 20)
    y = np.concatenate([np.arange(20.0), 100 + np.arange(20.0)])

    at, medians = running_median(x, y)

    np.testing.assert_array_equal(at, [0.0, 5.0])
    np.testing.assert_array_equal(medians, [9.5, 109.5])


def test_few_points_have_no_running_median() -> None:
    few = np.arange(MEDIAN_POINTS_MIN - 1.0)

    assert [len(part) for part in running_median(few, few)] == [0, 0]


@given(st.integers(0, 500), st.integers(2, 50), st.sets(st.integers(0, 4)))
def test_the_number_of_drawn_points_is_bounded_and_kept_points_are_among_them(
    n: int, n_max: int, keep: set[int]
) -> None:
    keep = {index for index in keep if index < n}

    chosen = evenly(n, n_max, keep=keep).tolist()

    assert keep <= set(chosen) or n <= n_max
    assert len(chosen) <= n_max + len(keep)
    assert chosen == sorted(set(chosen))
    assert n == 0 or {chosen[0], chosen[-1]} == {0, n - 1}


@pytest.mark.parametrize(("direction", "astray"), [("minimize", 50.0), ("maximize", -50.0)])
def test_one_outlier_among_many_values_does_not_stretch_the_axis(direction: str, astray: float) -> None:
    low, high = value_limits(np.array([*np.linspace(0.4, 0.6, 60), astray]), direction)

    assert -1 < low < 0.45
    assert 0.55 < high < 1


def test_an_axis_shows_all_of_few_values() -> None:
    low, high = value_limits(np.array([0.1, 0.8, np.nan]), "maximize")

    assert low < 0.1 < 0.8 < high


@given(st.floats(1e-8, 1e3), st.floats(1.0, 1e9))
def test_a_logarithmic_axis_has_few_ticks_all_within_it(low: float, ratio: float) -> None:
    high = low * ratio
    ticks = log_ticks(low, high)

    assert 1 <= len(ticks) <= 6
    assert all(low * 0.99 <= tick <= high * 1.01 for tick in ticks)


def test_a_tick_at_a_sampled_value_has_three_digits() -> None:
    figure = Figure()
    axes = figure.subplots()

    log_axis(axes, np.array([0.0, 3.7877577, 3.7877577]), colour="grey")

    figure.canvas.draw()
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "3.79"]


@given(st.floats(0.05, 1e12), st.floats(1.0, 1e6))
def test_a_cost_axis_has_at_least_two_different_ticks(low: float, ratio: float) -> None:
    axes = Figure().subplots()

    cost_axis(axes, np.array([low, low * ratio]), partial(si_words, form=".6g"))

    first, last = axes.get_xlim()
    ticks = [float(tick) for tick in axes.xaxis.get_majorticklocs() if first <= tick <= last]
    assert first < low <= low * ratio < last
    assert 2 <= len(ticks) <= 7
    assert len({axes.xaxis.get_major_formatter()(tick, None) for tick in ticks}) == len(ticks)


@given(st.floats(-50, 50), st.floats(1, 100))
def test_an_even_axis_has_few_round_ticks_all_within_it(low: float, width: float) -> None:
    ticks = even_ticks(low, low + width, whole=width > 3)

    assert 1 <= len(ticks) <= 7
    assert all(low - 1e-6 <= tick <= low + width + 1e-6 for tick in ticks)
    assert width <= 3 or all(tick == round(tick) for tick in ticks)
