"""A matplotlib figure as a file, with fonts for whatever text is in it."""

import warnings
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.text import Text

from tlopt.plots.colours import LIGHT
from tlopt.plots.fonts import families

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
    """Write `figure` to `path`, whose folder is made; returns it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = [text for text in figure.findobj(Text) if isinstance(text, Text)]
    names = families("".join(text.get_text() for text in texts))
    for text in texts:
        text.set_fontfamily(names)
    with warnings.catch_warnings():
        # a class name in a script that no installed font has is drawn as boxes; that is no reason to fail
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(path, dpi=110)
    return path


def plain(text: str) -> str:
    """`text` as it stands, where matplotlib would read a pair of dollar signs as mathematics."""
    return text.replace("$", r"\$")
