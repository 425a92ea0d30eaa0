"""SQL of `tlopt_leases`, which says who holds which trial; functions run in the caller's transaction.

A lease is a token and a heartbeat counter. A write to a trial requires the token; taking a trial from another
worker requires having seen its counter stop (`worker.heartbeat`). No clocks are compared.
"""

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import sqlalchemy as sa
from optuna.study import StudyDirection
from optuna.trial import TrialState

from tlopt.errors import TloptError
from tlopt.storage.attributes import BEGAN, RAN_HERE, STUDY
from tlopt.storage.optuna_private import ReadTrials
from tlopt.storage.schema import (
    COUNTED,
    FINISHED,
    leases,
    reports,
    studies,
    study_attrs,
    system_attrs,
    trials,
    user_attrs,
    values,
    whole,
)


class Executor(Protocol):
    """A connection or a session, in a transaction."""

    def execute(self, statement: Any, /) -> Any: ...


class LeaseLost(TloptError):
    """The trial was given to another worker, ended or deleted; its former holder must drop it."""


class BudgetSpent(Exception):
    """Another trial would exceed the budget."""


class AlreadyCreated(Exception):
    """The claim has already created its trial, in an attempt whose response was lost."""

    def __init__(self, trial_id: int) -> None:
        super().__init__(trial_id)
        self.trial_id = trial_id


class LeaseChanged(Exception):
    """The lease has changed since it was observed: renewed, released or taken."""


def new_token() -> str:
    """A unique token for a new lease."""
    return uuid.uuid4().hex


@dataclass
class Claim:
    """A worker's request for one trial, and its result.

    Attributes:
        budget: maximum number of complete, pruned and running trials.
        has_waiting: whether to look for a waiting trial before creating one.
        takes: ids of the waiting trials that it may take; None: any of them.
        may_create: whether it may create a trial.
        trial_id: id of the claimed trial.
        crashes: number of consecutive losses of the trial with its worker, without a new report between.
        crash_cause: cause of the last loss.
    """

    study_id: int
    worker_id: str
    budget: int
    has_waiting: bool
    takes: frozenset[int] | None = None
    may_create: bool = True
    token: str = field(default_factory=new_token)
    trial_id: int | None = None
    crashes: int = 0
    crash_cause: str = ""


@dataclass(frozen=True)
class ObservedLease:
    """A lease as it was read."""

    trial_id: int
    number: int  # of the trial
    token: str
    heartbeat: int
    worker_id: str


def counts(executor: Executor, study_id: int) -> dict[TrialState, int]:
    """Number of trials by state; of the finished ones, only those run by tlopt workers."""
    rows = executor.execute(
        sa.select(trials.c.state, sa.func.count())
        .where(trials.c.study_id == study_id, _NOT_FOREIGN)
        .group_by(trials.c.state)
    )
    found = {state: int(n) for state, n in rows}
    return {state: found.get(state, 0) for state in TrialState}


# Finished trials that users have added (`study.add_trial`) do not count toward the budget, even if a worker
# ran them in another study; see `attributes.trials_of`. Both attributes hold one number in one JSON notation.
_RAN = sa.exists().where(user_attrs.c.trial_id == trials.c.trial_id, user_attrs.c.key.in_(RAN_HERE))
_RAN_ELSEWHERE = sa.exists().where(
    user_attrs.c.trial_id == trials.c.trial_id,
    user_attrs.c.key == STUDY,
    user_attrs.c.value_json.not_in(
        sa.select(study_attrs.c.value_json)
        .where(study_attrs.c.study_id == trials.c.study_id, study_attrs.c.key == BEGAN)
        .correlate(trials)
    ),
)
_NOT_FOREIGN = trials.c.state.in_((TrialState.RUNNING, TrialState.WAITING)) | (_RAN & ~_RAN_ELSEWHERE)


def check_lease(executor: Executor, trial_id: int, token: str) -> None:
    """Check and lock the lease until the transaction ends.

    Raises:
        LeaseLost: another worker holds the trial.
    """
    held = sa.select(leases.c.trial_id).where(leases.c.trial_id == trial_id, leases.c.token == token)
    if executor.execute(held.with_for_update()).first() is None:
        raise LeaseLost(f"the trial with id {trial_id} was given to another worker")


def check_running(executor: Executor, trial_id: int) -> None:
    """Check that no other program, such as the dashboard, has ended the trial.

    Raises:
        LeaseLost: the trial no longer runs.
    """
    state = executor.execute(sa.select(trials.c.state).where(trials.c.trial_id == trial_id)).scalar()
    if state != TrialState.RUNNING:
        raise LeaseLost(f"the trial with id {trial_id} was given to another worker, or was ended")


