"""A worker: takes trials of its studies until their budgets are spent or it is asked to stop."""

import logging
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import optuna

from tlopt.dashboard import note, study_figure
from tlopt.errors import StorageError, TloptError
from tlopt.spec.trial_spec import TrialSpec
from tlopt.storage import attributes, leases, optuna_private, workers
from tlopt.storage.commands import Command
from tlopt.storage.leases import Claim, LeaseLost
from tlopt.storage.rdb import ServiceStorage
from tlopt.storage.workers import Identity
from tlopt.worker.claim import Claimed, StudyWork, claim, obey
from tlopt.worker.finish import tell, tell_without_training
from tlopt.worker.heartbeat import Doing, Heartbeat
from tlopt.worker.pictures import add_pictures, wants_pictures
from tlopt.worker.pruning import gate
from tlopt.worker.shutdown import Interrupt, Interrupted
from tlopt.worker.trial_log import TrialLog

if TYPE_CHECKING:
    from tlopt.training.loop import Epoch, Step

_logger = logging.getLogger(__name__)
IDLE_SECONDS = 1.0  # between two looks for work


@dataclass(frozen=True, kw_only=True)
class WorkerContext:
    """What a worker has at hand beside its studies."""

    storage: ServiceStorage
    me: Identity
    heart: Heartbeat
    interrupt: Interrupt


def work(jobs: Sequence[StudyWork], storage: ServiceStorage, interrupt: Interrupt) -> int:
    """Run trials one after the other; returns how many this worker finished.

    Studies come in the order of `jobs`: a later one is served while an earlier one has nothing to do. Trials
    whose workers are gone are taken over. Ends when every study is over or when `interrupt` was asked for;
    then the trial under way is saved and handed back. A study that somebody deletes is over.

    Raises:
        StorageError: the database was away for longer than allowed.
        Exception: a programming error in a trial; its trial is FAIL, with the cause in its record.
    """
    n_finished, left = 0, list(jobs)
    with _desk(jobs, storage, interrupt) as desk:
        for job in jobs:
            _sweep(job, storage)
        try:
            while left and not interrupt.requested:
                try:
                    if desk.heart.failure is not None:
                        raise desk.heart.failure
                    found = _next(left, desk)
                    if found == "over":
                        break
                    if found == "wait":
                        _pause(IDLE_SECONDS, interrupt)
                    else:
                        n_finished += _run_one(*found, desk)
                except StorageError:
                    raise
                except Exception:
                    restored = storage.wait_for_tables()
                    there = _not_deleted(left, storage)
                    if len(there) == len(left) and not restored:
                        raise
                    left = there
        except Interrupted:
            pass
        except StorageError:
            if not interrupt.requested:  # asked to stop, nobody waits for a database
                raise
    return n_finished


def _not_deleted(jobs: Sequence[StudyWork], storage: ServiceStorage) -> list[StudyWork]:
    """Those of `jobs` whose studies nobody has deleted; says of which somebody has."""
    there = [job for job in jobs if job.is_there(storage)]
    for job in (job for job in jobs if job not in there):
        _logger.warning("the study %s was deleted: this worker lets go of it", job.optuna_study.study_name)
    return there


@contextmanager
def _desk(
    jobs: Sequence[StudyWork], storage: ServiceStorage, interrupt: Interrupt
) -> Iterator[WorkerContext]:
    """A desk whose heart beats until the block ends."""
    me = workers.here()
    device = str(jobs[0].workspace.device)
    names = ",".join(job.optuna_study.study_name for job in jobs)
    engine = storage.engine
    storage.ask(lambda executor: workers.register(executor, engine, me, device=device, studies=names))
    storage.ask(lambda executor: workers.forget_old(executor, engine))
    heart = Heartbeat(
        storage,
        me,
        [job.study_id for job in jobs],
        grace_seconds=min(job.service.grace_seconds for job in jobs),
        device=device,
        studies=names,
    )

    def hurry() -> None:
        storage.begin_shutdown()

    interrupt.tell(hurry)
    heart.start()
    try:
        yield WorkerContext(storage=storage, me=me, heart=heart, interrupt=interrupt)
    finally:
        heart.stop()
        with suppress(StorageError):
            storage.ask(lambda executor: workers.leave(executor, me))


def _next(
    jobs: Sequence[StudyWork], desk: WorkerContext
) -> tuple[StudyWork, Claimed] | Literal["wait", "over"]:
    """A trial of the first study that has one; else "wait" or "over"."""
    over = True
    for job in jobs:
        stands, waits = job.standing(desk.storage)
        over = over and stands == "over"
        if stands != "work":
            continue
        over = False
        desk.heart.hear(job.study_id, Command())  # asked just now; its own last look is some seconds old
        found = claim(
            job.optuna_study,
            job.plan,
            desk.storage,
            desk.me.worker_id,
            waits=waits,
            crashes_max=job.service.crashes_max,
        )
        if found is not None:
            return job, found
    return "over" if over else "wait"


def _pause(seconds: float, interrupt: Interrupt) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until and not interrupt.requested:
        time.sleep(0.1)


@dataclass(frozen=True)
class _Held:
    """One trial's side of its worker's duties, see `trial.Holder`."""

    job: StudyWork
    trial: optuna.Trial
    task: TrialSpec
    desk: WorkerContext

    def goes_on(self, event: "Step | Epoch") -> None:
        """See `trial.Holder`."""
        from tlopt.worker.objective import Requeue

        heart = self.desk.heart
        heart.stepped(
            Doing.at(self.job.optuna_study.study_name, self.trial.number, event, self.task.point.epochs)
        )
        if heart.failure is not None:
            raise heart.failure
        if heart.lost:
            raise LeaseLost(f"trial {self.trial.number} was given to another worker")
        if heart.restored:
            raise Requeue("the database was restored to an earlier state")
        if self.desk.interrupt.requested:
            raise Requeue("its worker was asked to stop")
        if reason := obey(heart.commands.get(self.job.study_id)):
            raise Requeue(reason)


