"""Confusion matrices as PNG files, for many classes with the most confused pairs."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tlopt.plots.colours import CELL_SHARE_MAX, LIGHT
from tlopt.plots.confused import CELL_TEXT_CLASSES_MAX, Counts, error_shares, most_confused, short_names
from tlopt.plots.figure_file import STYLE, save, without_math

TICK_CLASSES_MAX = 60
MATRIX_CLASSES_MAX = 200  # with more, cells are smaller than five pixels, and only pairs are drawn
PAIRS_MAX = 15
_NAME_CHARACTERS_MAX = 22
_FAINTEST = 0.3  # least opacity of a non-empty cell without a number
_PAIRS_WIDTH, _PAIRS_HEIGHT = 5.6, 7.0  # inches, for `PAIRS_MAX` pairs in two lines each


def draw_confusion(path: Path, *, counts: Counts, class_names: Sequence[str], title: str) -> Path:
    """Write the confusion matrix `counts` (true class in rows) to `path`; return `path`.

    Mistakes have their own colour scale, up to the largest share of a class. Cells show counts for up to
    `CELL_TEXT_CLASSES_MAX` classes; with more, the most confused pairs are drawn next to the matrix.
    """
    names = [without_math(name) for name in short_names(class_names, _NAME_CHARACTERS_MAX)]
    n = len(names)
    with mpl.rc_context(STYLE):
        if n > MATRIX_CLASSES_MAX:
            figure = Figure(figsize=(_PAIRS_WIDTH + 1.5, _PAIRS_HEIGHT), layout="constrained")
            _pairs(figure.subplots(), counts, names)
        elif n > CELL_TEXT_CLASSES_MAX:
            side = float(np.clip(2.4 + 0.17 * n, 6.5, 12.5)) if n <= TICK_CLASSES_MAX else 9.5
            figure = Figure(figsize=(side + _PAIRS_WIDTH, max(side, _PAIRS_HEIGHT)), layout="constrained")
            matrix, pairs = figure.subplots(1, 2, width_ratios=(side, _PAIRS_WIDTH))
            _matrix(figure, matrix, counts, names)
            _pairs(pairs, counts, names)
        else:
            side = max(4.0, 2.2 + 0.42 * n)
            figure = Figure(figsize=(side + 0.8, side), layout="constrained")
            _matrix(figure, figure.subplots(), counts, names)
        figure.suptitle(without_math(title), fontsize=11)
        return save(figure, path)


def cell_colours(counts: Counts, *, numbered: bool) -> NDArray[np.float64]:
    """RGB colours (classes, classes, 3) in [0, 1] by share of the class; mistakes relative to the largest.

    Args:
        numbered: whether cells show numbers, which need light colours; small cells need strong ones.
    """
    errors = error_shares(counts)
    right = np.diag(counts.diagonal() / np.maximum(counts.sum(axis=1), 1))
    strength = right + errors / (errors.max() or 1)
    strength *= CELL_SHARE_MAX if numbered else 1 - _FAINTEST
    strength += 0 if numbered else _FAINTEST * (counts > 0)
    on = np.eye(len(counts), dtype=bool)[..., None]
    colour = np.where(on, to_rgb(LIGHT.point), to_rgb(LIGHT.line))
    page = np.asarray(to_rgb(LIGHT.page))
    return np.asarray(page + strength[..., None] * (colour - page), dtype=np.float64)


def _matrix(figure: Figure, axes: Axes, counts: Counts, names: Sequence[str]) -> None:
    n = len(names)
    numbered = n <= CELL_TEXT_CLASSES_MAX
    axes.imshow(cell_colours(counts, numbered=numbered), interpolation="nearest")
    if n <= TICK_CLASSES_MAX:
        size = 8 if n <= 40 else 7
        axes.set_xticks(
            range(n), names, rotation=45 if numbered else 90, ha="right" if numbered else "center"
        )
        axes.set_yticks(range(n), names)
        axes.tick_params(labelsize=size)
        axes.set(xlabel="predicted class", ylabel="true class")
    else:
        axes.set(xlabel="predicted class, by its number", ylabel="true class, by its number")
        positions = range(0, n, 20)
        axes.set_xticks(positions, [str(position + 1) for position in positions])
        axes.set_yticks(positions, [str(position + 1) for position in positions])
    if numbered:
        for row, column in np.argwhere(counts):
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=8)
    _scale(figure, axes, float(error_shares(counts).max()), numbered=numbered)


def _scale(figure: Figure, axes: Axes, largest: float, *, numbered: bool) -> None:
    """Add the colour scale of mistakes, in per cent of their true class, if there are mistakes."""
    if largest <= 0:
        return
    white, full = np.asarray(to_rgb(LIGHT.page)), np.asarray(to_rgb(LIGHT.line))
    low, high = (0.0, CELL_SHARE_MAX) if numbered else (_FAINTEST, 1.0)
    ends = [tuple(white + share * (full - white)) for share in (low, high)]
    shades = LinearSegmentedColormap.from_list("mistakes", ends)
    scale = ScalarMappable(Normalize(0, 100 * largest), shades)
    label = "mistakes: share of the true class, % (right ones: blue)"
    bar = figure.colorbar(scale, ax=axes, shrink=0.8)
    bar.set_label(label, fontsize=9)
    bar.ax.tick_params(labelsize=8)


def _pairs(axes: Axes, counts: Counts, names: Sequence[str]) -> None:
    """Draw the most confused pairs as bars, most images first."""
    pairs = most_confused(counts, PAIRS_MAX)
    axes.set_title(
        f"most confused pairs, of {len(names)} classes" if pairs else "no image is predicted wrongly",
        fontsize=9,
    )
    if not pairs:
        axes.set_axis_off()
        return
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.set_xticks([])
    positions = range(len(pairs))
    axes.barh(positions, [pair.n for pair in pairs], color=LIGHT.line, height=0.6)
    axes.set_yticks(
        positions, [f"{names[pair.true]}\nas {names[pair.predicted]}" for pair in pairs], fontsize=8
    )
    for position, pair in zip(positions, pairs, strict=True):
        axes.text(pair.n, position, f" {pair.n} ({100 * pair.share:.1f} %)", va="center", fontsize=8)
    axes.set_xlim(0, 1.45 * pairs[0].n)
    axes.set_ylim(max(len(pairs), 5) - 0.4, -0.6)
    axes.set_xlabel("images (share of the true class)", fontsize=9)
