"""Saving of matplotlib figures, with fonts for any script."""

import warnings
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.text import Text

from tlopt.plots.colours import LIGHT
from tlopt.plots.fonts import font_families

STYLE: dict[Any, Any] = {
    "text.color": LIGHT.ink,
    "axes.labelcolor": LIGHT.ink,
    "axes.edgecolor": LIGHT.muted,
    "xtick.color": LIGHT.muted,
    "ytick.color": LIGHT.muted,
    "xtick.labelcolor": LIGHT.ink,
    "ytick.labelcolor": LIGHT.ink,
    "grid.color": LIGHT.rule,
}


def save(figure: Figure, path: Path) -> Path:
    """Write `figure` to `path`, creating its folder; return `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = [text for text in figure.findobj(Text) if isinstance(text, Text)]
    names = font_families("".join(text.get_text() for text in texts))
    for text in texts:
        text.set_fontfamily(names)
    with warnings.catch_warnings():
        # without a font for its script, a class name is drawn as boxes
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(path, dpi=110)
    return path


def without_math(text: str) -> str:
    """`text` with escaped dollar signs, which matplotlib would read as mathematics."""
    return text.replace("$", r"\$")
