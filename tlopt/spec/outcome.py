"""`Outcome`: the state of a trial, or the way it ended."""

from enum import StrEnum


class Outcome(StrEnum):
    """The state of a trial, with the name used in records and tables."""

    WAITING = "waiting"
    PAUSED = "paused"  # after some epochs, by the pruner "promotion" or "front"
    RUNNING = "running"
    COMPLETE = "complete"
    INFEASIBLE = "infeasible"  # breaks a constraint: never the best; not trained if that was known before
    PRUNED = "pruned"  # by the study's pruner
    DIVERGED = "diverged"
    OUT_OF_MEMORY = "out_of_memory"
    TIMED_OUT = "timed_out"
    CRASHED = "crashed"  # its workers died repeatedly
    REFUSED = "refused"  # enqueued with parameters that do not belong to the search
    FAILED = "failed"  # by a programming error, or set to failed by a user
    ADDED = "added"  # complete or pruned, and not run by tlopt
    CARRIED = "carried_over"  # run in an earlier study from which this one was warm-started

    @property
    def words(self) -> str:
        """The name as used in a sentence."""
        return self.value.replace("_", " ")

    @property
    def is_trained(self) -> bool:
        """Whether the point could be trained, to the end or until the pruner stopped it."""
        return self in (Outcome.COMPLETE, Outcome.INFEASIBLE, Outcome.PRUNED)

    @property
    def is_program_fault(self) -> bool:
        """Whether the cause is the program or the machine, not the point."""
        return self in (Outcome.CRASHED, Outcome.FAILED)