def _run_one(job: StudyWork, held: Claimed, desk: WorkerContext) -> int:
    """Run one trial to its end, or let go of it; 1 or 0 trials finished."""
    from tlopt.worker.objective import Requeue

    trial, lease = held.trial, held.lease
    storage, log = desk.storage, TrialLog(job.folders.logs / f"{trial.number:04d}.jsonl")
    notes = list(trial.user_attrs.get(attributes.NOTES, ()))
    desk.heart.hold(optuna_private.trial_id(trial), lease.token, job.service.stall_seconds_max)
    try:
        if held.refusal:
            tell_without_training(trial, "refused", held.refusal, notes, job, storage)
            log.end(outcome="refused", cause=held.refusal)
            _logger.warning("trial %d cannot be trained: %s", trial.number, held.refusal)
        elif held.task is None:
            cause = f"lost {lease.crashes} times in a row without progress; the last time {lease.crash_cause}"
            tell_without_training(trial, "crashed", cause, notes, job, storage)
            log.end(outcome="crashed", cause=cause)
        else:
            _train_one(job, trial, held.task, lease, notes, log, desk)
    except LeaseLost as error:
        storage.let_go(optuna_private.trial_id(trial))
        storage.ask(lambda executor: leases.forget_ended(executor, job.study_id))
        log.note(f"let go by {desk.me.name}: {error}")
        return 0
    except Requeue as reason:
        log.note(f"handed back by {desk.me.name}: {reason}")
        _hand_back(trial, [*notes, f"handed back by {desk.me.name}: {reason}"], storage)
        return 0
    except Interrupted:
        _hand_back(trial, [*notes, f"handed back by {desk.me.name} in the middle of a step"], storage)
        raise
    except StorageError:
        raise
    except TloptError:
        _hand_back(trial, notes, storage)
        raise
    except Exception as error:
        cause = "".join(traceback.format_exception_only(error)).strip()
        log.end(outcome="failed", cause=cause)
        tell_without_training(trial, "failed", cause, notes, job, storage)
        raise
    finally:
        desk.heart.let_go()
    if job.checkpoints is not None:
        with suppress(OSError):  # the next worker to begin sweeps them up
            job.checkpoints.delete(trial.number)
    return 1


def _train_one(
    job: StudyWork,
    trial: optuna.Trial,
    task: TrialSpec,
    lease: Claim,
    notes: list[str],
    log: TrialLog,
    desk: WorkerContext,
) -> None:
    from tlopt.trial.execution import Keeper
    from tlopt.worker.objective import TrialContext, run_trial

    storage = desk.storage
    with storage.together(optuna_private.trial_id(trial)):
        trial.set_user_attr(attributes.WORKER, {"worker": desk.me.name, "device": str(job.workspace.device)})
        if task.label:
            trial.set_user_attr(attributes.LABEL, task.label)
    log.start(trial=trial.number, label=task.label, worker=desk.me.name, point=task.point.as_dict())
    keeper = None
    if job.checkpoints is not None:
        keeper = Keeper(
            store=job.checkpoints,
            trial=trial.number,
            holder=lease.token,
            seconds=job.service.checkpoint_seconds,
        )
    conditions = TrialContext(
        interrupt=desk.interrupt,
        holder=_Held(job, trial, task, desk),
        keeper=keeper,
        prunes=gate(job.optuna_study, storage, min_epochs=job.plan.min_epochs),
        trial_seconds_max=job.service.trial_seconds_max,
        shows=lambda value: wants_pictures(value, task, job, storage),
        notes=notes,
    )
    result = run_trial(trial, task, job.workspace, log=log, conditions=conditions)
    if result.has_pictures:
        add_pictures(trial, task, result, job, log, notes)
    tell(trial, result, notes, job, storage)
    log.end(**result.as_dict(), value=result.value)
    if result.has_pictures or study_figure.is_due(trial.number):
        _keep_note(job)


def _keep_note(job: StudyWork) -> None:
    try:
        if job.optuna_study.study_name == job.workspace.study.name:  # a confirmation varies nothing
            study_figure.refresh(job.optuna_study, job.workspace.study, job.folders)
        note.refresh(job.optuna_study, job.workspace.study, images=job.workspace.images_words)
    except Exception:  # the trial has ended well, and no note or picture is worth losing that
        _logger.exception("the study's note was not written")


def _hand_back(trial: optuna.Trial, notes: list[str], storage: ServiceStorage) -> None:
    """Make a trial wait for the next worker; where the database is away, its lease runs out."""
    from optuna.trial import TrialState

    with suppress(StorageError, LeaseLost), storage.together(optuna_private.trial_id(trial)):
        trial.set_user_attr(attributes.NOTES, notes)
        storage.set_trial_state_values(optuna_private.trial_id(trial), TrialState.WAITING)
    storage.let_go(optuna_private.trial_id(trial))


def _sweep(job: StudyWork, storage: ServiceStorage) -> None:
    """Delete the leases and checkpoints of trials that were ended by somebody else than their workers."""
    storage.ask(lambda executor: leases.forget_ended(executor, job.study_id))
    if job.checkpoints is None:
        return
    ended = {t.number for t in job.optuna_study.get_trials(deepcopy=False) if t.state.is_finished()}
    with suppress(OSError):
        for number in job.checkpoints.trials() & ended:
            job.checkpoints.delete(number)
