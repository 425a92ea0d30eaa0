"""A study as a worker serves it: whether it has work, and the claim of a trial."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import optuna
from optuna.trial import TrialState

from tlopt.errors import Refused
from tlopt.search.plan import StudyPlan
from tlopt.spec.folders import Folders
from tlopt.spec.sections import ServiceSpec
from tlopt.spec.trial_spec import TrialSpec
from tlopt.storage import attributes, commands, leases, optuna_private
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
    """A study as a worker serves it."""

    optuna_study: optuna.Study
    plan: StudyPlan
    workspace: "Workspace"
    folders: Folders
    service: ServiceSpec
    checkpoints: "CheckpointStore | None"

    def work_state(self, storage: ServiceStorage) -> tuple[WorkState, bool]:
        """See `work_state`."""
        return work_state(self.optuna_study, trials=self.plan.trials, hours=self.plan.hours, storage=storage)

    def exists(self, storage: ServiceStorage) -> bool:
        """Whether nobody has deleted the study."""
        study_id, name = self.study_id, self.optuna_study.study_name
        return storage.query(lambda executor: leases.study_exists(executor, study_id, name))

    @property
    def device(self) -> str:
        """The name of the device that trials run on."""
        return str(self.workspace.device)

    @property
    def study_id(self) -> int:
        """The database's."""
        return optuna_private.study_id(self.optuna_study)


def work_state(
    optuna_study: optuna.Study, *, trials: int, hours: float, storage: ServiceStorage
) -> tuple[WorkState, bool]:
    """Whether the study has work, may get some, or is over; and whether a trial waits.

    While trials run elsewhere, a study without room is not over: their workers may be lost.

    Args:
        trials: number of trials to finish.
        hours: time after the study's beginning in which trials may start; 0: no limit.
    """
    study_id = optuna_private.study_id(optuna_study)
    command = storage.query(lambda executor: commands.read(executor, [study_id]))[study_id]
    if not command.runs_trials:
        return ("over" if command.ends_workers else "wait"), False
    counts = storage.query(lambda executor: leases.counts(executor, study_id))
    has_waiting = counts[TrialState.WAITING] > 0
    finished = counts[TrialState.COMPLETE] + counts[TrialState.PRUNED]
    if finished >= trials:
        return "over", has_waiting
    room = trials - finished - counts[TrialState.RUNNING]
    if room > 0 and (has_waiting or not hours_are_over(optuna_study, hours, storage)):
        return "work", has_waiting
    return ("wait" if counts[TrialState.RUNNING] else "over"), has_waiting


def hours_are_over(optuna_study: optuna.Study, hours: float, storage: ServiceStorage) -> bool:
    """Whether the study's hours are over, by the database's clock: no new trial is started."""
    if hours <= 0:
        return False
    now = storage.query(lambda executor: epoch_seconds(executor, storage.engine))
    began = optuna_study.user_attrs.get(attributes.BEGAN, now)
    return bool(now - began > hours * 3600)


@dataclass(frozen=True, kw_only=True)
class HeldTrial:
    """A trial that this process holds until it ends, and what it is to do."""

    work: StudyWork
    trial: optuna.Trial
    lease: Claim
    spec: TrialSpec | None  # None where it is not to be trained
    refusal: str  # why it cannot be trained: somebody gave it parameters that are not of this study

    @property
    def study_name(self) -> str:
        """The name of its study."""
        return self.work.optuna_study.study_name


def claim(work: StudyWork, storage: ServiceStorage, me: Identity, *, has_waiting: bool) -> HeldTrial | None:
    """A trial to run, its parameters drawn, or None when another worker was quicker.

    A trial that was lost too often draws nothing: whatever is wrong with it could end this worker, too.

    Args:
        me: this worker.
        has_waiting: whether a waiting trial was seen; otherwise none is looked for.
    """
    lease = Claim(
        study_id=work.study_id, worker_id=me.worker_id, budget=work.plan.trials, has_waiting=has_waiting
    )
    spec, refusal = None, ""
    try:
        with storage.claiming(lease):
            trial = work.optuna_study.ask()
            if lease.crashes < work.service.crashes_max:
                try:
                    spec = work.plan.draw(trial)  # every parameter, so that they are written together
                except Refused as error:
                    refusal = str(error)
                else:
                    _describe(trial, spec, me, work.device)
    except BudgetSpent:
        return None
    return HeldTrial(work=work, trial=trial, lease=lease, spec=spec, refusal=refusal)


def _describe(trial: optuna.Trial, spec: TrialSpec, me: Identity, device: str) -> None:
    """Note what is tried, and where; written together with the parameters."""
    trial.set_user_attr(attributes.POINT, spec.point.as_dict())
    trial.set_user_attr(attributes.WORKER, {"worker": me.name, "device": device})
    if spec.label:
        trial.set_user_attr(attributes.LABEL, spec.label)


def stop_reason(command: Command | None) -> str:
    """Why a trial may not go on, or ""."""
    if command is None or command.runs_trials:
        return ""
    return f"the study is {command.state}" + (f": {command.reason}" if command.reason else "")
