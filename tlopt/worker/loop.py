"""The worker's loop: run trials of its studies until the budgets are spent or a stop is requested."""

import logging
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from optuna.trial import TrialState

from tlopt.dashboard import note, study_figure
from tlopt.errors import StorageError, TloptError
from tlopt.search.front import FrontPauses
from tlopt.search.promotion import Promotion
from tlopt.spec.objectives import excess_over, excess_words
from tlopt.spec.outcome import Outcome
from tlopt.spec.trial_spec import TrialSpec
from tlopt.storage import attributes, leases, optuna_private, workers
from tlopt.storage.commands import Command
from tlopt.storage.leases import LeaseLost
from tlopt.storage.rdb import ServiceStorage
from tlopt.storage.workers import Identity
from tlopt.system.words import counted
from tlopt.worker.claim import HeldTrial, StudyWork, claim, stop_reason
from tlopt.worker.finish import finish_trial
from tlopt.worker.front import front_check
from tlopt.worker.heartbeat import Activity, Heartbeat
from tlopt.worker.observers import open_observers
from tlopt.worker.pictures import add_pictures, wants_pictures
from tlopt.worker.pruning import Pause, ShouldPrune, promotion_check, pruning_check
from tlopt.worker.shutdown import Interrupt, Interrupted
from tlopt.worker.trial_log import TrialLog

if TYPE_CHECKING:
    from tlopt.training.loop import Epoch, Step
    from tlopt.trial.execution import TrialCheckpoints

_logger = logging.getLogger(__name__)
IDLE_SECONDS = 1.0  # between two checks for work


@dataclass(frozen=True, kw_only=True)
class WorkerContext:
    """Storage, identity and threads of a worker."""

    storage: ServiceStorage
    me: Identity
    heartbeat: Heartbeat
    interrupt: Interrupt


def run_worker(works: Sequence[StudyWork], storage: ServiceStorage, interrupt: Interrupt) -> int:
    """Run trials one after the other; return the number that this worker finished.

    Each trial comes from the first study in `works` that has work. Trials of lost workers are taken over. The
    loop ends when every study is over or deleted, or when `interrupt` is requested; then the current trial is
    saved and requeued.

    Raises:
        StorageError: the database was unavailable for too long.
        Exception: a programming error in a trial, which is FAIL with the cause in its record.
    """
    n_finished, left = 0, list(works)
    with _worker_context(works, storage, interrupt) as context:
        for work in works:
            _delete_ended(work, storage)
        try:
            while left and not interrupt.requested:
                try:
                    if context.heartbeat.failure is not None:
                        raise context.heartbeat.failure
                    found = _next_trial(left, context)
                    if found == "over":
                        break
                    if found == "wait":
                        _pause(IDLE_SECONDS, interrupt)
                    else:
                        n_finished += _run_one(found, context)
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
            if not interrupt.requested:  # do not wait for the database while stopping
                raise
    return n_finished


@contextmanager
def _worker_context(
    works: Sequence[StudyWork], storage: ServiceStorage, interrupt: Interrupt
) -> Iterator[WorkerContext]:
    """Register a worker and run its heartbeat during the block."""
    me = workers.this_process()
    names = ",".join(work.optuna_study.study_name for work in works)
    engine, device = storage.engine, works[0].device
    storage.query(lambda executor: workers.register(executor, engine, me, device=device, studies=names))
    storage.query(lambda executor: workers.remove_stale(executor, engine))
    heartbeat = Heartbeat(
        storage,
        me,
        [work.study_id for work in works],
        grace_seconds=min(work.service.grace_seconds for work in works),
        device=device,
        studies=names,
    )
    interrupt.on_request(storage.begin_shutdown)
    heartbeat.start()
    try:
        yield WorkerContext(storage=storage, me=me, heartbeat=heartbeat, interrupt=interrupt)
    finally:
        heartbeat.stop()
        with suppress(StorageError):
            storage.query(lambda executor: workers.remove_worker(executor, me))


def _not_deleted(works: Sequence[StudyWork], storage: ServiceStorage) -> list[StudyWork]:
    """The studies of `works` that have not been deleted; log the others."""
    there = [work for work in works if work.exists(storage)]
    for work in (work for work in works if work not in there):
        _logger.warning(
            "the study %s was deleted: this worker stops working on it", work.optuna_study.study_name
        )
    return there


