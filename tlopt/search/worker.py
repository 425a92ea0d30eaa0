"""A worker: takes trials of one study until its budget is spent or it is asked to stop."""

import os
import socket
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from tlopt.errors import TloptError
from tlopt.search import records
from tlopt.search.interrupt import Interrupt, Interrupted
from tlopt.search.log import TrialLog
from tlopt.search.plan import Plan
from tlopt.search.task import Task

if TYPE_CHECKING:
    from tlopt.search.bench import Bench
    from tlopt.search.trial import Result

OUTCOME_CONSTRAINT = "outcome"  # above 0 for a point that could not be trained
_COUNTED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING, TrialState.WAITING)


@dataclass(frozen=True, kw_only=True)
class Folders:
    """Where a study's files go."""

    root: Path  # of all studies, "runs" by default
    study: str

    @property
    def logs(self) -> Path:
        """One JSONL file a trial."""
        return self.root / self.study / "trials"

    @property
    def pictures(self) -> Path:
        """One folder a trial."""
        return self.root / self.study / "pictures"

    @property
    def artifacts(self) -> Path:
        """What optuna-dashboard shows; one store for all studies."""
        return self.root / "artifacts"


def worker_name() -> str:
    """Host and process, the same for all trials of a worker."""
    return f"{socket.gethostname()}:{os.getpid()}"


def work(
    optuna_study: optuna.Study,
    storage: BaseStorage,
    plan: Plan,
    bench: "Bench",
    folders: Folders,
    interrupt: Interrupt,
) -> int:
    """Run trials one after the other; returns how many this worker finished.

    Trials that processes of this host left behind are taken up first.

    Ends when the budget is spent or when `interrupt` was asked for; then the trial under way is handed back.

    Raises:
        Exception: a programming error in a trial; its trial is FAIL, with the cause in its record.
    """
    n_finished = 0
    hand_back_orphans(storage, optuna_study)
    while not interrupt.requested:
        trial = claim(optuna_study, plan)
        if trial is None:
            break
        try:
            _run_one(trial, optuna_study, storage, plan, bench, folders, interrupt)
        except Interrupted:
            hand_back(storage, optuna_study.study_name, trial.number)
            break
        n_finished += 1
    return n_finished


def claim(optuna_study: optuna.Study, plan: Plan) -> optuna.Trial | None:
    """A trial to run, or None when the budget is spent.

    Trials are counted before one is asked for and again after: of workers that asked at once, those whose
    trials lie past the budget withdraw them as FAIL, so that complete and pruned ones come to the budget.
    """
    if not has_work(optuna_study.get_trials(deepcopy=False), plan):
        return None
    trial = optuna_study.ask()
    counted = optuna_study.get_trials(deepcopy=False, states=_COUNTED)
    if sum(1 for other in counted if other.number < trial.number) >= plan.trials:
        trial.set_user_attr(records.RESULT, {"outcome": "withdrawn", "cause": "the budget was spent"})
        optuna_study.tell(trial, state=TrialState.FAIL)
        return None
    trial.set_user_attr(records.WORKER, {"worker": worker_name()})
    return trial


def has_work(trials: Sequence[FrozenTrial], plan: Plan) -> bool:
    """Whether a worker would find a trial to run: one that waits, or a place in the budget."""
    counted = [trial for trial in trials if trial.state in _COUNTED]
    if any(trial.state == TrialState.WAITING for trial in counted):
        return True
    return len(counted) < plan.trials and not _too_late(counted, plan.hours)


def hand_back_orphans(storage: BaseStorage, optuna_study: optuna.Study) -> list[int]:
    """Make running trials wait whose worker was a process of this host that is gone; their numbers.

    Only this host's processes can be looked at, and a process with our own number is a former one.
    """
    host = socket.gethostname()
    numbers = []
    for trial in optuna_study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        worker_host, _, pid = trial.user_attrs.get(records.WORKER, {}).get("worker", "").rpartition(":")
        if worker_host == host and (int(pid) == os.getpid() or not _is_alive(int(pid))):
            hand_back(storage, optuna_study.study_name, trial.number)
            numbers.append(trial.number)
    return numbers


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def hand_back(storage: BaseStorage, study_name: str, number: int) -> None:
    """Make a running trial wait for the next worker, who gets the same number and parameters."""
    study_id = storage.get_study_id_from_name(study_name)
    trial_id = storage.get_trial_id_from_study_id_trial_number(study_id, number)
    storage.set_trial_state_values(trial_id, TrialState.WAITING)


