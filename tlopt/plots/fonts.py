"""Fonts for class names in any script: installed ones that hold what matplotlib's own font lacks."""

from functools import cache

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font


def families(text: str) -> list[str]:
    """Font families for `text`, the usual ones first; of the others as few as cover what those lack."""
    usual = list(mpl.rcParams["font.family"])
    missing = {ord(each) for each in text if not each.isspace()} - _characters(font_manager.findfont("sans"))
    more: list[str] = []
    for name, path in _installed() if missing else ():
        found = missing & _characters(path)
        if found:
            more.append(name)
            missing -= found
        if not missing:
            break
    return usual + more


@cache
def _installed() -> tuple[tuple[str, str], ...]:
    """Name and file of every installed font of normal style and weight."""
    entries = font_manager.fontManager.ttflist
    return tuple((e.name, e.fname) for e in entries if e.style == "normal" and e.weight in (400, "normal"))


@cache
def _characters(path: str) -> frozenset[int]:
    try:
        return frozenset(FT2Font(path).get_charmap())
    except (OSError, RuntimeError):  # a font that was removed or is damaged has none
        return frozenset()
