"""Wording of effects, values and places along a key."""

from tlopt.analysis.explain.observations import Key
from tlopt.analysis.explain.surface import Interval
from tlopt.spec import PerOptimizer
from tlopt.spec.dimensions import Log, Scalar
from tlopt.spec.objectives import scale_of


def difference_words(found: Interval, objective: str) -> str:
    """A difference with its interval, as in "2.1 points (0.8 to 3.5)"; without a sign where it has none."""
    largest = max(abs(found.low), abs(found.high))
    scale, digits = scale_of(objective, largest)
    unit = "" if scale == 1 else " points"
    mean, low, high = (f"{scale * value:.{digits}f}" for value in (found.mean, found.low, found.high))
    return f"{mean}{unit} ({low} to {high})"


def size_words(size: float, objective: str) -> str:
    """The size of a difference, as in "2.1 points"."""
    scale, digits = scale_of(objective, size)
    return f"{scale * abs(size):.{digits}f}" + ("" if scale == 1 else " points")


def place_words(key: Key, position: float) -> str:
    """The value at a position of a key, as in "0.0012", "9" or "off"; without its optimizer a share."""
    if isinstance(key.dimension, PerOptimizer):
        return f"{100 * position:.0f} % of its range"
    value = key.value(position)
    is_off = isinstance(key.dimension, Log) and key.dimension.zero and value == 0
    return "off" if is_off else number_words(value)


def number_words(value: Scalar) -> str:
    """A value of a key: numbers at three significant digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
