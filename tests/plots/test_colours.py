"""Contrasts of all colours by WCAG 2.2, in the light and the dark palette."""

import re
from dataclasses import asdict
from pathlib import Path

import pytest

import tlopt
from tlopt.plots.colours import CELL_SHARE_MAX, DARK, LIGHT, Palette, blend

TEXT, MARKS = 4.5, 3.0  # success criteria 1.4.3 and 1.4.11
PALETTES = pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
PACKAGE = Path(tlopt.__file__).parent
DECORATIVE = {"rule"}  # rules and grid lines, which convey no information


def luminance(colour: str) -> float:
    """Relative luminance of "#rrggbb", https://www.w3.org/TR/WCAG22/#dfn-relative-luminance."""
    channels = [value / 255 for value in bytes.fromhex(colour[1:])]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_the_formula_gives_the_values_of_the_standard() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


@PALETTES
@pytest.mark.parametrize(
    ("text", "background"),
    [
        ("ink", "page"),
        ("ink", "card"),
        ("ink", "mark"),
        ("muted", "page"),
        ("muted", "card"),
        ("point", "page"),
    ],
)
def test_text_can_be_read(palette: Palette, text: str, background: str) -> None:
    assert contrast(palette[text], palette[background]) >= TEXT


@PALETTES
@pytest.mark.parametrize("mark", ["point", "line", "third", "pale", "muted"])
def test_marks_and_lines_can_be_seen(palette: Palette, mark: str) -> None:
    assert contrast(palette[mark], palette.page) >= MARKS


@PALETTES
@pytest.mark.parametrize("colour", ["point", "line"])
def test_a_number_in_the_strongest_cell_can_be_read(palette: Palette, colour: str) -> None:
    assert contrast(palette.ink, blend(palette[colour], palette.page, CELL_SHARE_MAX)) >= TEXT


@PALETTES
def test_every_colour_is_checked_or_decorative(palette: Palette) -> None:
    measured = {"page", "card", "mark", "ink", "muted", "point", "line", "third", "pale"}

    assert measured | DECORATIVE == set(asdict(palette))


def test_colours_are_blended_by_channel() -> None:
    assert blend("#ff0080", "#000000", 0.5) == "#800040"


@pytest.mark.parametrize("room", ["plots", "reports", "exports"])
def test_figures_have_only_colours_of_the_palettes(room: str) -> None:
    placeholders = 'f"#01020'  # placeholders in svg.py, replaced by CSS variables

    for file in [*(PACKAGE / room).rglob("*.py"), *(PACKAGE / room).rglob("*.jinja")]:
        if file.name != "colours.py":
            text = file.read_text().replace(placeholders, "")
            assert re.findall(r"#[0-9a-fA-F]{6}\b|\"C\d\"|alpha=", text) == [], file
