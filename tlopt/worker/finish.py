"""How a trial ends: its record, its state, its pictures; and when failures end the whole study's work."""

import shutil
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
from optuna.trial import TrialState

from tlopt.spec.objectives import is_better
from tlopt.spec.trial_spec import Task
from tlopt.storage import attributes, commands, leases, optuna_private
from tlopt.storage.attributes import TrialRecord
from tlopt.storage.commands import Order
from tlopt.storage.rdb import ServiceStorage
from tlopt.worker.claim import Job
from tlopt.worker.trial_log import TrialLog

if TYPE_CHECKING:
    from tlopt.worker.objective import Result

OUTCOME_CONSTRAINT = "outcome"  # above 0 for a point that could not be trained
_BAD = ("crashed", "failed")


def tell(trial: optuna.Trial, result: "Result", notes: list[str], job: Job, storage: ServiceStorage) -> None:
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
    trial: optuna.Trial, outcome: str, cause: str, notes: list[str], job: Job, storage: ServiceStorage
) -> None:
    """End a trial that is not trained any further: crashed too often, or failed by a programming error."""
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


def stop_if_hopeless(job: Job) -> None:
    """Stop the study's workers where its last trials, `failures_max` of them, all crashed or failed."""
    n = job.service.failures_max
    ended = [t for t in job.optuna_study.get_trials(deepcopy=False) if t.state.is_finished()]
    last = sorted(ended, key=lambda t: t.datetime_complete or t.datetime_start)[-n:]  # type: ignore[return-value, arg-type]
    rows = [TrialRecord.from_frozen(trial) for trial in last]
    if len(rows) < n or any(row.outcome not in _BAD for row in rows):
        return
    cause = Counter(row.cause for row in rows).most_common(1)[0][0]
    reason = f"the last {n} trials crashed or failed: {cause}; mend it, then: tlopt resume"
    commands.give_order(job.optuna_study, Order("stopped", reason))


def shows(value: float, task: Task, job: Job, storage: ServiceStorage) -> bool:
    """Whether a complete trial is to have pictures: those asked for by name do, and those that lead."""
    if task.label:
        return True
    best = storage.ask(lambda executor: leases.best_value(executor, job.study_id, job.optuna_study.direction))
    if best is None:
        return True
    return is_better(value, best, job.bench.study.direction)


def show(trial: optuna.Trial, task: Task, result: "Result", job: Job, log: TrialLog) -> None:
    """Pictures of a trial that is to have some, for the dashboard."""
    folder = job.folders.pictures / f"{trial.number:04d}"
    try:
        _draw(trial, task, result, job, folder)
    except OSError as error:  # a full disk takes a picture, not the trial
        shutil.rmtree(folder, ignore_errors=True)  # half of one may be there
        log.note(f"no pictures: {error}")


def _draw(trial: optuna.Trial, task: Task, result: "Result", job: Job, folder: Path) -> None:
    # matplotlib takes its time to load, which commands that draw nothing need not wait for
    from tlopt.plots.training import draw_confusion, draw_learning_curves, draw_mistakes

    title = f"{job.optuna_study.study_name} #{trial.number}" + (f": {task.label}" if task.label else "")
    rows = [epoch.val.as_dict() for epoch in result.epochs if epoch.val is not None]
    confusion = result.epochs[-1].confusion
    assert confusion is not None, "a trial always has validation images"
    names, mistakes = job.bench.data.class_names, result.mistakes
    files = [
        draw_learning_curves(
            folder / "learning_curves.png",
            train_loss=[epoch.train_loss for epoch in result.epochs],
            val={name: [row[name] for row in rows] for name in rows[0]},
            title=title,
        ),
        draw_confusion(
            folder / "confusion.png",
            counts=confusion,
            class_names=names,
            title=f"{title}, validation",
        ),
    ]
    if mistakes is not None and len(mistakes.labels):
        captions = [
            f"{names[label]}\n{probability:.0%} {names[predicted]}"
            for label, predicted, probability in zip(
                mistakes.labels, mistakes.predicted, mistakes.probability, strict=True
            )
        ]
        files.append(
            draw_mistakes(
                folder / "mistakes.png",
                pictures=mistakes.pictures,
                captions=captions,
                title=f"{title}, surest mistakes on validation\ntrue class, below it what it was taken for",
            )
        )
    job.folders.artifacts.mkdir(parents=True, exist_ok=True)
    store = optuna.artifacts.FileSystemArtifactStore(job.folders.artifacts)
    for file in files:
        optuna.artifacts.upload_artifact(artifact_store=store, file_path=str(file), study_or_trial=trial)
