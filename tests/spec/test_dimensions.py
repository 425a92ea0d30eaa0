"""Dimensions: parsing, membership, and the encoding of "off"."""

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tlopt.spec.dimensions import (
    OFF_SHARE,
    Choice,
    Dimension,
    Fixed,
    Int,
    Log,
    Uniform,
    as_toml,
    at,
    bounds,
    contains,
    parse,
    position,
)

shares = st.floats(0, 1)


@st.composite
def logs(draw: st.DrawFn, zero: bool | None = None) -> Log:
    low = draw(st.floats(1e-8, 10))
    high = low * draw(st.floats(1.5, 1e6))
    return Log(low, high, draw(st.booleans()) if zero is None else zero)


@st.composite
def uniforms(draw: st.DrawFn) -> Uniform:
    low = draw(st.floats(-10, 10))
    return Uniform(low, low + draw(st.floats(0.1, 100)))


@pytest.mark.parametrize(
    ("raw", "dimension"),
    [
        (0.9, Fixed(0.9)),
        (3, Fixed(3)),
        (True, Fixed(True)),
        ("cosine", Fixed("cosine")),
        ({"int": [0, 17]}, Int(0, 17)),
        ({"uniform": [0, 1]}, Uniform(0.0, 1.0)),
        ({"log": [1e-4, 1]}, Log(1e-4, 1.0)),
        ({"log": [1e-4, 1], "zero": True}, Log(1e-4, 1.0, True)),
        ({"log": [1e-4, 1], "zero": False}, Log(1e-4, 1.0)),
        ({"choice": ["a", "b"]}, Choice(("a", "b"))),
    ],
)
def test_a_plain_value_is_fixed_and_a_table_is_searched(raw: object, dimension: Dimension) -> None:
    assert parse(raw) == dimension


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ([1, 2], r"^\[1, 2\] is neither a plain value \(fixed\) nor a table \(searched\)$"),
        ({}, "a table with one of int, uniform, log, choice"),
        ({"lin": [0, 1]}, r"not \{ lin = \[0, 1\] \}$"),
        ({"int": [0, 1], "log": [1, 2]}, "one of int, uniform, log, choice"),
        ({"log": [0.1, 1], "zer": True}, r"\{ log = \[0.1, 1\], zer = true \}$"),
        ({"uniform": [0.1, 1], "zero": True}, "zero = true or false goes with log only"),
        ({"log": [0.1, 1], "zero": 1}, "zero = true or false"),
        ({"int": [0, 2.5]}, r"^int is a list of two whole numbers, \[low, high\], not \[0, 2.5\]$"),
        ({"int": [False, True]}, "two whole numbers"),
        ({"uniform": [0, 1, 2]}, "^uniform is a list of two finite numbers"),
        ({"uniform": 3}, "two finite numbers"),
        ({"uniform": ["a", "b"]}, r"not \['a', 'b'\]$"),
        ({"log": [1, math.inf]}, "two finite numbers"),
        ({"log": [math.nan, 1]}, "two finite numbers"),
        ({"int": [5, 2]}, r"^the range int = \[5, 2\] is empty: low must be below high; write \[2, 5\]$"),
        ({"uniform": [2, 2]}, "a single value is written plainly$"),
        ({"log": [0, 1]}, r"must start above 0, not at 0; write zero = true beside it to search 0 too$"),
        ({"log": [-1, 1]}, "must start above 0, not at -1$"),
        ({"choice": ["a"]}, "^choice is a list of at least two values"),
        ({"choice": "ab"}, "at least two values, not 'ab'$"),
        ({"choice": [1, 1.0]}, "names a value twice"),
        ({"choice": [1, [2]]}, "plain values only"),
    ],
)
def test_a_mistake_is_told_with_what_would_be_right(raw: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(raw)


@pytest.mark.parametrize(
    ("dimension", "inside", "outside"),
    [
        (Fixed(0.5), [0.5], [0.4, "a"]),
        (Int(2, 4), [2, 3, 4], [1, 5, 2.0, "3"]),
        (Uniform(0.0, 1.0), [0, 0.5, 1], [-0.1, 1.1, math.nan, "0.5"]),
        (Log(0.1, 1.0), [0.1, 1], [0, 0.05, 2, "0.1"]),
        (Log(0.1, 1.0, True), [0, 0.1, 1], [0.05, 2, -1]),
        (Choice(("a", 1)), ["a", 1], ["b", 2]),
    ],
)
def test_a_dimension_contains_what_can_be_drawn_from_it(
    dimension: Dimension, inside: list[float], outside: list[float]
) -> None:
    assert all(contains(dimension, value) for value in inside)
    assert not any(contains(dimension, value) for value in outside)


@pytest.mark.parametrize(
    ("dimension", "ends"),
    [
        (Fixed(3), (3,)),
        (Int(2, 4), (2, 4)),
        (Uniform(0.1, 1.0), (0.1, 1.0)),
        (Log(0.1, 1.0), (0.1, 1.0)),
        (Log(0.1, 1.0, True), (0.0, 0.1, 1.0)),
        (Choice(("a", "b", "c")), ("a", "b", "c")),
    ],
)
def test_bounds_are_the_ends_or_every_option(dimension: Dimension, ends: tuple[object, ...]) -> None:
    assert bounds(dimension) == ends
    assert all(contains(dimension, value) for value in bounds(dimension))


@given(logs() | uniforms(), shares)
def test_every_position_gives_a_value_of_the_dimension(dimension: Log | Uniform, share: float) -> None:
    assert contains(dimension, at(dimension, share))


@given(logs() | uniforms(), shares)
def test_a_position_and_its_value_are_inverse(dimension: Log | Uniform, share: float) -> None:
    value = at(dimension, share)

    assert at(dimension, position(dimension, value)) == pytest.approx(value, rel=1e-9, abs=1e-12)
    if value != 0:
        assert position(dimension, value) == pytest.approx(share, abs=1e-8)


@given(st.integers(1, 999), st.integers(-7, -1), st.integers(1, 5), st.booleans(), shares)
def test_a_number_of_few_digits_comes_back_from_its_position_unchanged(
    digits: int, exponent: int, decades: int, zero: bool, share: float
) -> None:
    dimension = Log(float(f"{digits}e{exponent}"), float(f"{digits}e{exponent + decades}"), zero)
    between = dimension.low * (dimension.high / dimension.low) ** share

    for value in (dimension.low, dimension.high, float(f"{between:.3g}")):
        assume(contains(dimension, value))
        assert at(dimension, position(dimension, value)) == value


@given(logs(zero=True), shares)
def test_off_is_the_lowest_share_of_the_positions(dimension: Log, share: float) -> None:
    assume(abs(share - OFF_SHARE) > 1e-9)

    assert (at(dimension, share) == 0) == (share < OFF_SHARE)


@given(logs(zero=True))
def test_the_off_part_is_its_share_of_the_logarithmic_range(dimension: Log) -> None:
    off = math.log(dimension.low / dimension.drawn_low)
    whole = math.log(dimension.high / dimension.drawn_low)

    assert off / whole == pytest.approx(OFF_SHARE)


@given(logs(zero=True))
def test_off_is_encoded_as_a_draw_that_means_zero_in_the_middle_of_its_part(dimension: Log) -> None:
    drawn = dimension.encode(0.0)

    assert dimension.drawn_low < drawn < dimension.low
    assert dimension.decode(drawn) == 0
    assert position(dimension, 0.0) == pytest.approx(OFF_SHARE / 2)


@given(logs(), shares)
def test_a_value_within_the_range_is_drawn_as_itself(dimension: Log, share: float) -> None:
    value = min(max(dimension.low * (dimension.high / dimension.low) ** share, dimension.low), dimension.high)

    assert dimension.decode(dimension.encode(value)) == value


@given(logs(zero=False))
def test_without_zero_no_draw_is_off(dimension: Log) -> None:
    assert dimension.drawn_low == dimension.low
    assert dimension.decode(math.nextafter(dimension.low, 0)) > 0
    assert at(dimension, 0.0) == pytest.approx(dimension.low)


def test_a_fixed_value_is_at_every_position() -> None:
    assert [at(Fixed(3), share) for share in (0.0, 1.0)] == [3.0, 3.0]
    assert position(Fixed(3), 3.0) == 0.5


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (1e-4, "0.0001"),
        ("a", "'a'"),
        ([1, "b"], "[1, 'b']"),
        ({"log": [1, 2], "zero": False}, "{ log = [1, 2], zero = false }"),
    ],
)
def test_values_are_shown_as_a_study_file_has_them(value: object, text: str) -> None:
    assert as_toml(value) == text