def lease_new_trial(executor: Executor, claim: Claim) -> None:
    """Lease the trial just created by this transaction to `claim`; the study's row must be locked.

    Raises:
        BudgetSpent: complete, pruned, running and waiting trials would exceed the budget.
        AlreadyCreated: the claim already has its trial.
    """
    earlier = executor.execute(sa.select(leases.c.trial_id).where(leases.c.token == claim.token)).scalar()
    if earlier is not None:
        raise AlreadyCreated(int(earlier))
    if _n_counted(executor, claim.study_id, COUNTED) > claim.budget:
        raise BudgetSpent
    # the newest trial is this transaction's own, because creating one needs the lock on the study's row
    newest = sa.select(sa.func.max(trials.c.trial_id)).where(trials.c.study_id == claim.study_id)
    claim.trial_id = int(executor.execute(newest).scalar())
    delete_lease(executor, claim.trial_id)  # left by a deleted trial: SQLite reuses ids
    executor.execute(_row(claim, claim.trial_id))


def lease_waiting_trial(executor: Executor, claim: Claim, trial_id: int) -> None:
    """Lease the waiting trial, which this transaction has set running, to `claim`.

    Raises:
        BudgetSpent: complete, pruned and running trials would exceed the budget.
    """
    executor.execute(
        sa.select(studies.c.study_id).where(studies.c.study_id == claim.study_id).with_for_update()
    )
    states = [state for state in COUNTED if state != TrialState.WAITING]
    if _n_counted(executor, claim.study_id, states) > claim.budget:
        raise BudgetSpent
    known = executor.execute(
        sa.select(leases.c.crashes, leases.c.cause).where(leases.c.trial_id == trial_id).with_for_update()
    ).first()
    if known is None:
        executor.execute(_row(claim, trial_id))
    else:
        executor.execute(
            sa.update(leases)
            .where(leases.c.trial_id == trial_id)
            .values(token=claim.token, worker_id=claim.worker_id, beat=0)
        )
        claim.crashes, claim.crash_cause = whole(known.crashes), str(known.cause)
    claim.trial_id = trial_id


def _row(claim: Claim, trial_id: int) -> Any:
    return sa.insert(leases).values(
        trial_id=trial_id,
        study_id=claim.study_id,
        token=claim.token,
        worker_id=claim.worker_id,
        beat=0,
        crashes=0,
        crash_reports=0,
        cause="",
    )


def best_value(executor: Executor, study_id: int, direction: StudyDirection) -> float | None:
    """Best finite value of the study's complete and feasible trials by the first objective, or None."""
    best = sa.func.min if direction == StudyDirection.MINIMIZE else sa.func.max
    joined = values.join(trials, trials.c.trial_id == values.c.trial_id)
    asked = sa.select(best(values.c.value)).select_from(joined)
    # Optuna stores a constraint as JSON of a float; one that holds is negative or zero
    broken = sa.exists().where(
        system_attrs.c.trial_id == trials.c.trial_id,
        system_attrs.c.key.startswith("constraints:"),
        system_attrs.c.value_json.not_like("-%"),
        system_attrs.c.value_json != "0.0",
    )
    found = executor.execute(
        asked.where(
            trials.c.study_id == study_id,
            trials.c.state == TrialState.COMPLETE,
            values.c.objective == 0,
            ~broken,
        )
    ).scalar()
    return None if found is None else float(found)


def still_has_trials(executor: Executor, study_id: int, read: ReadTrials) -> bool:
    """Return whether the study still has the trials read earlier; True also if the study is deleted."""
    known = trials.c.trial_id <= read.newest_id
    created = trials.c.trial_id.in_(read.created)
    ended = sa.case((trials.c.trial_id == read.finished_id, trials.c.datetime_complete))
    counted = sa.select(
        sa.func.count(sa.case((known, 1))),
        sa.func.count(sa.case((created, 1))),
        sa.func.max(ended, type_=trials.c.datetime_complete.type),
    )
    found = executor.execute(counted.where(trials.c.study_id == study_id, known | created)).one()
    kept = tuple(found) == (read.n_trials, len(read.created), read.finished_at)
    return kept or not study_exists(executor, study_id)


def study_exists(executor: Executor, study_id: int, name: str | None = None) -> bool:
    """Return whether the database has a study with this id, and with this name if one is given."""
    found = sa.select(studies.c.study_id).where(studies.c.study_id == study_id)
    if name is not None:  # SQLite may give the id of a deleted study to another one
        found = found.where(studies.c.study_name == name)
    return executor.execute(found).first() is not None


def n_finished(executor: Executor, study_id: int) -> int:
    """Number of finished trials: complete, pruned and failed."""
    found = sa.select(sa.func.count()).where(trials.c.study_id == study_id, trials.c.state.in_(FINISHED))
    return int(executor.execute(found.select_from(trials)).scalar())


def _n_counted(executor: Executor, study_id: int, states: Sequence[TrialState]) -> int:
    counted = sa.select(sa.func.count()).where(
        trials.c.study_id == study_id, trials.c.state.in_(states), _NOT_FOREIGN
    )
    return int(executor.execute(counted.select_from(trials)).scalar())