def _next_trial(works: Sequence[StudyWork], context: WorkerContext) -> HeldTrial | Literal["wait", "over"]:
    """Claim a trial of the first study that has one; otherwise return "wait" or "over"."""
    over = True
    for work in works:
        state, has_waiting = work.work_state(context.storage)
        over = over and state == "over"
        if state != "work":
            continue
        over = False
        # just read; the heartbeat's own copy is some seconds old
        context.heartbeat.note_command(work.study_id, Command())
        held = claim(work, context.storage, context.me, has_waiting=has_waiting)
        if held is not None:
            return held
    return "over" if over else "wait"


def _pause(seconds: float, interrupt: Interrupt) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until and not interrupt.requested:
        time.sleep(0.1)


def _run_one(held: HeldTrial, context: WorkerContext) -> int:
    """Run one trial until it ends, is requeued or lost; return 1 if it has ended, else 0."""
    from tlopt.worker.objective import Requeue

    trial, lease, work, storage = held.trial, held.lease, held.work, context.storage
    loggers = open_observers(work.service.loggers, held.study_name, trial.number, work.folders.logs.parent)
    log = TrialLog(work.folders.logs / f"{trial.number:04d}.jsonl", loggers)
    notes = list(attributes.notes_of(trial))
    context.heartbeat.hold(optuna_private.trial_id(trial), lease.token, work.service.stall_seconds_max)
    try:
        if held.refusal:
            _logger.warning("trial %d cannot be trained: %s", trial.number, held.refusal)
            _end_untrained(held, Outcome.REFUSED, held.refusal, notes, log, storage)
        elif held.spec is None:
            cause = (
                f"lost {counted(lease.crashes, 'time')} in a row without progress; the last time"
                f" {lease.crash_cause}"
            )
            _end_untrained(held, Outcome.CRASHED, cause, notes, log, storage)
        else:
            _train_one(held, held.spec, notes, log, context)
    except LeaseLost as error:
        storage.forget_trial(optuna_private.trial_id(trial))
        storage.query(lambda executor: leases.forget_ended(executor, work.study_id))
        log.note(f"dropped by {context.me.name}: {error}")
        return 0
    except Requeue as reason:
        log.note(f"requeued by {context.me.name}: {reason}")
        _requeue(held, [*notes, f"requeued by {context.me.name}: {reason}"], storage)
        return 0
    except Pause as pause:
        log.note(f"paused by {context.me.name}: {pause}")
        _requeue(held, notes, storage, paused_at=pause.n_epochs)
        return 0
    except Interrupted:
        _requeue(held, [*notes, f"requeued by {context.me.name} in the middle of a step"], storage)
        raise
    except StorageError:
        raise
    except (TloptError, OSError):  # of this machine, such as a full disk: not the trial's fault
        _requeue(held, notes, storage)
        raise
    except Exception as error:
        cause = "".join(traceback.format_exception_only(error)).strip()
        _end_untrained(held, Outcome.FAILED, cause, notes, log, storage)
        raise
    finally:
        log.close()
        context.heartbeat.release()
    if work.checkpoints is not None:
        with suppress(OSError):  # deleted by the next worker that starts
            work.checkpoints.delete(trial.number)
    return 1


def _end_untrained(
    held: HeldTrial, outcome: Outcome, cause: str, notes: list[str], log: TrialLog, storage: ServiceStorage
) -> None:
    log.end(outcome=outcome, cause=cause)
    finish_trial(held, outcome, {"outcome": outcome, "cause": cause}, notes, storage)


def _train_one(
    held: HeldTrial, spec: TrialSpec, notes: list[str], log: TrialLog, context: WorkerContext
) -> None:
    from tlopt.worker.objective import TrialContext, run_trial

    work, storage = held.work, context.storage
    log.start(trial=held.trial.number, label=spec.label, worker=context.me.name, point=spec.point.as_dict())
    costs = work.workspace.inference_cost(spec.point)
    constraints = excess_over(work.plan.limits, costs)
    if cause := excess_words(work.plan.limits, costs):
        record = {"outcome": Outcome.INFEASIBLE, "cause": cause, "inference_cost": costs}
        log.end(**record)
        finish_trial(held, Outcome.INFEASIBLE, record, notes, storage, constraints=constraints)
        return
    if work.plan.cost_objectives:
        held.trial.set_user_attr(attributes.COSTS, [costs[name] for name in work.plan.cost_objectives])
    result = run_trial(
        held.trial,
        spec,
        work.workspace,
        context=TrialContext(
            interrupt=context.interrupt,
            on_step=lambda event, seconds: _after_step(held, event, seconds, spec.n_reports, context),
            checkpoints=_checkpoints(held),
            should_prune=_pruning_check(work, storage),
            trial_seconds_max=work.service.trial_seconds_max * spec.n_trainings,
            wants_pictures=lambda value: wants_pictures(value, spec.label, work, storage),
            notes=notes,
            log=log,
        ),
    )
    if result.has_pictures:
        add_pictures(held, result, log, notes)
    record = {"inference_cost": costs} | result.as_dict()
    further = (costs[name] for name in work.plan.cost_objectives)
    values = () if result.value is None else (result.value, *further)
    finish_trial(held, result.outcome, record, notes, storage, values=values, constraints=constraints)
    log.end(**record, value=result.value)
    is_pruning = spec.pruned is not None  # they are few
    if result.has_pictures or is_pruning or study_figure.is_due(held.trial.number):
        _renew_note(work)


