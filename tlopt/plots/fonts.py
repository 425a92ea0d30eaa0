"""Fonts for class names in any script: installed fonts with the characters that matplotlib's lacks."""

from functools import cache

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font


def font_families(text: str) -> list[str]:
    """Font families for `text`: the default ones, then installed ones with the missing characters."""
    default = list(mpl.rcParams["font.family"])
    missing = {ord(each) for each in text if not each.isspace()} - _characters(font_manager.findfont("sans"))
    more: list[str] = []
    for name, path in _installed() if missing else ():
        found = missing & _characters(path)
        if found:
            more.append(name)
            missing -= found
        if not missing:
            break
    return default + more


@cache
def _installed() -> tuple[tuple[str, str], ...]:
    """Name and file of each installed font of normal style and weight."""
    entries = font_manager.fontManager.ttflist
    return tuple((e.name, e.fname) for e in entries if e.style == "normal" and e.weight in (400, "normal"))


@cache
def _characters(path: str) -> frozenset[int]:
    try:
        return frozenset(FT2Font(path).get_charmap())
    except (OSError, RuntimeError):  # the font was removed or is damaged
        return frozenset()
