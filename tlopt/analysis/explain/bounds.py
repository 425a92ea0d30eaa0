"""Ends of new ranges: as far as a key allows, and rounded so that no trial is lost to rounding."""

import math
from dataclasses import dataclass, replace
from typing import assert_never

from tlopt.analysis.explain.ends import End
from tlopt.analysis.explain.observations import Key
from tlopt.spec.dimensions import LOG_LOW_MIN, OFF_SHARE, Int, Log, Uniform
from tlopt.spec.search_keys import RULES, Depth, Number

EXTENDED = 0.5  # share of its length by which a range is extended

Range = Int | Uniform | Log


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a study's keys may be, beyond the rule of each key.

    Attributes:
        n_blocks: of the smallest backbone; None if unknown.
        epochs_max: budget.epochs.
    """

    n_blocks: int | None
    epochs_max: int


def allowed(key: Key, limits: Limits) -> tuple[float, float] | None:
    """The lowest and highest value of a key; None for depths in blocks if their number is unknown."""
    rule, dimension = RULES[key.name], key.dimension
    match rule:
        case Depth() if isinstance(dimension, Int):
            return None if limits.n_blocks is None else (rule.low, limits.n_blocks)
        case Depth():
            return 0.0, 1.0
        case Number():
            high = min(rule.high, limits.epochs_max) if key.name == "epochs" else rule.high
            return (max(rule.low, rule.least) if isinstance(dimension, Log) else rule.low), high
        case _:
            raise TypeError(f"{key.name} has no order")


def beyond(dimension: Range, end: End, limit: float) -> float | None:
    """The end of the range extended by half of its length, at most up to `limit`; None if it is there."""
    if (dimension.high >= limit) if end == "high" else (dimension.low <= limit):
        return None
    match dimension:
        case Int(low, high):
            steps = math.ceil(EXTENDED * (high - low))
            wanted = float(high + steps if end == "high" else low - steps)
        case Uniform(low, high):
            step = EXTENDED * (high - low)
            wanted = high + step if end == "high" else low - step
            wanted = _in_units(wanted, high - low, up=end == "high")
        case Log(low, high):
            factor = (high / low) ** EXTENDED
            up = end == "high"
            wanted = _one_digit(high * factor if up else low / factor, up=up)
    return min(wanted, limit) if end == "high" else max(wanted, limit)


def cut(dimension: Range, end: End, border: float) -> float:
    """The value at which the range ends when it is cut at position `border`, rounded outwards."""
    off = OFF_SHARE if isinstance(dimension, Log) and dimension.zero else 0.0
    inner = min(max((border - off) / (1 - off), 0.0), 1.0)
    up = end == "high"
    match dimension:
        case Int(low, high):
            value = low + inner * (high - low)
            return math.ceil(value) if up else math.floor(value)
        case Uniform(low, high):
            rounded = _in_units(low + inner * (high - low), high - low, up=up)
        case Log(low, high):
            rounded = _one_digit(low * (high / low) ** inner, up=up)
    return min(max(rounded, dimension.low), dimension.high)


def with_ends(dimension: Range, low: float, high: float) -> Range:
    """The range with other ends."""
    match dimension:
        case Int():
            return replace(dimension, low=int(low), high=int(high))
        case Uniform() | Log():
            return replace(dimension, low=float(low), high=float(high))
        case _:
            assert_never(dimension)


def _in_units(value: float, width: float, *, up: bool) -> float:
    """A value rounded up or down to a hundredth of a range's order of magnitude or more."""
    unit = 10.0 ** (math.floor(math.log10(width)) - 1)
    share = round(value / unit, 6)
    return float(f"{(math.ceil(share) if up else math.floor(share)) * unit:.12g}")


def _one_digit(value: float, *, up: bool) -> float:
    """A positive value rounded to one significant digit, up or down."""
    power = math.floor(math.log10(value))
    unit = 10.0**power
    share = round(value / unit, 9)
    digit = math.ceil(share) if up else math.floor(share)
    return max(float(f"{digit}e{power}"), LOG_LOW_MIN)
