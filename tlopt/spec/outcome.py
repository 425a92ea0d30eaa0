"""`Outcome`: what a trial is or has come to."""

from enum import StrEnum


class Outcome(StrEnum):
    """The state of a trial as its record and all tables name it."""

    WAITING = "waiting"
    RUNNING = "running"
    COMPLETE = "complete"
    INFEASIBLE = "infeasible"  # complete, and it breaks a constraint: never the best, whatever its value
    PRUNED = "pruned"  # by the study's pruner
    DIVERGED = "diverged"
    OUT_OF_MEMORY = "out_of_memory"
    TIMED_OUT = "timed_out"
    CRASHED = "crashed"  # it was lost with its workers, time after time
    REFUSED = "refused"  # somebody gave it parameters that are not of the search
    FAILED = "failed"  # by a programming error, or ended by somebody
    ADDED = "added"  # complete or pruned, and not run by tlopt
    CARRIED = "carried_over"  # run in an earlier study, with whose trials this one began

    @property
    def words(self) -> str:
        """As in a sentence."""
        return self.value.replace("_", " ")

    @property
    def is_trained(self) -> bool:
        """Whether the point could be trained, to the end or to where the pruner stopped it."""
        return self in (Outcome.COMPLETE, Outcome.INFEASIBLE, Outcome.PRUNED)

    @property
    def is_mishap(self) -> bool:
        """Whether it says something about the program or the machine, and nothing about the point."""
        return self in (Outcome.CRASHED, Outcome.FAILED)
