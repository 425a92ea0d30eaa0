"""The studies that a worker works on: whether one has work, and claims of trials."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import optuna
from optuna.trial import TrialState

from tlopt.errors import Refused
from tlopt.search.plan import StudyPlan
from tlopt.search.promotion import Next, Pauses
from tlopt.spec.folders import Folders
from tlopt.spec.sections import ServiceSpec
from tlopt.spec.trial_spec import TrialSpec
from tlopt.storage import attributes, commands, leases, optuna_private, studies
from tlopt.storage.commands import Command
from tlopt.storage.leases import BudgetSpent, Claim
from tlopt.storage.rdb import ServiceStorage
from tlopt.storage.schema import epoch_seconds
from tlopt.storage.workers import Identity

if TYPE_CHECKING:
    from tlopt.training.checkpoint_store import CheckpointStore
    from tlopt.trial.workspace import Workspace

WorkState = Literal["work", "wait", "over"]


@dataclass(frozen=True, kw_only=True)
class StudyWork:
    """A study with everything that a worker needs to train its trials."""

    optuna_study: optuna.Study
    plan: StudyPlan
    workspace: "Workspace"
    folders: Folders
    service: ServiceSpec
    checkpoints: "CheckpointStore | None"

    def work_state(self, storage: ServiceStorage) -> tuple[WorkState, bool]:
        """`work_state` of this study."""
        return work_state(self.optuna_study, self.plan.n_open, hours=self.plan.hours, storage=storage)

    def exists(self, storage: ServiceStorage) -> bool:
        """Return whether the study has not been deleted."""
        study_id, name = self.study_id, self.optuna_study.study_name
        return storage.query(lambda executor: leases.study_exists(executor, study_id, name))

    @property
    def device(self) -> str:
        """Name of the device for its trials."""
        return str(self.workspace.device)

    @property
    def study_id(self) -> int:
        """The study's id in the database."""
        return optuna_private.study_id(self.optuna_study)


def work_state(
    optuna_study: optuna.Study,
    n_open: Callable[[optuna.Study], int],
    *,
    hours: float,
    storage: ServiceStorage,
) -> tuple[WorkState, bool]:
    """Return whether the study has work, may get some later, or is over; and whether a trial is waiting.

    While trials run elsewhere, a study with a full budget is not over yet: their workers may be lost.

    Args:
        n_open: number of trials to finish by now; called after trials are counted, so that a round that ends
            in between leaves room instead of ending the study.
        hours: period after the study's creation in which trials may start; 0: no limit.
    """
    study_id = optuna_private.study_id(optuna_study)
    command = storage.query(lambda executor: commands.read(executor, [study_id]))[study_id]
    if not command.runs_trials:
        return ("over" if command.ends_workers else "wait"), False
    counts = storage.query(lambda executor: leases.counts(executor, study_id))
    has_waiting = counts[TrialState.WAITING] > 0
    finished = counts[TrialState.COMPLETE] + counts[TrialState.PRUNED]
    trials = n_open(optuna_study)
    if finished >= trials:
        return "over", has_waiting
    room = trials - finished - counts[TrialState.RUNNING]
    if room > 0 and (has_waiting or not hours_are_over(optuna_study, hours, storage)):
        return "work", has_waiting
    return ("wait" if counts[TrialState.RUNNING] else "over"), has_waiting


def hours_are_over(optuna_study: optuna.Study, hours: float, storage: ServiceStorage) -> bool:
    """Return whether the period in which trials may start is over, by the database's clock."""
    if hours <= 0:
        return False
    now, began = storage.query(lambda executor: epoch_seconds(executor, storage.engine)), _began(optuna_study)
    return began is not None and now - began > hours * 3600


def _began(optuna_study: optuna.Study) -> float | None:
    """The study's start by the database's clock; None in studies of other software.

    Raises:
        StorageError: other software has changed this attribute or another one of the study.
    """
    began: float | None = studies.checked_attributes(optuna_study).get(attributes.BEGAN)
    return began


@dataclass(frozen=True, kw_only=True)
class HeldTrial:
    """A trial that this process holds, and its spec."""

    work: StudyWork
    trial: optuna.Trial
    lease: Claim
    spec: TrialSpec | None  # None if it is not to be trained
    refusal: str  # why it cannot be trained: its parameters do not belong to this study

    @property
    def study_name(self) -> str:
        """Name of the trial's study."""
        return self.work.optuna_study.study_name


def claim(work: StudyWork, storage: ServiceStorage, me: Identity, *, has_waiting: bool) -> HeldTrial | None:
    """Claim a trial and draw its parameters; return None if another worker was faster.

    Draw nothing for a trial that was lost too often: it might crash this worker too.

    Args:
        me: this worker.
        has_waiting: whether to look for a waiting trial before creating one.

    Raises:
        StorageError: other software has changed an attribute of the study.
    """
    began, budget = _began(work.optuna_study), work.plan.n_open(work.optuna_study)
    lease = Claim(study_id=work.study_id, worker_id=me.worker_id, budget=budget, has_waiting=has_waiting)
    ends = False
    if work.plan.pauses is not None:
        following = _following(work, work.plan.pauses, budget, storage)
        if following is None:
            return None
        lease.takes = frozenset(map(optuna_private.trial_id, following.trials))
        lease.has_waiting, lease.may_create = bool(following.trials), not following.trials
        ends = following.ends
    spec, refusal = None, ""
    try:
        with storage.claiming(lease):
            trial = work.optuna_study.ask()
            if began is not None:  # users may copy trials from one study to another
                trial.set_user_attr(attributes.STUDY, began)
            if n_epochs := attributes.promotion_of(trial, "paused"):
                trial.set_user_attr(attributes.PROMOTION, {"ended" if ends else "passed": n_epochs})
            if lease.crashes < work.service.crashes_max:
                try:
                    spec = work.plan.draw(trial)  # all parameters at once, to write them together
                except Refused as error:
                    refusal = str(error)
                else:
                    _describe(trial, spec, me, work.device)
    except BudgetSpent:
        return None
    return HeldTrial(work=work, trial=trial, lease=lease, spec=spec, refusal=refusal)


def _following(work: StudyWork, pauses: Pauses, n_trials: int, storage: ServiceStorage) -> Next | None:
    """The next trial of a study whose trials pause; None if this worker has to wait for others."""
    return pauses.next_trial(
        attributes.trials_of(work.optuna_study),
        n_trials=n_trials,
        may_begin=not hours_are_over(work.optuna_study, work.plan.hours, storage),
    )


def _describe(trial: optuna.Trial, spec: TrialSpec, me: Identity, device: str) -> None:
    """Set the attributes that are written together with the parameters: point, worker and label."""
    trial.set_user_attr(attributes.POINT, spec.point.as_dict())
    trial.set_user_attr(attributes.WORKER, {"worker": me.name, "device": device})
    if spec.label:
        trial.set_user_attr(attributes.LABEL, spec.label)
    if spec.recipes:
        trial.set_user_attr(attributes.RECIPES, list(spec.recipes))


def stop_reason(command: Command | None) -> str:
    """The reason why the study's trials must stop, or ""."""
    if command is None or command.runs_trials:
        return ""
    return f"the study is {command.state}" + (f": {command.reason}" if command.reason else "")
