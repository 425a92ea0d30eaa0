"""Values of a study's trials against its keys, as one PNG file."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tlopt.plots.axes import log_axis
from tlopt.plots.series import Array, evenly, running_median, value_limits

POINTS_MAX = 800  # that a panel draws; the median is that of all
PANELS_A_ROW = 2
_BEST_DRAWN = 20  # the best ones are always drawn
_POINT, _LINE, _MUTED = "#2f6fd0", "#c2410c", "#667085"


@dataclass(frozen=True, eq=False)
class Panel:
    """One key: what it is called, its value in each trial, and whether its axis is logarithmic."""

    label: str
    x: Array
    log: bool


def draw_dependences(
    path: Path, *, panels: Sequence[Panel], values: Array, objective: str, direction: str, title: str
) -> Path:
    """Write the panels, one or more, to `path`; returns it.

    Args:
        values: one a trial, best first, in the order of each panel's `x`.
    """
    n_rows = math.ceil(len(panels) / PANELS_A_ROW)
    figure = Figure(figsize=(9.2, 2.7 * n_rows + 0.5), layout="constrained")
    cells = figure.subplots(n_rows, PANELS_A_ROW, squeeze=False, sharey=True).ravel()
    for axes, panel in zip(cells, panels, strict=False):
        _draw(axes, panel, values)
        axes.set_ylim(value_limits(values, direction))
    cells[0].legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1, 1), borderpad=0, ncols=2)
    for axes in cells[len(panels) :]:
        axes.set_axis_off()
    for axes in cells[::PANELS_A_ROW]:
        axes.set_ylabel(f"validation {objective.replace('_', ' ')}")
    # the name of a study is letters, digits and . _ -, and no mathematics
    figure.suptitle(title, fontsize=11)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return path


def _draw(axes: Axes, panel: Panel, values: Array) -> None:
    x = panel.x
    place = log_axis(axes, x, colour=_MUTED) if panel.log else x
    shown = evenly(len(x), POINTS_MAX, keep=range(min(_BEST_DRAWN, len(x))))
    axes.plot(
        place[shown], values[shown], "o", ms=3.5, mew=0, color=_POINT, alpha=0.5, label="complete trial"
    )
    on = (x > 0) | (not panel.log)
    at, medians = running_median(np.log(x[on]) if panel.log else x[on], values[on])
    if len(at):
        axes.plot(np.exp(at) if panel.log else at, medians, lw=2, color=_LINE, label="running median")
    if not panel.log:
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=bool(np.all(x == np.round(x)))))
    axes.set_xlabel(panel.label)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
