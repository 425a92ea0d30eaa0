"""Axes of keys and costs: logarithmic with zeros at the left end, or with at least two ticks."""

from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from tlopt.plots.series import Array

_TICKS_MAX = 5
_LOG_TICKS_MIN = 3  # below it the values lie so close that equal steps show them as well


def log_axis(axes: Axes, x: Array, *, colour: str) -> Array:
    """Make the x axis logarithmic; return the positions of `x` on it, zeros a little left of all others.

    Args:
        x: values from 0, at least one of them positive.
        colour: colour of the dotted line that separates zeros from the others.
    """
    positive = x[x > 0]
    low, high = float(positive.min()), float(positive.max())
    zero = low / max((high / low) ** 0.12, 1.5)
    axes.set_xscale("log")
    ticks = [(tick, _short(tick)) for tick in log_ticks(low, high)]
    if (x == 0).any():
        ticks.insert(0, (zero, "0"))
        axes.axvline(float(np.sqrt(zero * low)), lw=0.8, ls=":", color=colour)
    axes.xaxis.set_major_locator(FixedLocator([tick for tick, _ in ticks]))
    axes.xaxis.set_minor_locator(NullLocator())
    names = dict(ticks)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: names.get(value, _short(value))))
    return np.where(x > 0, x, zero)


def cost_axis(axes: Axes, x: Array, words: Callable[[float], str]) -> None:
    """Make the x axis logarithmic if its round numbers then give enough ticks, else linear; at least two.

    Args:
        x: positive values; the limits of the axis leave a margin around them.
        words: the text of a tick.
    """
    low, high = float(x.min()), float(x.max())
    margin = max((high / low) ** 0.05, 1.02)
    low, high = low / margin, high * margin
    ticks = log_ticks(low, high)
    if len(ticks) >= _LOG_TICKS_MIN:
        axes.set_xscale("log")
    else:
        ticks = even_ticks(low, high, whole=False)
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda at, _: words(at)))


def _short(value: float) -> str:
    return f"{float(f'{value:.3g}'):g}"


def even_ticks(low: float, high: float, *, whole: bool) -> list[float]:
    """About five round numbers in [low, high]; whole numbers if `whole`."""
    found = MaxNLocator(_TICKS_MAX, integer=whole).tick_values(low, high)
    slack = 1e-9 * (high - low)
    return [float(tick) for tick in found if low - slack <= tick <= high + slack]


def log_ticks(low: float, high: float) -> list[float]:
    """About five round numbers in [low, high]: powers of ten, or 1, 3 or 1, 2, 5 times powers of ten."""
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    slack = 1 + 1e-9
    for factors in ((1,), (1, 3), (1, 2, 5)):
        ticks = [float(f"{factor}e{power}") for power in powers for factor in factors]
        ticks = [tick for tick in ticks if low / slack <= tick <= high * slack]
        if len(ticks) >= 3:
            break
    return ticks[:: -(-len(ticks) // _TICKS_MAX) or 1] or [low]
