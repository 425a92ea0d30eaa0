"""Curves with intervals, several lines per panel, as one PNG file."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from tlopt.plots.colours import LIGHT
from tlopt.plots.figure_file import STYLE, save, without_math
from tlopt.spec.objectives import TITLES, is_fraction

_PANELS_A_ROW = 2
_COLOURS = (LIGHT.point, LIGHT.line, LIGHT.third, LIGHT.pale)
_STYLES = ("-", "--", ":", "-.")  # by turns, once all colours are used
_MARKS = "osD^"
_RING: dict[str, Any] = {"marker": "o", "ms": 9, "mfc": "none"}
_SHIFT = 0.006  # of the axis, between the intervals of neighbouring lines


@dataclass(frozen=True, kw_only=True)
class Line:
    """One curve: means and half widths of intervals, NaN without one, at ascending places."""

    label: str
    x: tuple[float, ...]
    mean: tuple[float, ...]
    half_width: tuple[float, ...]
    train: tuple[float, ...] = ()  # training accuracy, NaN if unknown; drawn for fractions only
    threshold: int | None = None  # index of the place that is the interpolation threshold


def draw_curves(
    path: Path,
    panels: Mapping[str, Sequence[Line]],
    *,
    x_title: str,
    log_x: bool,
    objective: str,
    title: str,
) -> Path:
    """Write the panels, at least one, by their titles to `path`; returns it.

    Args:
        log_x: whether the places are evenly spaced by their logarithm, if all are above 0.
    """
    n_columns = min(_PANELS_A_ROW, len(panels))
    n_rows = math.ceil(len(panels) / n_columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(max(7.0, 4.6 * n_columns), 3.6 * n_rows + 0.8), layout="constrained")
        cells = figure.subplots(n_rows, n_columns, squeeze=False, sharey=True).ravel()
        for axes, (heading, lines) in zip(cells, panels.items(), strict=False):
            _draw(axes, lines, log_x=log_x, with_train=is_fraction(objective))
            axes.set_title(without_math(heading), fontsize=10)
            axes.set_xlabel(without_math(x_title))
            _value_axis(axes, objective)
        for axes in cells[len(panels) :]:
            axes.set_axis_off()
        for axes in cells[::n_columns]:
            unit = "%" if is_fraction(objective) else "nats"
            axes.set_ylabel(f"validation {TITLES[objective]}, {unit}")
        handles, labels = cells[0].get_legend_handles_labels()
        if is_fraction(objective) and any(_has_train(line) for lines in panels.values() for line in lines):
            handles.append(Line2D([], [], ls=":", lw=1, color=LIGHT.muted))
            labels.append("in training")
            if any(line.threshold is not None for lines in panels.values() for line in lines):
                handles.append(Line2D([], [], ls="", **_RING, color=LIGHT.muted))
                labels.append("interpolation threshold")
        if any(labels):
            figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
        figure.suptitle(without_math(title), fontsize=11)
        return save(figure, path)


def draw_means(
    path: Path,
    names: Sequence[str],
    mean: Sequence[float],
    half_width: Sequence[float],
    *,
    objective: str,
    title: str,
) -> Path:
    """Write named means with their intervals, the first at the top, to `path`; returns it."""
    rows = np.arange(len(names))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.0, 0.4 * len(names) + 1.4), layout="constrained")
        axes = figure.subplots()
        widths = np.nan_to_num(np.array(half_width))
        axes.errorbar(mean, rows, xerr=widths, fmt="o", color=LIGHT.point, elinewidth=1, capsize=2)
        axes.set_yticks(rows, [without_math(name) for name in names])
        axes.invert_yaxis()
        scale, unit = (100, "%") if is_fraction(objective) else (1, "nats")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{scale * value:.4g}"))
        axes.set_xlabel(f"validation {TITLES[objective]}, {unit}")
        axes.grid()
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        figure.suptitle(without_math(title), fontsize=11)
        return save(figure, path)


def _draw(axes: Axes, lines: Sequence[Line], *, log_x: bool, with_train: bool) -> None:
    places = sorted({place for line in lines for place in line.x})
    log = log_x and places[0] > 0 and len(places) > 1
    at = np.log(places) if log else np.array(places, dtype=np.float64)
    span = float(at[-1] - at[0]) or 1.0
    for index, line in enumerate(lines):
        x = np.log(line.x) if log else np.array(line.x)
        axes.errorbar(
            x + (index - (len(lines) - 1) / 2) * _SHIFT * span,
            line.mean,
            yerr=np.nan_to_num(np.array(line.half_width)),
            fmt=_STYLES[index // len(_COLOURS) % len(_STYLES)],
            marker=_MARKS[index % len(_MARKS)],
            color=_COLOURS[index % len(_COLOURS)],
            ms=4,
            lw=1.5,
            elinewidth=1,
            capsize=2,
            label=without_math(line.label),
        )
        if with_train and _has_train(line):
            colour = _COLOURS[index % len(_COLOURS)]
            axes.plot(x, line.train, ":", lw=1, color=colour)
            if line.threshold is not None:
                axes.plot(x[line.threshold], line.train[line.threshold], **_RING, color=colour)
    axes.set_xticks(at, [f"{place:g}" for place in places])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid()
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _has_train(line: Line) -> bool:
    return not all(map(math.isnan, line.train))


def _value_axis(axes: Axes, objective: str) -> None:
    scale = 100 if is_fraction(objective) else 1
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{scale * value:.4g}"))
