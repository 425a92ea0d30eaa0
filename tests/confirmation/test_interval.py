"""Student's t against tables in textbooks."""

import math

import pytest

from tlopt.confirmation.interval import IMAGES_MIN, half_width, t_quantile, t_within


@pytest.mark.parametrize(
    ("df", "quantile"),
    [
        (1, 12.706),
        (2, 4.303),
        (3, 3.182),
        (4, 2.776),
        (5, 2.571),
        (9, 2.262),
        (10, 2.228),
        (29, 2.045),
        (49, 2.010),
    ],
)
def test_quantiles_are_those_of_the_tables(df: int, quantile: float) -> None:
    assert t_quantile(df) == pytest.approx(quantile, abs=5e-4)


@pytest.mark.parametrize(("df", "quantile"), [(2, 9.925), (3, 5.841), (10, 3.169)])
def test_another_confidence_has_another_quantile(df: int, quantile: float) -> None:
    assert t_quantile(df, 0.99) == pytest.approx(quantile, abs=5e-4)


def test_closed_forms_of_one_and_two_degrees_of_freedom() -> None:
    assert t_within(1.0, 1) == pytest.approx(0.5)  # Cauchy
    assert t_within(math.sqrt(2), 2) == pytest.approx(math.sqrt(0.5))


def test_the_half_width_of_three_values() -> None:
    assert half_width(1.0, 3) == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)


def test_one_value_has_no_interval() -> None:
    assert math.isnan(half_width(math.nan, 1))


def test_six_images_are_the_fewest_that_a_sign_test_calls_significant() -> None:
    assert 2 * 0.5**IMAGES_MIN < 0.05 < 2 * 0.5 ** (IMAGES_MIN - 1)
