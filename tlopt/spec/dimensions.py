"""One dimension of a search: a fixed value, or a range that a sampler draws from.

In a study file, a plain value is fixed and a table is searched::

    momentum = 0.9                                      # Fixed
    transfer_depth = { int = [0, 17] }                  # Int, both ends included
    mixup = { uniform = [0.0, 0.4] }                    # Uniform
    l2_sp = { log = [1e-4, 1.0], zero = true }          # Log; "off" is a searched choice
    schedule = { choice = ["cosine", "constant"] }      # Choice

`zero = true` has one static encoding, so that the sampler sees one ordered axis: the logarithmic range is
extended downwards by `OFF_SHARE` of the new length, and every draw below `low` means 0.
"""

import math
from dataclasses import dataclass
from typing import assert_never, cast

# The range is extended downwards for "off", and must stay within the range of a double.
LOG_LOW_MIN = 1e-30
OFF_SHARE = 0.2  # prior probability of "off" where zero = true

Scalar = bool | int | float | str


@dataclass(frozen=True)
class Fixed:
    """A value that is not searched."""

    value: Scalar


@dataclass(frozen=True)
class Int:
    """Integers from `low` to `high`, both included."""

    low: int
    high: int


@dataclass(frozen=True)
class Uniform:
    """Real numbers from `low` to `high`."""

    low: float
    high: float


@dataclass(frozen=True)
class Log:
    """Real numbers from `low` to `high`, uniform in their logarithm; with `zero`, also exactly 0."""

    low: float
    high: float
    zero: bool = False

    @property
    def drawn_low(self) -> float:
        """Lower end of the drawn range: `low`, or with `zero` the lower end of the part that means "off"."""
        if not self.zero:
            return self.low
        return float(self.low * (self.low / self.high) ** (OFF_SHARE / (1 - OFF_SHARE)))

    def decode(self, drawn: float) -> float:
        """The value of a draw: the draw itself, or 0 below `low` (with `zero`)."""
        return 0.0 if self.zero and drawn < self.low else drawn

    def encode(self, value: float) -> float:
        """A draw that decodes to `value`; 0 is encoded as the geometric mean of the "off" part."""
        return math.sqrt(self.drawn_low * self.low) if value == 0 else value


@dataclass(frozen=True)
class Choice:
    """One of `options`, which have no order."""

    options: tuple[Scalar, ...]


Dimension = Fixed | Int | Uniform | Log | Choice


def contains(dimension: Dimension, value: Scalar) -> bool:
    """Whether the search can draw `value`."""
    match dimension:
        case Fixed(fixed):
            return value == fixed
        case Choice(options):
            return value in options
        case Int(low, high):
            return isinstance(value, int) and low <= value <= high
        case Uniform(low, high):
            return not isinstance(value, str) and low <= value <= high
        case Log(low, high, zero):
            return not isinstance(value, str) and (low <= value <= high or (zero and value == 0))
        case _:
            assert_never(dimension)


def bounds(dimension: Dimension) -> tuple[Scalar, ...]:
    """The values to check if a dimension is to be allowed: its ends, or every option."""
    match dimension:
        case Fixed(value):
            return (value,)
        case Choice(options):
            return options
        case Int(low, high) | Uniform(low, high):
            return (low, high)
        case Log(low, high, zero):
            return (0.0, low, high) if zero else (low, high)
        case _:
            assert_never(dimension)


def at(dimension: Fixed | Uniform | Log, position: float) -> float:
    """The value at `position` in [0, 1] of the range; with `zero`, 0 below `OFF_SHARE`.

    Rounded to twelve digits, so that a value with at most twelve digits survives a round trip through
    `position`.
    """
    match dimension:
        case Fixed(value):
            return float(value)
        case Uniform(low, high):
            return _rounded(low + position * (high - low), dimension)
        case Log(low, high, zero):
            off = OFF_SHARE if zero else 0.0
            if position < off - 1e-12:  # tolerance for rounding in `position` of `low`
                return 0.0
            return _rounded(low * (high / low) ** ((position - off) / (1 - off)), dimension)
        case _:
            assert_never(dimension)


