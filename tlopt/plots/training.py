"""Learning curves, and images with captions, as PNG files."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from tlopt.plots.colours import LIGHT
from tlopt.plots.figure_file import STYLE, save, without_math
from tlopt.spec.objectives import TITLES

MISTAKES_PER_ROW = 4
CAPTION_CHARACTERS_MAX = 36
_LINES = (  # styles differ, too, so that lines can be told apart without colours
    {"color": LIGHT.point, "marker": "."},
    {"color": LIGHT.line, "marker": ".", "linestyle": "--"},
    {"color": LIGHT.third, "marker": ".", "linestyle": ":"},
)


def draw_learning_curves(
    path: Path, *, train_loss: Sequence[float], val: dict[str, Sequence[float]], title: str
) -> Path:
    """Write loss (left) and other metrics (right, in %) over epochs to `path`; return `path`.

    Args:
        train_loss: mean training loss of each epoch.
        val: validation metrics by name, one value per epoch; "log_loss" is drawn with the training loss.
    """
    epochs = np.arange(1, len(train_loss) + 1)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 3.6), layout="constrained")
        losses, fractions = figure.subplots(1, 2)
        loss_lines = {"train": train_loss}
        if "log_loss" in val:
            loss_lines["validation"] = val["log_loss"]
        _lines(losses, epochs, loss_lines)
        percent = {
            TITLES[name]: [100 * v for v in values] for name, values in val.items() if name != "log_loss"
        }
        _lines(fractions, epochs, percent)
        losses.set(xlabel="epoch", ylabel="loss (nats)")
        fractions.set(xlabel="epoch", ylabel="validation, %", ylim=(0, 102))
        figure.suptitle(without_math(title), fontsize=11)
        return save(figure, path)


def _lines(axes: Axes, epochs: NDArray[np.int64], lines: Mapping[str, Sequence[float]]) -> None:
    for style, (name, values) in zip(_LINES, lines.items(), strict=False):
        axes.plot(epochs, values, label=name, **style)  # type: ignore[arg-type]
    axes.grid()
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if lines:
        axes.legend(frameon=False)


def draw_mistakes(path: Path, *, pictures: NDArray[np.uint8], captions: Sequence[str], title: str) -> Path:
    """Write `pictures` (n, S, S, 3), n from 1, with a caption under each to `path`; return `path`.

    Lines of captions are cut at `CAPTION_CHARACTERS_MAX`, which fits the width of a picture.
    """
    n_columns = min(MISTAKES_PER_ROW, max(2, len(pictures)))  # the title needs two
    n_rows = math.ceil(len(pictures) / n_columns)
    figure = Figure(figsize=(2.4 * n_columns, 2.9 * n_rows + 0.4), layout="constrained")
    cells = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    for axes in cells:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    for axes, picture, caption in zip(cells, pictures, captions, strict=False):
        axes.imshow(picture)
        lines = [without_math(_truncated(line, CAPTION_CHARACTERS_MAX)) for line in caption.splitlines()]
        axes.set_xlabel("\n".join(lines), fontsize=8, loc="left")
    figure.suptitle(without_math(title), fontsize=11)
    return save(figure, path)


def _truncated(text: str, n_max: int) -> str:
    return text if len(text) <= n_max else text[: n_max - 1] + "…"