def _after_step(
    held: HeldTrial, event: "Step | Epoch", seconds: float, n_epochs: int, context: WorkerContext
) -> None:
    """Note a step of the current trial, and check whether it may continue.

    Args:
        seconds: of work on the trial so far.
        n_epochs: of the trial.

    Raises:
        Requeue: the trial must stop here for now.
        LeaseLost: another worker holds the trial.
        StorageError: the database's file is gone.
    """
    from tlopt.worker.objective import Requeue

    heartbeat = context.heartbeat
    heartbeat.note_step(Activity.at(held.study_name, held.trial.number, event, n_epochs, seconds=seconds))
    if heartbeat.failure is not None:
        raise heartbeat.failure
    if heartbeat.lost:
        raise LeaseLost(f"trial {held.trial.number} was given to another worker")
    if heartbeat.restored:
        raise Requeue("the database was restored to an earlier state")
    if context.interrupt.requested:
        raise Requeue("its worker was asked to stop")
    if reason := stop_reason(heartbeat.commands.get(held.work.study_id)):
        raise Requeue(reason)


def _checkpoints(held: HeldTrial) -> "TrialCheckpoints | None":
    from tlopt.trial.execution import TrialCheckpoints

    store = held.work.checkpoints
    if store is None:
        return None
    return TrialCheckpoints(
        store=store,
        trial=held.trial.number,
        holder=held.lease.token,
        seconds=held.work.service.checkpoint_seconds,
    )


def _renew_note(work: StudyWork) -> None:
    study = work.workspace.study
    try:
        if work.optuna_study.study_name == study.name:  # a confirmation varies no key
            study_figure.update_figure(work.optuna_study, study, work.folders)
        note.update_note(work.optuna_study, study, images=work.workspace.images_summary)
    except Exception:  # a note or picture must not fail a finished trial
        _logger.exception("the study's note was not written")


def _pruning_check(work: StudyWork, storage: ServiceStorage) -> ShouldPrune:
    plan = work.plan
    match plan.pauses:
        case Promotion() as promotion:
            return promotion_check(work.optuna_study, storage, promotion, plan.n_open)
        case FrontPauses() | None as pauses:
            if plan.front_pruner is not None:
                return front_check(work.optuna_study, storage, plan.front_pruner, pauses)
    return pruning_check(work.optuna_study, storage, min_epochs=plan.min_epochs)


def _requeue(held: HeldTrial, notes: list[str], storage: ServiceStorage, *, paused_at: int = 0) -> None:
    """Set a trial waiting for the next worker; if the database is unavailable, its lease expires instead.

    Args:
        paused_at: number of epochs after which it pauses; 0: any worker may continue it at once.
    """
    trial_id = optuna_private.trial_id(held.trial)
    with suppress(StorageError, LeaseLost), storage.writing_together(trial_id):
        held.trial.set_user_attr(attributes.NOTES, notes)
        if paused_at:
            held.trial.set_user_attr(attributes.PROMOTION, {"paused": paused_at})
        storage.set_trial_state_values(trial_id, TrialState.WAITING)
    storage.forget_trial(trial_id)


def _delete_ended(work: StudyWork, storage: ServiceStorage) -> None:
    """Delete leases and checkpoints of trials that were ended by other programs than their workers."""
    storage.query(lambda executor: leases.forget_ended(executor, work.study_id))
    if work.checkpoints is None:
        return
    ended = {t.number for t in work.optuna_study.get_trials(deepcopy=False) if t.state.is_finished()}
    with suppress(OSError):
        for number in work.checkpoints.trials() & ended:
            work.checkpoints.delete(number)
