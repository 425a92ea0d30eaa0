"""Class names in scripts that the usual font lacks are drawn with an installed font that has them."""

import pytest

from tlopt.plots import fonts

LACKED = "雛"


def test_text_that_the_usual_font_holds_needs_no_other() -> None:
    assert fonts.families("daisy ä") == fonts.families("")


def test_a_font_that_holds_what_is_missing_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = fonts.families("")
    known = {"none": frozenset({1}), "cjk": frozenset({ord(LACKED)}), "later": frozenset({ord(LACKED)})}
    monkeypatch.setattr(fonts, "_installed", lambda: (("None", "none"), ("CJK", "cjk"), ("Later", "later")))
    monkeypatch.setattr(fonts, "_characters", lambda path: known.get(path, frozenset()))

    assert fonts.families(LACKED) == [*usual, "CJK"]