def holder(executor: Executor, trial_id: int) -> str | None:
    """Token of the trial's holder, or None."""
    token = executor.execute(sa.select(leases.c.token).where(leases.c.trial_id == trial_id)).scalar()
    return None if token is None else str(token)


def delete_lease(executor: Executor, trial_id: int) -> None:
    """Delete the lease of a trial that ends."""
    executor.execute(sa.delete(leases).where(leases.c.trial_id == trial_id))


def release(executor: Executor, trial_id: int) -> None:
    """Release a trial that is requeued, without counting a crash."""
    executor.execute(
        sa.update(leases).where(leases.c.trial_id == trial_id).values(token=None, worker_id=None)
    )


def expire(executor: Executor, lease: ObservedLease, cause: str) -> None:
    """Take the trial from a lost holder and count a crash; counting restarts at 1 after new reports.

    Raises:
        LeaseChanged: the lease has changed since it was observed.
    """
    row = executor.execute(
        sa.select(leases.c.crashes, leases.c.crash_reports)
        .where(
            leases.c.trial_id == lease.trial_id,
            leases.c.token == lease.token,
            leases.c.beat == lease.heartbeat,
        )
        .with_for_update()
    ).first()
    if row is None:
        raise LeaseChanged
    counted = sa.select(sa.func.count()).select_from(reports).where(reports.c.trial_id == lease.trial_id)
    n_reports = int(executor.execute(counted).scalar())
    executor.execute(
        sa.update(leases)
        .where(leases.c.trial_id == lease.trial_id)
        .values(
            token=None,
            worker_id=None,
            crashes=1 if n_reports > whole(row.crash_reports) else whole(row.crashes) + 1,
            crash_reports=n_reports,
            cause=cause,
        )
    )


def forget_study(executor: Executor, study_id: int) -> None:
    """Delete all leases of a deleted study."""
    executor.execute(sa.delete(leases).where(leases.c.study_id == study_id))


def reset_crashes(executor: Executor, study_id: int) -> None:
    """Reset the crash counts of the study's trials."""
    executor.execute(sa.update(leases).where(leases.c.study_id == study_id).values(crashes=0, cause=""))


def renew_lease(executor: Executor, token: str) -> bool:
    """Count a heartbeat; return False if the lease is lost or the trial no longer runs."""
    runs = sa.exists().where(trials.c.trial_id == leases.c.trial_id, trials.c.state == TrialState.RUNNING)
    renewed = executor.execute(
        sa.update(leases).where(leases.c.token == token, runs).values(beat=leases.c.beat + 1)
    )
    return bool(renewed.rowcount)


def held(executor: Executor, study_ids: Collection[int]) -> list[ObservedLease]:
    """Leases of all running trials of these studies."""
    rows = executor.execute(
        sa.select(leases.c.trial_id, trials.c.number, leases.c.token, leases.c.beat, leases.c.worker_id)
        .join(trials, trials.c.trial_id == leases.c.trial_id)
        .where(
            leases.c.study_id.in_(study_ids),
            leases.c.token.is_not(None),
            trials.c.state == TrialState.RUNNING,
        )
    )
    return [
        ObservedLease(int(row.trial_id), int(row.number), row.token, row.beat, row.worker_id) for row in rows
    ]


def unheld(executor: Executor, study_ids: Collection[int]) -> list[ObservedLease]:
    """Running trials of these studies without a holder; their number of reports serves as heartbeat.

    Such trials come from `study.ask`, `study.add_trial` and `optuna.copy_study`, never from tlopt.
    """
    n_reports = (
        sa.select(sa.func.count())
        .select_from(reports)
        .where(reports.c.trial_id == trials.c.trial_id)
        .scalar_subquery()
    )
    rows = executor.execute(
        sa.select(trials.c.trial_id, trials.c.number, n_reports.label("beat")).where(
            trials.c.study_id.in_(study_ids), trials.c.state == TrialState.RUNNING, ~_HELD
        )
    )
    return [
        ObservedLease(int(r.trial_id), int(r.number), f"nobody's {r.trial_id}", int(r.beat), "") for r in rows
    ]


_HELD = sa.exists().where(leases.c.trial_id == trials.c.trial_id, leases.c.token.is_not(None))


def check_unheld(executor: Executor, trial_id: int) -> None:
    """Check, in the transaction that requeues a trial, that no worker holds it.

    Raises:
        LeaseChanged: a worker does.
    """
    if holder(executor, trial_id) is not None:
        raise LeaseChanged


def forget_ended(executor: Executor, study_id: int) -> None:
    """Delete leases of the study's trials that were ended or deleted by other programs."""
    alive = sa.exists().where(
        trials.c.trial_id == leases.c.trial_id,
        trials.c.state.in_((TrialState.RUNNING, TrialState.WAITING)),
    )
    executor.execute(sa.delete(leases).where(leases.c.study_id == study_id, ~alive))
