"""A report's figures as inline SVG in the colours and font of the page.

Colours are CSS variables, so that a figure suits light and dark pages. Text is kept as text. `alt` is a
figure's alternative text.
"""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from tlopt.plots.axes import cost_axis, log_axis
from tlopt.plots.colours import BAND_SHARE, CELL_SHARE_MAX, LIGHT
from tlopt.plots.series import Array, running_median, value_limits
from tlopt.spec import objectives
from tlopt.spec.objectives import TITLES
from tlopt.system.words import si_words

_WIDTH, _HEIGHT = 5.0, 3.0  # inches of 72 units, a phone shows them at about this size
_OFF_MIN = 3  # smallest number of points at "off" for which a median is shown

# placeholders that are replaced by CSS variables
_INK, _MUTED, _GRID, _POINT, _LINE, _PALE, _THIRD = (f"#01020{index}" for index in range(3, 10))
_VARIABLES = {
    _INK: "ink",
    _MUTED: "muted",
    _GRID: "rule",
    _POINT: "point",
    _LINE: "line",
    _PALE: "pale",
    _THIRD: "third",
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "tlopt",
    "text.parse_math": False,
    "font.size": 10.5,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _MUTED,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "grid.color": _GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 10,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Band:
    """An expected value with its interval along a key; all (G,), `x` ascending, 0 for "off"."""

    x: Array
    mean: Array
    low: Array
    high: Array
    label: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Map:
    """Shades of cells over two keys, with the trials on them.

    Attributes:
        shades: (G, H) in [0, 1]; rows of cells lie above each other.
        labels: names of the keys, of the vertical axis first.
        ticks: of both axes, places as fractions of the axis with their names.
        trials: (N, 2), row and column as fractions of the axes.
    """

    shades: Array
    labels: tuple[str, str]
    ticks: tuple[Sequence[tuple[float, str]], Sequence[tuple[float, str]]]
    trials: Array


def progress_svg(x: Array, values: Array, best: Array, *, xlabel: str, objective: str, alt: str) -> str:
    """Values of trials (NaN: none) and the best so far over the ascending `x`."""
    direction = objectives.direction_of(objective)
    with _figure() as (figure, axes):
        axes.plot(x, values, "o", ms=_size(values), mew=0, color=_PALE, label="complete trial")
        axes.xaxis.set_major_locator(MaxNLocator(7, integer=bool(np.all(x == np.round(x)))))
        axes.plot(x, best, drawstyle="steps-post", lw=2, color=_LINE, label="best so far")
        axes.set(xlabel=xlabel, xlim=(0, float(x.max()) * 1.02 or 1), ylim=value_limits(values, direction))
        _value_axis(axes, objective)
        _legend(axes)
        return _svg(figure, alt)


def front_svg(
    x: Array, values: Array, on_front: NDArray[np.bool_], *, xlabel: str, objective: str, alt: str
) -> str:
    """Values of complete trials against a positive cost, and the front as steps."""
    direction = objectives.direction_of(objective)
    order = np.flatnonzero(on_front)[np.argsort(x[on_front], kind="stable")]
    with _figure() as (figure, axes):
        axes.plot(x, values, "o", ms=_size(values), mew=0, color=_PALE, label="complete trial")
        steps, front = values[order], x[order]
        axes.plot(front, steps, "o-", drawstyle="steps-post", ms=4, lw=2, color=_LINE, label="front")
        cost_axis(axes, x, partial(si_words, form=".6g"))
        axes.set(xlabel=xlabel, ylim=value_limits(values, direction))
        _value_axis(axes, objective)
        _legend(axes)
        return _svg(figure, alt)


def dependence_svg(
    x: Array,
    values: Array,
    *,
    shown: Sequence[int],
    key: str,
    log: bool,
    objective: str,
    alt: str,
    band: Band | None = None,
) -> str:
    """Values of complete trials against a key, their running median, and the band of the key alone.

    Args:
        shown: indices of the points to draw; the median is computed from all.
        log: whether the axis is logarithmic; zeros are drawn at its left edge.
    """
    direction = objectives.direction_of(objective)
    with _figure() as (figure, axes):
        place = log_axis(axes, x, colour=_MUTED) if log else x
        along = np.log(place) if log else place
        indices = np.asarray(shown, dtype=np.int64)
        axes.plot(place[indices], values[indices], "o", ms=_size(values), mew=0, color=_POINT)
        on = (x > 0) | (not log)
        at, medians = running_median(along[on], values[on])
        if len(at):
            axes.plot(np.exp(at) if log else at, medians, lw=2, color=_LINE, label="running median")
        if log and (~on).sum() >= _OFF_MIN:
            axes.plot(place[~on][:1], [np.median(values[~on])], "_", ms=14, mew=2, color=_LINE)
        if band is not None:
            _band(axes, band, off=float(place[~on][0]) if (~on).any() else None)
        axes.set(xlabel=key, ylim=value_limits(values, direction))
        if not log:
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=bool(np.all(x == np.round(x)))))
            axes.xaxis.set_major_formatter(FuncFormatter(_plain))
        _value_axis(axes, objective)
        _legend(axes)
        return _svg(figure, alt)


