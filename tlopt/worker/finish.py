"""The end of a trial, and stopping a study whose trials keep failing."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.trial import TrialState

from tlopt.spec.outcome import Outcome
from tlopt.storage import attributes, commands, optuna_private
from tlopt.storage.attributes import OUTCOME_CONSTRAINT, TrialRecord, ran_here
from tlopt.storage.commands import Command
from tlopt.storage.rdb import ServiceStorage
from tlopt.system.words import counted
from tlopt.worker.claim import HeldTrial, StudyWork

_STATES = {
    Outcome.COMPLETE: TrialState.COMPLETE,
    Outcome.FAILED: TrialState.FAIL,
    Outcome.REFUSED: TrialState.FAIL,
}


def finish_trial(
    held: HeldTrial,
    outcome: Outcome,
    record: dict[str, Any],
    notes: list[str],
    storage: ServiceStorage,
    *,
    values: Sequence[float] = (),
    constraints: Mapping[str, float] | None = None,
) -> None:
    """Finish a trial as complete, pruned or failed; only failed trials do not count toward the budget.

    Record, constraint and state are written in one transaction. Infeasible points violate the constraint;
    failures do not say anything about their point.

    Args:
        record: the trial's result, including outcome and cause.
        values: of a complete trial, one for each objective of the study.
        constraints: the study's own, by name; above 0 where the trial breaks one.

    Raises:
        LeaseLost: another worker holds the trial by now.
    """
    trial, state = held.trial, _STATES.get(outcome, TrialState.PRUNED)
    storage.write_pending(optuna_private.trial_id(trial))
    with storage.writing_together(optuna_private.trial_id(trial)):
        trial.set_user_attr(attributes.TRIAL_RESULT, record)
        if notes:
            trial.set_user_attr(attributes.NOTES, notes)
        if state != TrialState.FAIL:
            trial.set_constraint(OUTCOME_CONSTRAINT, -1.0 if outcome.is_trained else 1.0)
            for name, excess in (constraints or {}).items():
                trial.set_constraint(name, excess)
        held.work.optuna_study.tell(trial, values or None, state)
    if outcome.is_program_fault:
        stop_after_failures(held.work)


def stop_after_failures(work: StudyWork) -> None:
    """Stop the study if its last `failures_max` trials all crashed or failed."""
    n = work.service.failures_max
    trials = attributes.trials_of(work.optuna_study)
    ended = [trial for trial in trials if trial.state.is_finished() and ran_here(trial)]
    ended.sort(key=lambda t: t.datetime_complete or t.datetime_start)  # type: ignore[return-value, arg-type]
    rows = [row for row in map(TrialRecord.from_frozen, ended) if row.outcome != Outcome.REFUSED][-n:]
    if len(rows) < n or not all(row.outcome.is_program_fault for row in rows):
        return
    cause = Counter(row.cause for row in rows).most_common(1)[0][0]
    reason = f"the last {counted(n, 'trial')} crashed or failed: {cause}; fix it, then: tlopt resume"
    commands.send(work.optuna_study, Command("stopped", reason))