def position(dimension: Fixed | Uniform | Log, value: float) -> float:
    """The position of `value` in the range, in [0, 1]; the inverse of `at` (0.5 for a fixed value)."""
    match dimension:
        case Fixed():
            return 0.5
        case Uniform(low, high):
            return (value - low) / (high - low)
        case Log(_, high):
            start = math.log(dimension.drawn_low)
            return (math.log(dimension.encode(value)) - start) / (math.log(high) - start)
        case _:
            assert_never(dimension)


def _rounded(value: float, dimension: Uniform | Log) -> float:
    return min(max(float(f"{value:.12g}"), dimension.low), dimension.high)


def parse(raw: object) -> Dimension:
    """The dimension given by a TOML value.

    Raises:
        ValueError: the value is invalid; the message gives the cure, but not the key's name.
    """
    if isinstance(raw, (bool, int, float, str)):
        return Fixed(raw)
    if not isinstance(raw, dict):
        raise ValueError(f"{as_toml(raw)} is neither a plain value (fixed) nor a table (searched)")
    kinds = [key for key in raw if key in ("int", "uniform", "log", "choice")]
    unknown = sorted(set(raw) - {"int", "uniform", "log", "choice", "zero"})
    if len(kinds) != 1 or unknown:
        raise ValueError(
            f"a searched key is a table with one of int, uniform, log, choice"
            f" (and zero = true beside log), not {as_toml(raw)}"
        )
    kind = kinds[0]
    if "zero" in raw and (kind != "log" or not isinstance(raw["zero"], bool)):
        raise ValueError("zero = true or false goes with log only; the other ranges may contain 0 themselves")
    if kind == "choice":
        return _parse_choice(raw["choice"])
    low, high = _parse_ends(kind, raw[kind])
    if kind == "int":
        return Int(int(low), int(high))
    if kind == "uniform":
        return Uniform(float(low), float(high))
    if low <= 0:
        hint = "; write zero = true beside it to search 0 too" if low == 0 else ""
        raise ValueError(f"a log range must start above 0, not at {low}{hint}")
    if low < LOG_LOW_MIN:
        raise ValueError(f"a log range starts at {LOG_LOW_MIN:g} or above, not at {low:g}")
    return Log(float(low), float(high), bool(raw.get("zero", False)))


def _parse_choice(options: object) -> Choice:
    if not isinstance(options, list) or len(options) < 2:
        raise ValueError(f"choice is a list of at least two values, not {as_toml(options)}")
    if not all(isinstance(option, (bool, int, float, str)) for option in options):
        raise ValueError(f"choice holds plain values only, not {as_toml(options)}")
    if len(set(options)) != len(options):
        raise ValueError(f"choice names a value twice: {as_toml(options)}")
    return Choice(tuple(options))


def _parse_ends(kind: str, ends: object) -> tuple[int | float, int | float]:
    numbers = (int,) if kind == "int" else (int, float)
    ok = (
        isinstance(ends, list)
        and len(ends) == 2
        and all(isinstance(end, numbers) and not isinstance(end, bool) for end in ends)
        and all(math.isfinite(end) for end in ends)
    )
    if not ok:
        noun = "whole numbers" if kind == "int" else "finite numbers"
        raise ValueError(f"{kind} is a list of two {noun}, [low, high], not {as_toml(ends)}")
    low, high = cast(list[int | float], ends)
    if low >= high:
        advice = "a single value is written plainly" if low == high else f"write [{high}, {low}]"
        raise ValueError(f"the range {kind} = [{low}, {high}] is empty: low must be below high; {advice}")
    return low, high


def as_toml(value: object) -> str:
    """`value` as written in a study file."""
    match value:
        case dict():
            return "{ " + ", ".join(f"{key} = {as_toml(item)}" for key, item in value.items()) + " }"
        case list():
            return "[" + ", ".join(as_toml(item) for item in value) + "]"
        case bool():
            return str(value).lower()
        case str():
            return repr(value)
        case _:
            return str(value)