def _too_late(trials: list[FrozenTrial], hours: float) -> bool:
    starts = [trial.datetime_start for trial in trials if trial.datetime_start is not None]
    return hours > 0 and bool(starts) and datetime.now() - min(starts) > timedelta(hours=hours)


def _run_one(
    trial: optuna.Trial,
    optuna_study: optuna.Study,
    storage: BaseStorage,
    plan: Plan,
    bench: "Bench",
    folders: Folders,
    interrupt: Interrupt,
) -> None:
    from tlopt.search.trial import run_trial

    task = plan.task_of(trial)
    log = TrialLog(folders.logs / f"{trial.number:04d}.jsonl")
    trial.set_user_attr(records.POINT, task.point.as_dict())
    trial.set_user_attr(records.WORKER, {"worker": worker_name(), "device": str(bench.device)})
    if task.label:
        trial.set_user_attr(records.LABEL, task.label)
    log.start(trial=trial.number, label=task.label, worker=worker_name(), point=task.point.as_dict())
    try:
        result = run_trial(trial, task, bench, log=log, interrupt=interrupt)
    except TloptError:
        hand_back(storage, optuna_study.study_name, trial.number)
        raise
    except Exception as error:
        cause = "".join(traceback.format_exception_only(error)).strip()
        trial.set_user_attr(records.RESULT, {"outcome": "failed", "cause": cause})
        log.end(outcome="failed", cause=cause)
        optuna_study.tell(trial, state=TrialState.FAIL)
        raise
    try:
        _show(trial, task, result, optuna_study, bench, folders)
    except OSError as error:  # a full disk takes a picture, not the trial
        log.note(f"no pictures: {error}")
    _tell(trial, result, optuna_study)
    log.end(**result.as_dict(), value=result.value)


def _tell(trial: optuna.Trial, result: "Result", optuna_study: optuna.Study) -> None:
    """End `trial`: complete with its value, or pruned; points that cannot be trained break a constraint."""
    trial.set_user_attr(records.RESULT, result.as_dict())
    if result.outcome in ("complete", "pruned"):
        trial.set_constraint(OUTCOME_CONSTRAINT, -1.0)
    else:
        trial.set_constraint(OUTCOME_CONSTRAINT, 1.0)
    if result.outcome == "complete":
        optuna_study.tell(trial, result.value)
    else:
        optuna_study.tell(trial, state=TrialState.PRUNED)


def _show(
    trial: optuna.Trial,
    task: Task,
    result: "Result",
    optuna_study: optuna.Study,
    bench: "Bench",
    folders: Folders,
) -> None:
    """Pictures for the dashboard: of trials that were asked for by name and of those that lead."""
    if result.outcome != "complete" or not (task.label or _leads(result, optuna_study)):
        return
    # matplotlib takes its time to load, which commands that draw nothing need not wait for
    from tlopt.insight.pictures import draw_confusion, draw_learning_curves

    folder = folders.pictures / f"{trial.number:04d}"
    title = f"{optuna_study.study_name} #{trial.number}" + (f": {task.label}" if task.label else "")
    rows = [epoch.val.as_dict() for epoch in result.epochs if epoch.val is not None]
    confusion = result.epochs[-1].confusion
    assert confusion is not None, "a trial always has validation images"
    files = (
        draw_learning_curves(
            folder / "learning_curves.png",
            train_loss=[epoch.train_loss for epoch in result.epochs],
            val={name: [row[name] for row in rows] for name in rows[0]},
            title=title,
        ),
        draw_confusion(
            folder / "confusion.png",
            counts=confusion,
            class_names=bench.data.class_names,
            title=f"{title}, validation",
        ),
    )
    folders.artifacts.mkdir(parents=True, exist_ok=True)
    store = optuna.artifacts.FileSystemArtifactStore(folders.artifacts)
    for file in files:
        optuna.artifacts.upload_artifact(artifact_store=store, file_path=str(file), study_or_trial=trial)


def _leads(result: "Result", optuna_study: optuna.Study) -> bool:
    values = [
        trial.value
        for trial in optuna_study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if trial.value is not None
    ]
    if not values or result.value is None:
        return True
    if optuna_study.direction == optuna.study.StudyDirection.MINIMIZE:
        return result.value < min(values)
    return result.value > max(values)
