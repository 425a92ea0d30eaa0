"""Class names in scripts that the default font lacks are drawn with an installed font."""

import pytest

from tlopt.plots import fonts

LACKED = "雛"


def test_text_in_the_default_font_needs_no_other() -> None:
    assert fonts.font_families("daisy ä") == fonts.font_families("")


def test_a_font_with_the_missing_characters_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = fonts.font_families("")
    known = {"none": frozenset({1}), "cjk": frozenset({ord(LACKED)}), "later": frozenset({ord(LACKED)})}
    monkeypatch.setattr(fonts, "_installed", lambda: (("None", "none"), ("CJK", "cjk"), ("Later", "later")))
    monkeypatch.setattr(fonts, "_characters", lambda path: known.get(path, frozenset()))

    assert fonts.font_families(LACKED) == [*usual, "CJK"]
