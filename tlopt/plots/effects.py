"""Objective values of trials against search keys, as one PNG file."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from tlopt.plots.axes import log_axis
from tlopt.plots.colours import LIGHT
from tlopt.plots.figure_file import STYLE, save, without_math
from tlopt.plots.series import Array, evenly, running_median, value_limits
from tlopt.spec.objectives import TITLES, is_fraction

POINTS_MAX = 800  # points drawn per panel; the median uses all
PANELS_PER_ROW = 2
_N_BEST = 20  # these trials are always drawn


@dataclass(frozen=True, eq=False)
class KeyPanel:
    """The panel of one key: axis label, value in each trial, and whether the axis is logarithmic."""

    label: str
    x: Array
    log: bool


def draw_dependences(
    path: Path, *, panels: Sequence[KeyPanel], values: Array, objective: str, direction: str, title: str
) -> Path:
    """Write at least one panel to `path`; return `path`.

    Args:
        values: objective value of each trial, best first, in the order of `KeyPanel.x`.
    """
    n_rows = math.ceil(len(panels) / PANELS_PER_ROW)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.2, 2.7 * n_rows + 0.5), layout="constrained")
        cells = figure.subplots(n_rows, PANELS_PER_ROW, squeeze=False, sharey=True).ravel()
        for axes, panel in zip(cells, panels, strict=False):
            _draw(axes, panel, values)
            axes.set_ylim(value_limits(values, direction))
            _value_axis(axes, objective)
        cells[0].legend(
            frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1, 1), borderpad=0, ncols=2
        )
        for axes in cells[len(panels) :]:
            axes.set_axis_off()
        for axes in cells[::PANELS_PER_ROW]:
            unit = "%" if is_fraction(objective) else "nats"
            axes.set_ylabel(f"validation {TITLES[objective]}, {unit}")
        figure.suptitle(without_math(title), fontsize=11)
        return save(figure, path)


def _value_axis(axes: Axes, objective: str) -> None:
    scale = 100 if is_fraction(objective) else 1
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{scale * value:.4g}"))


def _draw(axes: Axes, panel: KeyPanel, values: Array) -> None:
    x = panel.x
    position = log_axis(axes, x, colour=LIGHT.muted) if panel.log else x
    drawn = evenly(len(x), POINTS_MAX, keep=range(min(_N_BEST, len(x))))
    axes.plot(
        position[drawn],
        values[drawn],
        "o",
        ms=4,
        mew=0.4,
        mec=LIGHT.page,
        color=LIGHT.point,
        label="complete trial",
    )
    on = (x > 0) | (not panel.log)
    at, medians = running_median(np.log(x[on]) if panel.log else x[on], values[on])
    if len(at):
        axes.plot(np.exp(at) if panel.log else at, medians, lw=2, color=LIGHT.line, label="running median")
    if not panel.log:
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=bool(np.all(x == np.round(x)))))
    axes.set_xlabel(panel.label)
    axes.grid()
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
