"""Confusion matrices as PNG files, with the most confused pairs beside those of many classes."""

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
from tlopt.plots.confused import CELL_TEXT_CLASSES_MAX, Counts, confused, error_shares, short_names
from tlopt.plots.figure_file import STYLE, plain, save

TICK_CLASSES_MAX = 60
MATRIX_CLASSES_MAX = 200  # with more, a cell is less than five pixels: pairs alone
PAIRS_MAX = 15
_NAME_CHARACTERS_MAX = 22
_FAINTEST = 0.3  # of its colour, in a cell without a number that is not empty
_PAIRS_WIDTH, _PAIRS_HEIGHT = 5.6, 7.0  # inches, for `PAIRS_MAX` pairs in two lines each


def draw_confusion(path: Path, *, counts: Counts, class_names: Sequence[str], title: str) -> Path:
    """Write the confusion matrix `counts` (true class in rows) to `path`; returns it.

    Mistakes have a colour scale of their own, up to their largest share of a class. Numbers are counts, up to
    `CELL_TEXT_CLASSES_MAX` classes; with more, the most confused pairs stand beside the matrix.
    """
    names = [plain(name) for name in short_names(class_names, _NAME_CHARACTERS_MAX)]
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
        figure.suptitle(plain(title), fontsize=11)
        return save(figure, path)


def cell_colours(counts: Counts, *, numbered: bool) -> NDArray[np.float64]:
    """Colours (classes, classes, 3) in [0, 1]: right ones by share, mistakes relative to the largest share.

    Args:
        numbered: light enough for numbers; else strong enough to be seen in small cells.
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
        axes.set(xlabel="predicted class, by its place in the list", ylabel="true class, by its place")
        places = range(0, n, 20)
        axes.set_xticks(places, [str(place + 1) for place in places])
        axes.set_yticks(places, [str(place + 1) for place in places])
    if numbered:
        for row, column in np.argwhere(counts):
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=8)
    _scale(figure, axes, float(error_shares(counts).max()), numbered=numbered)


def _scale(figure: Figure, axes: Axes, largest: float, *, numbered: bool) -> None:
    """The colour scale of mistakes, in per cent of their true class; none where there are none."""
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
    """The most confused pairs as bars, most images first."""
    pairs = confused(counts, PAIRS_MAX)
    axes.set_title(
        f"most confused pairs, of {len(names)} classes" if pairs else "no image is predicted wrongly",
        fontsize=9,
    )
    if not pairs:
        axes.set_axis_off()
        return
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.set_xticks([])
    places = range(len(pairs))
    axes.barh(places, [pair.n for pair in pairs], color=LIGHT.line, height=0.6)
    axes.set_yticks(places, [f"{names[pair.true]}\nas {names[pair.predicted]}" for pair in pairs], fontsize=8)
    for place, pair in zip(places, pairs, strict=True):
        axes.text(pair.n, place, f" {pair.n} ({100 * pair.share:.1f} %)", va="center", fontsize=8)
    axes.set_xlim(0, 1.45 * pairs[0].n)
    axes.set_ylim(max(len(pairs), 5) - 0.4, -0.6)
    axes.set_xlabel("images (share of the true class)", fontsize=9)
