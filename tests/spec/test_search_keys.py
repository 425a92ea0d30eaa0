"""The table of searched keys: defaults are allowed, bounds hold, refusals say what is allowed."""

import re
from dataclasses import fields

import pytest

from tlopt.spec.dimensions import Choice, Dimension, Fixed, Int, Log, Uniform
from tlopt.spec.point import Point
from tlopt.spec.search_keys import DEFAULT_L2, OPTIMIZERS, PROBE_LR, RULES, Depth, Number, Word, checked

DEPTHS = [name for name, rule in RULES.items() if isinstance(rule, Depth)]
WHOLE = [name for name, rule in RULES.items() if isinstance(rule, Number) and rule.whole and not rule.odd]
ODD = [name for name, rule in RULES.items() if isinstance(rule, Number) and rule.odd]
REAL = [name for name, rule in RULES.items() if isinstance(rule, Number) and not rule.whole]
WORDS = [name for name, rule in RULES.items() if isinstance(rule, Word)]


def test_the_keys_are_those_of_a_point_but_the_backbone() -> None:
    assert set(RULES) == {field.name for field in fields(Point)} - {"backbone"}


@pytest.mark.parametrize("name", [name for name, rule in RULES.items() if rule.default is not None])
def test_a_default_is_allowed_and_of_the_keys_own_type(name: str) -> None:
    default = Fixed(RULES[name].default)  # type: ignore[arg-type]

    assert repr(checked(name, default)) == repr(default)


@pytest.mark.parametrize("table", [DEFAULT_L2, PROBE_LR])
def test_a_value_for_each_optimiser_names_them_all(table: dict[str, float]) -> None:
    assert tuple(table) == OPTIMIZERS


@pytest.mark.parametrize("name", [*WHOLE, *ODD, *REAL])
def test_both_ends_are_allowed_and_nothing_beyond(name: str) -> None:
    rule = RULES[name]
    assert isinstance(rule, Number)
    kind = int if rule.whole else float
    beyond = 1 + rule.odd if rule.whole else 1e-9

    checked(name, Fixed(kind(rule.low)))
    with pytest.raises(ValueError, match=re.escape(rule.allowed)):
        checked(name, Fixed(kind(rule.low) - beyond))
    checked(name, Fixed(kind(rule.high)))
    with pytest.raises(ValueError, match=re.escape(rule.allowed)):
        checked(name, Fixed(kind(rule.high * 1.01 + 1)))


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1, -0.5, True, "fast"])
def test_nonsense_is_refused_for_every_key(name: str, value: float) -> None:
    with pytest.raises(ValueError, match="is not allowed: "):
        checked(name, Fixed(value))


@pytest.mark.parametrize("name", REAL)
def test_one_is_one_point_nought_for_a_real_number(name: str) -> None:
    value = 1 if not RULES[name].refuse(1) else 0

    assert repr(checked(name, Fixed(value))) == repr(Fixed(float(value)))
    assert repr(checked(name, Choice((value, 0.5)))) == repr(Choice((float(value), 0.5)))


@pytest.mark.parametrize("name", DEPTHS)
@pytest.mark.parametrize(
    "dimension",
    [Fixed(1), Fixed(3), Fixed(1.0), Int(1, 17), Uniform(0.0, 1.0), Choice((1, 4)), Choice((0.0, 0.5))],
)
def test_a_depth_counts_blocks_or_is_a_fraction_and_stays_what_it_is(name: str, dimension: Dimension) -> None:
    assert repr(checked(name, dimension)) == repr(dimension)


@pytest.mark.parametrize(
    ("name", "dimension", "message"),
    [
        ("transfer_depth", Fixed(1.5), "1.5 is not allowed: a whole number of blocks from 0, or a fraction"),
        ("transfer_depth", Uniform(0.0, 5.0), "5.0 is not allowed"),
        ("transfer_depth", Choice((1, 0.5)), "mixes whole numbers"),
        ("transfer_depth", Log(0.1, 1.0), "int, uniform or choice, not log"),
        ("batch_size", Log(2.0, 64.0), "2.0 is not allowed: a whole number from 2 to 65536"),
        ("epochs", Fixed(2.0), "2.0 is not allowed: a whole number from 1 to 100000"),
        ("lr", Int(1, 5), "a real number is searched with uniform, log or choice"),
        ("l2", Log(1e-3, 1e5, True), "100000.0 is not allowed: a number from 0 to 10000"),
        ("lr", Log(1e-3, 1.0, True), "0.0 is not allowed: a number from 1e-08 to 100"),
        ("schedule", Fixed("cosinus"), '\'cosinus\' is not allowed: one of "cosine", "linear", "constant"'),
        ("optimizer", Choice(("sgd", "adam")), "'adam' is not allowed"),
        ("optimizer", Int(0, 1), "0 is not allowed"),
        ("warmup_fraction", Fixed(True), "true is not allowed"),
    ],
)
def test_a_refusal_names_the_value_and_what_is_allowed(name: str, dimension: Dimension, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}|{message}$"):
        checked(name, dimension)


@pytest.mark.parametrize("name", [name for name in DEPTHS if name != "backbone_depth"])
@pytest.mark.parametrize("dimension", [Fixed(0), Int(0, 17), Choice((0, 4))])
def test_no_blocks_are_a_depth_except_of_the_backbone(name: str, dimension: Dimension) -> None:
    assert repr(checked(name, dimension)) == repr(dimension)
    with pytest.raises(ValueError, match="0 is not allowed: a whole number of blocks from 1"):
        checked("backbone_depth", dimension)


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_number_is_searched_as_one(name: str) -> None:
    assert checked(name, Int(8, 16) if not name.endswith("_layers") else Int(0, 3))


@pytest.mark.parametrize("name", ODD)
def test_an_odd_number_is_listed(name: str) -> None:
    assert checked(name, Choice((1, 3)))
    for dimension in (Int(1, 3), Choice((1, 2)), Fixed(2)):
        with pytest.raises(ValueError, match="odd number"):
            checked(name, dimension)


def test_only_rates_and_pulls_have_ranges_for_each_optimiser() -> None:
    assert [name for name, rule in RULES.items() if rule.per_optimizer] == [
        "lr",
        "l2_sp",
        "l2",
        "l2_anchored",
    ]


@pytest.mark.parametrize("name", RULES)
def test_every_key_says_what_it_means_and_what_is_allowed(name: str) -> None:
    assert RULES[name].meaning
    assert RULES[name].allowed
