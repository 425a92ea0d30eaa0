"""Distinct causes of trials that failed or do not count."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from tlopt.spec.objectives import excess_size
from tlopt.spec.outcome import Outcome
from tlopt.storage.attributes import TrialRecord

_NUMBERS_MAX = 5  # trials named per line


@dataclass(frozen=True, kw_only=True)
class Cause:
    """A cause, and the numbers of the trials that it ended or invalidated."""

    outcome: Outcome
    cause: str
    numbers: tuple[int, ...]

    @property
    def trials(self) -> str:
        """The numbers as text, as in "trial 3, 5, 8"."""
        more = ", ..." if len(self.numbers) > _NUMBERS_MAX else ""
        return f"trial {', '.join(map(str, self.numbers[:_NUMBERS_MAX]))}{more}"


def causes(trials: Iterable[TrialRecord]) -> tuple[Cause, ...]:
    """The causes of `trials` that were not trained to a value that counts, most frequent first.

    Infeasible trials that break the same constraints are one cause, with the least and the largest violation.
    """
    found: dict[tuple[Outcome, str], list[TrialRecord]] = {}
    for trial in trials:
        if trial.cause and trial.outcome not in (Outcome.PRUNED, Outcome.COMPLETE):
            infeasible = trial.outcome == Outcome.INFEASIBLE
            same = " ".join(trial.violations) if infeasible else trial.cause
            found.setdefault((trial.outcome, same), []).append(trial)
    rows = [
        Cause(outcome=outcome, cause=_words(outcome, rows), numbers=tuple(row.number for row in rows))
        for (outcome, _), rows in found.items()
    ]
    return tuple(sorted(rows, key=lambda row: -len(row.numbers)))


def _words(outcome: Outcome, trials: Sequence[TrialRecord]) -> str:
    if outcome != Outcome.INFEASIBLE or len(trials) == 1:
        return trials[0].cause
    return "they break " + " and ".join(_ranges(trials))


def _ranges(trials: Sequence[TrialRecord]) -> Iterator[str]:
    """Each constraint that `trials` break, with its range of violations."""
    for name in trials[0].violations:
        sizes = [trial.violations[name] for trial in trials]
        low, high = (excess_size(name, bound(sizes)) for bound in (min, max))
        yield f"{name} by {low}" + (f" to {high}" if high != low else "")
