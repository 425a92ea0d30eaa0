"""The cost of trials and runs: epochs, wall seconds and processor seconds."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from tlopt.storage.attributes import TrialRecord


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The cost of some trials, summed over all workers."""

    n: int
    epochs: int  # passes over a training split; a trial on three splits makes three per epoch
    seconds: float  # wall clock; more on a busy machine
    processor_seconds: float | None  # of the workers' processes; None if a record lacks it

    @classmethod
    def of(cls, trials: Iterable[TrialRecord], *, n_splits: int = 1) -> Self:
        """The cost of `trials`, each of which trains on `n_splits` splits; unreported epochs do not count.

        Carried trials count in the study that ran them, not in this one.
        """
        rows = [trial for trial in trials if not trial.is_carried]
        worked = [row for row in rows if row.seconds]
        known = all(row.processor_seconds is not None for row in worked)
        return cls(
            n=len(rows),
            epochs=n_splits * sum(row.last_epoch + 1 for row in rows if row.last_epoch is not None),
            seconds=sum(row.seconds or 0.0 for row in worked),
            processor_seconds=sum(row.processor_seconds or 0.0 for row in worked) if known else None,
        )

    def __add__(self, other: "Cost") -> "Cost":
        """The sum of both costs."""
        both = self.processor_seconds is not None and other.processor_seconds is not None
        return Cost(
            n=self.n + other.n,
            epochs=self.epochs + other.epochs,
            seconds=self.seconds + other.seconds,
            processor_seconds=(self.processor_seconds or 0) + (other.processor_seconds or 0)
            if both
            else None,
        )

    def as_dict(self) -> dict[str, float | int | None]:
        """Plain values for JSON."""
        return {
            "n": self.n,
            "epochs": self.epochs,
            "seconds": self.seconds,
            "processor_seconds": self.processor_seconds,
        }


NOTHING = Cost(n=0, epochs=0, seconds=0.0, processor_seconds=0.0)
