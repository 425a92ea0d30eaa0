"""Progress of reading images: a bar on a terminal, occasional lines elsewhere."""

import itertools
from collections.abc import Iterator

import pytest

from tlopt.data import threads


@pytest.mark.parametrize(("seconds", "lines"), [(0.1, 0), (2.0, 4)])
def test_where_there_is_no_terminal_a_line_is_written_now_and_then(
    seconds: float, lines: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock: Iterator[float] = itertools.count(0.0, seconds)
    monkeypatch.setattr(threads.time, "monotonic", lambda: next(clock))

    assert list(threads.each(abs, range(20), label="decoding", progress=True)) == list(range(20))

    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == lines
    assert all(line.startswith("decoding: ") and line.endswith(" of 20") for line in said.err.splitlines())


def test_without_progress_nothing_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(threads.each(abs, range(20), label="decoding", progress=False)) == list(range(20))
    assert capsys.readouterr().err == ""
