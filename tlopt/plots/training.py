"""Learning curves and confusion matrices as PNG files."""

import math
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray

from tlopt.plots.fonts import families

CELL_TEXT_CLASSES_MAX = 15  # more cells than this hold no readable number
TICK_CLASSES_MAX = 60
MISTAKES_A_ROW = 4
CAPTION_CHARACTERS_MAX = 36
_LABEL_CHARACTERS_MAX = 22


def draw_learning_curves(
    path: Path, *, train_loss: Sequence[float], val: dict[str, Sequence[float]], title: str
) -> Path:
    """Write loss (left) and the fractions among `val` (right) over epochs to `path`; returns it.

    Args:
        train_loss: one value an epoch.
        val: name to one value an epoch; "log_loss" is drawn beside the training loss.
    """
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    losses, fractions = figure.subplots(1, 2)
    epochs = np.arange(1, len(train_loss) + 1)
    losses.plot(epochs, train_loss, marker=".", label="train")
    losses.set(xlabel="epoch", ylabel="loss (nats)")
    fractions.set(xlabel="epoch", ylabel="validation, fraction", ylim=(0, 1.02))
    for name, values in val.items():
        axes = losses if name == "log_loss" else fractions
        axes.plot(epochs, values, marker=".", label="validation" if name == "log_loss" else _words(name))
    for axes in (losses, fractions):
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False)
    figure.suptitle(title, fontsize=11)
    return _save(figure, path)


def draw_confusion(path: Path, *, counts: NDArray[np.int64], class_names: Sequence[str], title: str) -> Path:
    """Write the confusion matrix `counts` (true class in rows) to `path`; returns it.

    Colours are shares of each row; numbers are counts, up to `CELL_TEXT_CLASSES_MAX` classes.
    """
    n_classes = len(class_names)
    side = float(np.clip(2.2 + 0.42 * n_classes, 4, 16))
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    if n_classes <= TICK_CLASSES_MAX:
        names = [_short(name) for name in class_names]
        axes.set_xticks(range(n_classes), names, rotation=45, ha="right", fontsize=8)
        axes.set_yticks(range(n_classes), names, fontsize=8)
    if n_classes <= CELL_TEXT_CLASSES_MAX:
        for row, column in np.ndindex(*counts.shape):
            if counts[row, column]:
                colour = "white" if shares[row, column] > 0.55 else "black"
                axes.text(
                    column, row, str(counts[row, column]), ha="center", va="center", fontsize=8, color=colour
                )
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.set_title(title, fontsize=11)
    return _save(figure, path)


def draw_mistakes(path: Path, *, pictures: NDArray[np.uint8], captions: Sequence[str], title: str) -> Path:
    """Write `pictures` (n, S, S, 3), n from 1, with a caption under each to `path`; returns it.

    A line of a caption is cut at `CAPTION_CHARACTERS_MAX`, what the picture's width holds.
    """
    n_columns = min(MISTAKES_A_ROW, max(2, len(pictures)))  # the title takes two
    n_rows = math.ceil(len(pictures) / n_columns)
    figure = Figure(figsize=(2.4 * n_columns, 2.9 * n_rows + 0.4), layout="constrained")
    cells = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    for axes in cells:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    for axes, picture, caption in zip(cells, pictures, captions, strict=False):
        axes.imshow(picture)
        lines = [_plain(_cut(line, CAPTION_CHARACTERS_MAX)) for line in caption.splitlines()]
        axes.set_xlabel("\n".join(lines), fontsize=8, loc="left")
    figure.suptitle(_plain(title), fontsize=11)
    return _save(figure, path)


def _save(figure: Figure, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = figure.findobj(Text)
    names = families("".join(text.get_text() for text in texts if isinstance(text, Text)))
    for text in texts:
        if isinstance(text, Text):
            text.set_fontfamily(names)
    with warnings.catch_warnings():
        # a class name in a script that no installed font has is drawn as boxes; that is no reason to fail
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(path, dpi=110)
    return path


def _words(name: str) -> str:
    return name.replace("_", " ")


def _short(name: str) -> str:
    return _plain(_cut(name, _LABEL_CHARACTERS_MAX))


def _cut(text: str, n_max: int) -> str:
    return text if len(text) <= n_max else text[: n_max - 1] + "…"


def _plain(text: str) -> str:
    return text.replace("$", r"\$")  # a pair of them would be read as mathematics
