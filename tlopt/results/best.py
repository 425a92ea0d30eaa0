"""The best point that a study has come to so far."""

from collections.abc import Iterable

from tlopt.point import Point
from tlopt.results.verdict import Verdict
from tlopt.search.records import TrialRecord, best_first


def best_point(
    verdict: Verdict | None, trials: Iterable[TrialRecord], direction: str
) -> tuple[str, Point] | None:
    """Label and point of the confirmed choice, or before that of the best complete trial; None without one.

    Args:
        verdict: of the confirmation; None where it was not begun.
    """
    if verdict is not None and verdict.finished:
        return verdict.chosen.label, verdict.chosen.point
    complete = best_first(trials, direction)
    return (f"trial {complete[0].number}", Point.from_dict(complete[0].point or {})) if complete else None
