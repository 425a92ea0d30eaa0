"""The text of findings, and checks that fail or hang."""

import threading
from collections.abc import Generator, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from looked import problem

from tlopt.doctor.finding import WIDTH, CheckFailed, Finding, as_text, guarded
from tlopt.errors import DataError, StorageError

Check = Generator[Finding, None, int]

FINE = Finding("ok", "one", "is fine")
WORDS = st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=WIDTH - 15)
PARAGRAPHS = st.lists(st.lists(WORDS, min_size=1).map(" ".join), min_size=1, max_size=3).map("\n".join)


def results(check: Check, *, seconds: float | None = 60) -> tuple[list[Finding], int | None]:
    """The findings of `check`, guarded, and its result."""
    found = []
    guard = guarded("planted", check, seconds=seconds, late="wake it")
    while True:
        try:
            found.append(next(guard))
        except StopIteration as end:
            return found, end.value


def failing(error: Exception) -> Check:
    yield FINE
    raise error


@given(PARAGRAPHS, PARAGRAPHS | st.just(""))
def test_no_line_is_wider_than_80_columns_and_no_word_is_lost(detail: str, cure: str) -> None:
    lines = as_text(Finding("problem", "disk", detail, cure)).plain.splitlines()
    words = " ".join(lines).split()

    assert [line for line in lines if len(line) > WIDTH] == []
    assert [word for word in words if word != "cure:"] == [
        word for word in ["problem", "disk:", *detail.split(), *cure.split()] if word != "cure:"
    ]


def test_a_cure_is_on_separate_lines() -> None:
    text = as_text(Finding("note", "disk", "is nearly full", "make room")).plain

    assert text == "note     disk: is nearly full\n         cure: make room"


def test_a_path_is_not_broken() -> None:
    path = "/" + "a-b" * 40

    assert path in as_text(Finding("problem", "disk", f"{path} cannot be written")).plain


def test_markup_in_a_path_is_shown_as_it_is() -> None:
    assert "[red]/x" in as_text(Finding("ok", "disk", "[red]/x")).plain


def test_a_check_without_errors_gives_its_findings_and_its_result() -> None:
    def check() -> Check:
        yield FINE
        yield FINE
        return 7

    assert results(check()) == ([FINE, FINE], 7)


def test_a_check_may_fail_with_a_last_finding() -> None:
    last = Finding("problem", "two", "is broken", "mend it")

    assert results(failing(CheckFailed(last))) == ([FINE, last], None)


def test_an_error_of_tlopt_is_shown_without_changes() -> None:
    found, result = results(failing(DataError("first line\ntake postgresql://USER:PASSWORD@HOST/DATABASE")))

    assert result is None
    assert found[1:] == [
        Finding("problem", "planted", "first line\ntake postgresql://USER:PASSWORD@HOST/DATABASE")
    ]


@pytest.mark.parametrize("error", [ValueError, OSError, RuntimeError, ImportError, AssertionError])
def test_any_other_error_is_a_finding_with_its_type_and_without_passwords(error: type[Exception]) -> None:
    found, result = results(failing(error("no postgresql://me:topsecret@host/x")))

    assert result is None
    assert found[0] == FINE
    assert "no postgresql://me:***@host/x" in problem(found).detail


def test_a_check_that_hangs_is_abandoned_and_its_earlier_findings_remain() -> None:
    wake = threading.Event()

    def check() -> Check:
        yield FINE
        wake.wait()
        return 7

    found = results(check(), seconds=0.05)
    wake.set()

    assert found == ([FINE, Finding("problem", "planted", "no response within 0.05 s", "wake it")], None)


def test_a_storage_error_names_no_password() -> None:
    def check() -> Iterator[Finding]:
        from tlopt.storage.url import normalise

        normalise("mysql://me:topsecret@host/x")
        yield FINE

    found = results(check())[0]  # type: ignore[arg-type]

    assert "USER:PASSWORD@HOST" in problem(found).detail
    assert "topsecret" not in repr(found)
    assert StorageError.__name__ not in repr(found)
