"""A worker's storage: Optuna's, made robust against lost workers and database outages.

It works within Optuna's tables and transactions, and adds `tlopt_leases`:

- every call is retried during an outage; if a response was lost, the effect of the first attempt is detected
  and not repeated;
- a trial is created or taken in one transaction with its lease, and only while the budget, counted under the
  study's row lock, has room;
- every write to a held trial checks the lease's token in the same transaction;
- parameters and attributes are written together, and a report is one statement.
"""

import copy
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from optuna.distributions import BaseDistribution, check_distribution_compatibility
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.orm import Session

from tlopt.storage import leases, optuna_private, writes
from tlopt.storage.failures import DATABASE_ERRORS, failure
from tlopt.storage.leases import (
    AlreadyCreated,
    BudgetSpent,
    Claim,
    Executor,
    LeaseChanged,
    LeaseLost,
    ObservedLease,
)
from tlopt.storage.optuna_private import OptunaDatabase
from tlopt.storage.retry import Retry, refusal
from tlopt.storage.retrying_rdb import RetryingStorage, TransactionCheck
from tlopt.storage.writes import AlreadyAdded, Draft


class ServiceStorage(RetryingStorage):
    """`RDBStorage` for a worker, as described in the module docstring. The tables must exist.

    Args:
        url: database URL that names the driver.
        engine_kwargs: arguments for SQLAlchemy's `create_engine`.
        retry: retry policy for all calls.
    """

    def __init__(self, url: str, engine_kwargs: dict[str, Any], retry: Retry) -> None:
        super().__init__(url, engine_kwargs, retry)
        self._tokens: dict[int, str] = {}  # lease tokens of held trials
        self._drafts: dict[int, Draft] = {}
        self._unsent: dict[int, dict[int, float]] = {}  # reports made during an outage

    # Leases

    def get_study_id_from_name(self, study_name: str) -> int:
        """The study's id; not cached while no trial is held, because the study may have been recreated."""
        if not self._tokens:
            self._study_ids.pop(study_name, None)
        return super().get_study_id_from_name(study_name)

    def holds(self, trial_id: int) -> bool:
        """Return whether this process believes it holds the trial's lease."""
        return trial_id in self._tokens

    def forget_trial(self, trial_id: int) -> None:
        """Forget a trial that has ended or was lost."""
        for kept in (self._tokens, self._drafts, self._unsent):
            kept.pop(trial_id, None)

    @contextmanager
    def claiming(self, claim: Claim) -> Iterator[None]:
        """Within the block, lease the trial that is created or taken to `claim`.

        Its parameters and attributes are written together when the block ends.

        Raises:
            BudgetSpent: raised inside the block if the budget has no room.
        """
        with self._scope.claiming(claim):
            yield
        if claim.trial_id is not None:
            self.write_pending(claim.trial_id)

    def expire(self, lease: ObservedLease, cause: str) -> None:
        """Requeue the trial of a lost holder, for `cause`. Not retried; thread-safe.

        Raises:
            LeaseChanged: the lease has changed since it was observed.
        """
        try:
            with self._scope.guarded(lambda executor: leases.expire(executor, lease, cause)):
                super().set_trial_state_values(lease.trial_id, TrialState.WAITING)
        except (UpdateFinishedTrialError, LeaseLost, KeyError):  # ended or deleted
            raise LeaseChanged from None

    def add_once(self, study_id: int, key: str, value: Any, add: Callable[[], None]) -> bool:
        """Call `add`, which adds one trial with the user attribute `key` = `value`, unless the study has one.

        Many processes may do so at once: it is looked for in the transaction that adds, under the study's
        lock. Returns whether the trial was added.
        """

        def guard(session: Session) -> None:
            session.flush()
            writes.refuse_second(session, study_id, key, value)

        def attempt() -> None:
            with self._scope.guarded(guard):
                add()

        try:
            self.retry.call(attempt)
        except AlreadyAdded:
            return False
        return True

    def requeue_unheld(self, trial_id: int) -> None:
        """Requeue a running trial that no worker holds. Not retried; thread-safe.

        Raises:
            LeaseChanged: a worker holds it, or it no longer runs.
        """
        try:
            if OptunaDatabase.get_trial(self, trial_id).state != TrialState.RUNNING:
                raise LeaseChanged
            with self._scope.guarded(lambda executor: leases.check_unheld(executor, trial_id)):
                super().set_trial_state_values(trial_id, TrialState.WAITING)
        except (UpdateFinishedTrialError, KeyError):
            raise LeaseChanged from None

    # Writes to a trial

    def write_pending(self, trial_id: int) -> None:
        """Write pending parameters, attributes and reports of a held trial."""

        def attempt() -> None:
            with self.engine.begin() as connection:
                if trial_id in self._tokens:
                    leases.check_running(connection, trial_id)
                self._write_pending(connection, trial_id)

        if trial_id in self._tokens or trial_id in self._drafts:
            self.retry.call(attempt)
            self._drafts.pop(trial_id, None)
            self._unsent.pop(trial_id, None)

    def _write_pending(self, executor: Executor, trial_id: int) -> None:
        if trial_id in self._tokens:
            leases.check_lease(executor, trial_id, self._tokens[trial_id])
        writes.write_draft(executor, self.engine, trial_id, self._drafts.get(trial_id, Draft()))
        writes.write_late_reports(executor, self.engine, trial_id, self._unsent.get(trial_id, {}))

    @contextmanager
    def writing_together(self, trial_id: int) -> Iterator[None]:
        """Write the attributes set in the block together, with the final state or when the block ends."""
        self._drafts.setdefault(trial_id, Draft())
        yield
        self.write_pending(trial_id)

    def write_param(
        self,
        trial_id: int,
        name: str,
        internal_value: float,
        distribution: BaseDistribution,
        previous: BaseDistribution | None,
    ) -> None:
        if trial_id not in self._drafts:
            with self._fenced(trial_id):
                self.retry.call(
                    lambda: super(ServiceStorage, self).write_param(
                        trial_id, name, internal_value, distribution, previous
                    )
                )
            return
        if previous is not None:
            check_distribution_compatibility(previous, distribution)
        self._drafts[trial_id].params[name] = (internal_value, distribution)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        if trial_id in self._drafts:
            self._drafts[trial_id].user_attrs[key] = value
            return
        with self._fenced(trial_id):
            self.retry.call(lambda: super(ServiceStorage, self).set_trial_user_attr(trial_id, key, value))

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        if trial_id in self._drafts:
            self._drafts[trial_id].system_attrs[key] = value
            return
        with self._fenced(trial_id):
            self.retry.call(lambda: super(ServiceStorage, self).set_trial_system_attr(trial_id, key, value))

    @contextmanager
    def _fenced(self, trial_id: int, guard: TransactionCheck | None = None) -> Iterator[None]:
        """Within the block, make writes to a held trial fail if its lease is lost or the trial deleted.

        Args:
            guard: check run in each transaction; default: of the lease.
        """
        with self._scope.guarded(guard or self._check(trial_id)), self._lost_if_deleted(trial_id):
            yield

    @contextmanager
    def _lost_if_deleted(self, trial_id: int) -> Iterator[None]:
        try:
            yield
        except KeyError:
            if not self.holds(trial_id):
                raise
            raise LeaseLost(f"the trial with id {trial_id} is no longer in the database") from None

    def _check(self, trial_id: int) -> TransactionCheck:
        token = self._tokens.get(trial_id)
        return lambda executor: None if token is None else leases.check_lease(executor, trial_id, token)

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        """Store a report; during an outage, a report of a held trial is kept and written with the next one.

        Raises:
            LeaseLost: another worker holds the trial.
        """
        token = self._tokens.get(trial_id)
        if token is None:
            self.retry.call(
                lambda: super(ServiceStorage, self).set_trial_intermediate_value(
                    trial_id, step, intermediate_value
                )
            )
            return
        unsent = self._unsent.setdefault(trial_id, {})
        unsent[step] = intermediate_value
        if self.retry.in_outage:  # the heartbeat detects the end of the outage
            return
        try:
            for step_unsent, value in sorted(unsent.items()):
                with self.autocommit() as connection:
                    writes.write_intermediate_value(
                        connection, self.engine, trial_id, token, step_unsent, value
                    )
                del unsent[step_unsent]
        except DATABASE_ERRORS as error:
            fault = failure(error)
            if fault is None:
                raise
            if fault.lasts:
                raise refusal(fault) from None
            self.retry.note_outage(fault.reason)

    def unsent(self, trial_id: int) -> bool:
        """Return whether some reports of the trial have not been written yet."""
        return bool(self._unsent.get(trial_id))

    # States of a trial

    def create_trial(self, study_id: int, template: FrozenTrial | None) -> FrozenTrial:
        claim = self._scope.claim
        if claim is None or template is not None:
            return super().create_trial(study_id, template)
        if not claim.may_create:
            raise BudgetSpent

        def attempt() -> FrozenTrial:
            with self._scope.guarded(lambda executor: leases.lease_new_trial(executor, claim)):
                return super(ServiceStorage, self).create_trial(study_id, None)

        try:
            frozen = self.retry.call(attempt)
        except AlreadyCreated as found:
            claim.trial_id = found.trial_id
            frozen = self.get_trial(found.trial_id)
        self._take(claim, optuna_private.trial_id(frozen))
        self._scope.fresh = copy.deepcopy(frozen)
        return frozen

    def _take(self, claim: Claim, trial_id: int) -> None:
        claim.trial_id = trial_id
        self._tokens[trial_id] = claim.token
        self._drafts[trial_id] = Draft()

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        claim = self._scope.claim
        if claim is not None and state == TrialState.RUNNING:
            return self._set_running(claim, trial_id)
        held = trial_id in self._tokens

        def guard(executor: Executor) -> None:
            if held:
                self._write_pending(executor, trial_id)
            if state.is_finished():
                leases.delete_lease(executor, trial_id)
            elif state == TrialState.WAITING:
                leases.release(executor, trial_id)

        def attempt() -> bool:
            with self._fenced(trial_id, guard):
                return super(ServiceStorage, self).set_trial_state_values(trial_id, state, values)

        changed = self._once(attempt, trial_id, state, values)
        self.forget_trial(trial_id)
        return changed

    def _once(
        self, attempt: Callable[[], bool], trial_id: int, state: TrialState, values: Sequence[float] | None
    ) -> bool:
        """Retry `attempt`; if a response was lost, accept the effect of that attempt."""
        tries = 0

        def counted() -> bool:
            nonlocal tries
            tries += 1
            return attempt()

        try:
            return self.retry.call(counted)
        except (UpdateFinishedTrialError, LeaseLost):
            if tries == 1:
                raise
            stored = super().get_trial(trial_id)
            wanted = None if values is None else list(values)
            if stored.state != state or (wanted is not None and stored.values != wanted):
                raise
            return True

    def _set_running(self, claim: Claim, trial_id: int) -> bool:
        if claim.takes is not None and trial_id not in claim.takes:
            return False

        def guard(session: Session) -> None:
            if session.dirty:  # otherwise the trial was not waiting, and is unchanged
                session.flush()
                leases.lease_waiting_trial(session, claim, trial_id)

        def attempt() -> bool:
            with self._scope.guarded(guard):
                return super(ServiceStorage, self).set_trial_state_values(trial_id, TrialState.RUNNING)

        taken = self.retry.call(attempt)
        if not taken and self.query(lambda executor: leases.holder(executor, trial_id)) != claim.token:
            return False
        self._take(claim, trial_id)
        return True

    def get_trial(self, trial_id: int) -> FrozenTrial:
        fresh, self._scope.fresh = self._scope.fresh, None
        if fresh is not None and optuna_private.trial_id(fresh) == trial_id:
            return fresh
        with self._lost_if_deleted(trial_id):
            stored = super().get_trial(trial_id)
        if self.holds(trial_id) and stored.state != TrialState.RUNNING:
            raise LeaseLost(f"trial {stored.number} was given to another worker, or was ended")
        return stored

    def read_trials(
        self, study_id: int, states: Container[TrialState] | None, also: set[int], newer_than: int
    ) -> list[FrozenTrial]:
        try:
            return super().read_trials(study_id, states, also, newer_than)
        except KeyError:
            if not self._tokens:
                raise
            raise LeaseLost(f"the study with id {study_id} is no longer in the database") from None