def _band(axes: Axes, band: Band, *, off: float | None) -> None:
    """Draw the band; its value at 0 at the place `off` of the axis, if it has one."""
    is_off = (band.x == 0) & (off is not None)
    x, mean, low, high = (values[~is_off] for values in (band.x, band.mean, band.low, band.high))
    axes.fill_between(x, low, high, fc=(_THIRD, BAND_SHARE), ec=_THIRD, lw=0.7)
    axes.plot(x, mean, lw=2, ls="--", color=_THIRD, label=band.label)
    if off is not None and is_off.any():
        mean, low, high = (values[is_off] for values in (band.mean, band.low, band.high))
        axes.errorbar([off], mean, yerr=[mean - low, high - mean], fmt="_", ms=12, mew=2, color=_THIRD)


def surface_svg(shown: Map, *, alt: str) -> str:
    """Cells over two keys, darker where the objective is better, and the trials as dots."""
    n_rows, n_columns = shown.shades.shape
    with _figure() as (figure, axes):
        axes.grid(visible=False)
        for row, column in product(range(n_rows), range(n_columns)):
            share = 0.05 + (CELL_SHARE_MAX - 0.05) * float(shown.shades[row, column])
            axes.add_patch(Rectangle((column, row), 1, 1, fc=(_POINT, share), lw=0))
        axes.plot(
            n_columns * shown.trials[:, 1],
            n_rows * shown.trials[:, 0],
            "o",
            ms=_size(shown.trials) - 2,
            mew=0,
            color=_INK,
            clip_on=False,
        )
        axes.set(xlim=(0, n_columns), ylim=(0, n_rows), ylabel=shown.labels[0], xlabel=shown.labels[1])
        for axis, n, ticks in zip((axes.yaxis, axes.xaxis), shown.shades.shape, shown.ticks, strict=True):
            axis.set_ticks([n * place for place, _ in ticks], [name for _, name in ticks])
        return _svg(figure, alt)


def learning_curves_svg(best: Sequence[Array], pruned: Sequence[Array], *, objective: str, alt: str) -> str:
    """Values over epochs, one array of (epoch, value) rows per trial; the first of `best` is highlighted."""
    direction = objectives.direction_of(objective)
    with _figure(height=3.4) as (figure, axes):
        for index, curve in enumerate(pruned):
            axes.plot(*curve.T, lw=0.8, color=_PALE, marker=_dot(curve), label="" if index else "pruned")
        for index, curve in reversed(list(enumerate(best))):
            style = {"lw": 2.4, "color": _LINE} if not index else {"lw": 1.1, "color": _POINT}
            label = ("the best", "the next best", "")[min(index, 2)]
            axes.plot(*curve.T, label=label, marker=_dot(curve), **style)  # type: ignore[arg-type]
        every = np.concatenate([curve[:, 1] for curve in (*best, *pruned)])
        axes.set(xlabel="epoch", ylim=value_limits(every, direction))
        epochs = np.concatenate([curve[:, 0] for curve in (*best, *pruned)])
        if epochs.min() == epochs.max():
            axes.set_xticks(epochs[:1])  # the locator would mark fractions of epochs
        else:
            axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(_plain))
        _value_axis(axes, objective)
        _legend(axes)
        return _svg(figure, alt)


