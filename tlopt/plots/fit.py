"""Measures of fit against the depth of a network, as one PNG file."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tlopt.plots.colours import LIGHT
from tlopt.plots.figure_file import STYLE, save, without_math

_PANELS_A_ROW = 3
_COLOURS = (LIGHT.point, LIGHT.line, LIGHT.third, LIGHT.pale)
_STYLES = ("-", "--", ":", "-.")  # by turns, once all colours are used


@dataclass(frozen=True)
class NetworkLine:
    """One network: its name, and a value for each block from the input; None where there is none."""

    label: str
    values: tuple[float | None, ...]


@dataclass(frozen=True, kw_only=True)
class MeasurePanel:
    """One measure of all networks."""

    heading: str  # with the unit
    scale: float  # that values are multiplied by
    lines: tuple[NetworkLine, ...]


def draw_fit(path: Path, panels: Sequence[MeasurePanel], *, title: str) -> Path:
    """Write the panels, one or more, to `path`; returns it.

    Several networks have different numbers of blocks: then the axis is the share of the blocks.
    """
    n_columns = min(_PANELS_A_ROW, len(panels))
    n_rows = math.ceil(len(panels) / n_columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(max(5.0, 3.4 * n_columns), 2.6 * n_rows + 0.7), layout="constrained")
        cells = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
        for axes, panel in zip(cells, panels, strict=False):
            _draw(axes, panel)
        for axes in cells[len(panels) :]:
            axes.set_axis_off()
        if len(panels[0].lines) > 1:
            handles, labels = cells[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
        figure.suptitle(without_math(title), fontsize=11)
        return save(figure, path)


def _draw(axes: Axes, panel: MeasurePanel) -> None:
    several = len(panel.lines) > 1
    for index, line in enumerate(panel.lines):
        values = np.array([np.nan if v is None else v * panel.scale for v in line.values])
        blocks = np.arange(1, len(values) + 1)
        axes.plot(
            blocks / len(values) if several else blocks,
            values,
            _STYLES[index // len(_COLOURS) % len(_STYLES)],
            marker="o",
            ms=3,
            lw=1.5,
            color=_COLOURS[index % len(_COLOURS)],
            label=without_math(line.label),
        )
    axes.set_title(without_math(panel.heading), fontsize=10, color=LIGHT.ink)
    axes.set_xlabel("share of the blocks" if several else "block", fontsize=9)
    if not several:
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.tick_params(labelsize=8)
    axes.grid()
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
