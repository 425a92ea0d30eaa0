"""How a trial ends: its record and state; and when failures end the whole study's work."""

from collections import Counter
from typing import TYPE_CHECKING

import optuna
from optuna.trial import TrialState

from tlopt.storage import attributes, commands, optuna_private
from tlopt.storage.attributes import OUTCOME_CONSTRAINT, TrialRecord, ran_here
from tlopt.storage.commands import Command
from tlopt.storage.rdb import ServiceStorage
from tlopt.worker.claim import StudyWork

if TYPE_CHECKING:
    from tlopt.worker.objective import Result

_BAD = ("crashed", "failed")


def tell(
    trial: optuna.Trial, result: "Result", notes: list[str], job: StudyWork, storage: ServiceStorage
) -> None:
    """End `trial`: complete with its value, or pruned; points that cannot be trained break a constraint.

    Record, constraint and state are written in one transaction.

    Raises:
        LeaseLost: it is another worker's by now.
    """
    storage.send(optuna_private.trial_id(trial))
    with storage.together(optuna_private.trial_id(trial)):
        trial.set_user_attr(attributes.RESULT, result.as_dict())
        if notes:
            trial.set_user_attr(attributes.NOTES, notes)
        trial.set_constraint(OUTCOME_CONSTRAINT, -1.0 if result.outcome in ("complete", "pruned") else 1.0)
        if result.outcome == "complete":
            job.optuna_study.tell(trial, result.value)
        else:
            job.optuna_study.tell(trial, state=TrialState.PRUNED)


def tell_without_training(
    trial: optuna.Trial, outcome: str, cause: str, notes: list[str], job: StudyWork, storage: ServiceStorage
) -> None:
    """End a trial that is not trained any further: it crashed too often, failed by an error, or was refused.

    A trial that failed or was refused uses up no budget.
    """
    storage.send(optuna_private.trial_id(trial))
    with storage.together(optuna_private.trial_id(trial)):
        trial.set_user_attr(attributes.RESULT, {"outcome": outcome, "cause": cause})
        if notes:
            trial.set_user_attr(attributes.NOTES, notes)
        if outcome == "crashed":
            trial.set_constraint(OUTCOME_CONSTRAINT, 1.0)
        state = TrialState.PRUNED if outcome == "crashed" else TrialState.FAIL
        job.optuna_study.tell(trial, state=state)
    stop_if_hopeless(job)


def stop_if_hopeless(job: StudyWork) -> None:
    """Stop the study's workers where its last trials, `failures_max` of them, all crashed or failed."""
    n = job.service.failures_max
    ended = [t for t in job.optuna_study.get_trials(deepcopy=False) if t.state.is_finished() and ran_here(t)]
    last = sorted(ended, key=lambda t: t.datetime_complete or t.datetime_start)[-n:]  # type: ignore[return-value, arg-type]
    rows = [TrialRecord.from_frozen(trial) for trial in last]
    if len(rows) < n or any(row.outcome not in _BAD for row in rows):
        return
    cause = Counter(row.cause for row in rows).most_common(1)[0][0]
    reason = f"the last {n} trials crashed or failed: {cause}; mend it, then: tlopt resume"
    commands.give(job.optuna_study, Command("stopped", reason))