def reliability_svg(confidence: Array, accuracy: Array, *, alt: str) -> str:
    """Accuracy against mean probability of the predicted class, per bin."""
    with _figure() as (figure, axes):
        axes.plot((0, 1), (0, 1), ":", color=_MUTED, lw=1.2)
        axes.plot(confidence, accuracy, "o-", ms=6, mew=0, lw=2, color=_LINE)
        _shares(axes, "probability of the predicted class, %", "right, %")
        return _svg(figure, alt)


def rates_svg(x: Array, y: Array, *, labels: tuple[str, str], alt: str, diagonal: bool = True) -> str:
    """One rate against another, both in [0, 1]; `diagonal` adds the line of a random guess."""
    with _figure() as (figure, axes):
        if diagonal:
            axes.plot((0, 1), (0, 1), ":", color=_MUTED, lw=1.2)
        axes.plot(x, y, drawstyle="default" if diagonal else "steps-pre", lw=2, color=_LINE)
        _shares(axes, *(f"{label}, %" for label in labels))
        return _svg(figure, alt)


def _shares(axes: Axes, x: str, y: str) -> None:
    axes.set(xlabel=x, ylabel=y, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g}"))


@contextmanager
def _figure(height: float = _HEIGHT) -> Iterator[tuple[Figure, Axes]]:
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        axes = figure.subplots()
        axes.grid(lw=0.6)
        axes.set_axisbelow(True)
        yield figure, axes


def _value_axis(axes: Axes, objective: str) -> None:
    fraction = objectives.is_fraction(objective)
    scale = 100 if fraction else 1
    axes.set_ylabel(f"validation {TITLES[objective]}" + (", %" if fraction else ", nats"))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{scale * value:.4g}"))


def _legend(axes: Axes) -> None:
    """Put the legend above the axes, where it covers no point."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        axes.legend(handles, labels, loc="lower right", bbox_to_anchor=(1, 1), ncols=3, borderpad=0.1)


def _size(values: Array) -> float:
    """Marker size, larger if there are few points."""
    return 5.0 if len(values) <= 60 else 3.4


def _dot(curve: Array) -> str:
    return "." if len(curve) == 1 else ""  # a line through one point would be invisible


def _plain(value: float, _: object) -> str:
    return f"{value:g}"


def _svg(figure: Figure, alt: str) -> str:
    """The figure as an `svg` element, without a header, metadata or external references."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = file.getvalue()
    text = text[text.index("<svg") :]
    head = re.search(r'viewBox="[^"]*"', text)
    assert head is not None, "matplotlib writes a viewBox"
    text = text[text.index(">") + 1 :].replace("xlink:href", "href")
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var(--{variable})")
    text = re.sub(r"<[^>]*>", lambda tag: _rounded(tag[0]), text)
    return f'<svg {head[0]} role="img" aria-label="{escape(alt)}">{text}'


def _rounded(tag: str) -> str:
    """`tag` with coordinates rounded to a hundredth of a unit, which halves the file."""
    return re.sub(r"\d+\.\d{3,}", lambda match: f"{float(match[0]):.2f}", tag)


def standalone(svg: str) -> str:
    """The figure as a separate file, with CSS variables replaced by colours for a white background."""
    for variable in _VARIABLES.values():
        svg = svg.replace(f"var(--{variable})", LIGHT[variable])
    return svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" width="480" ', 1)


def with_own_ids(svg: str, prefix: str) -> str:
    """The figure with `prefix` on its ids, so that they are unique on the page."""
    return re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{prefix}-", svg)
