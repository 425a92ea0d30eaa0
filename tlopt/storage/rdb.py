"""Optuna's database storage, made fit for workers that die and databases that go away.

Added, all within Optuna's tables and transactions and with `tlopt_leases` beside them:

- every call is tried again while the database is away (`Patience`); what a lost answer may have done already
  is found out and not done twice;
- a trial is created or taken only while the budget has room, counted under the study's row lock, and together
  with its lease;
- every write to a trial held here checks the lease's token in the transaction that writes;
- parameters and attributes are written together, a report is one statement.
"""

import copy
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from optuna.distributions import BaseDistribution, check_distribution_compatibility
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.orm import Session

from tlopt.storage import leases, optuna_private, writes
from tlopt.storage.leases import AlreadyCreated, Claim, Executor, LeaseLost, Seen, StillBeating
from tlopt.storage.retry import DATABASE_ERRORS, Patience, outage
from tlopt.storage.retrying_rdb import Guard, PatientStorage
from tlopt.storage.writes import Draft


class ServiceStorage(PatientStorage):
    """As `RDBStorage`, for a worker; see the module. The schema and our tables must be there.

    Args:
        url: with its driver named.
        engine_kwargs: as SQLAlchemy takes them.
        patience: how long a database that is away is waited for.
    """

    def __init__(self, url: str, engine_kwargs: dict[str, Any], patience: Patience) -> None:
        super().__init__(url, engine_kwargs, patience)
        self._tokens: dict[int, str] = {}  # of the trials held here
        self._drafts: dict[int, Draft] = {}
        self._unsent: dict[int, dict[int, float]] = {}  # reports made while the database was away

    # Leases

    def holds(self, trial_id: int) -> bool:
        """Whether this process has the trial's lease, as far as it knows."""
        return trial_id in self._tokens

    def let_go(self, trial_id: int) -> None:
        """Forget a trial that is another's or ended."""
        for kept in (self._tokens, self._drafts, self._unsent):
            kept.pop(trial_id, None)

    @contextmanager
    def claiming(self, claim: Claim) -> Iterator[None]:
        """A block in which a trial that is created or taken goes to `claim`.

        What is drawn and noted of it goes to the database together, at the block's end.

        Raises:
            BudgetSpent: from within, where the budget has no room.
        """
        self._local.claim = claim
        try:
            yield
        finally:
            self._local.claim = None
        if claim.trial_id is not None:
            self.send(claim.trial_id)

    def expire(self, seen: Seen, cause: str) -> None:
        """Make a trial wait whose holder is gone, for `cause`. One attempt, from any thread.

        Raises:
            StillBeating: the lease is not as it was seen.
        """
        try:
            with self._guarded(lambda executor: leases.expire(executor, seen, cause)):
                RDBStorage.set_trial_state_values(self, seen.trial_id, TrialState.WAITING)
        except (UpdateFinishedTrialError, LeaseLost, KeyError):  # it has ended, or was deleted
            raise StillBeating from None

    def requeue_unheld(self, trial_id: int) -> None:
        """Make a running trial wait that no worker holds. One attempt, from any thread.

        Raises:
            StillBeating: a worker holds it, or it runs no longer.
        """
        try:
            if RDBStorage.get_trial(self, trial_id).state != TrialState.RUNNING:
                raise StillBeating
            with self._guarded(lambda executor: leases.check_unheld(executor, trial_id)):
                RDBStorage.set_trial_state_values(self, trial_id, TrialState.WAITING)
        except (UpdateFinishedTrialError, KeyError):
            raise StillBeating from None

    # Writes to a trial

    def send(self, trial_id: int) -> None:
        """Write what was drawn and noted of a trial held here, and reports that were kept back."""

        def attempt() -> None:
            with self.engine.begin() as connection:
                if trial_id in self._tokens:
                    leases.check_runs(connection, trial_id)
                self._write_kept(connection, trial_id)

        if trial_id in self._tokens or trial_id in self._drafts:
            self.patience.call(attempt)
            self._drafts.pop(trial_id, None)
            self._unsent.pop(trial_id, None)

    def _write_kept(self, executor: Executor, trial_id: int) -> None:
        if trial_id in self._tokens:
            leases.check(executor, trial_id, self._tokens[trial_id])
        writes.draft(executor, self.engine, trial_id, self._drafts.get(trial_id, Draft()))
        writes.late_reports(executor, self.engine, trial_id, self._unsent.get(trial_id, {}))

    @contextmanager
    def together(self, trial_id: int) -> Iterator[None]:
        """A block whose notes on a trial held here are written together: with its end, or at the block's."""
        self._drafts.setdefault(trial_id, Draft())
        yield
        self.send(trial_id)

    def _set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
        previous_distribution: BaseDistribution | None,
    ) -> None:
        if trial_id not in self._drafts:
            with self._guarded(self._fence(trial_id)):
                self.patience.call(
                    lambda: RDBStorage._set_trial_param(
                        self, trial_id, param_name, param_value_internal, distribution, previous_distribution
                    )
                )
            return
        if previous_distribution is not None:
            check_distribution_compatibility(previous_distribution, distribution)
        self._drafts[trial_id].params[param_name] = (param_value_internal, distribution)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        if trial_id in self._drafts:
            self._drafts[trial_id].user_attrs[key] = value
            return
        with self._guarded(self._fence(trial_id)):
            self.patience.call(lambda: RDBStorage.set_trial_user_attr(self, trial_id, key, value))

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        if trial_id in self._drafts:
            self._drafts[trial_id].system_attrs[key] = value
            return
        with self._guarded(self._fence(trial_id)):
            self.patience.call(lambda: RDBStorage.set_trial_system_attr(self, trial_id, key, value))

    def _fence(self, trial_id: int) -> Guard:
        token = self._tokens.get(trial_id)
        return lambda executor: None if token is None else leases.check(executor, trial_id, token)

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        """Report; of a trial held here a report that finds the database away is kept and sent with the next.

        Raises:
            LeaseLost: the trial is another's by now.
        """
        token = self._tokens.get(trial_id)
        if token is None:
            self.patience.call(
                lambda: RDBStorage.set_trial_intermediate_value(self, trial_id, step, intermediate_value)
            )
            return
        unsent = self._unsent.setdefault(trial_id, {})
        unsent[step] = intermediate_value
        if self.patience.is_away:  # whoever beats finds out when it is back
            return
        try:
            for step_unsent, value in sorted(unsent.items()):
                with self.singly() as connection:
                    writes.report(connection, self.engine, trial_id, token, step_unsent, value)
                del unsent[step_unsent]
        except DATABASE_ERRORS as error:
            reason = outage(error)
            if reason is None:
                raise
            self.patience.away(reason)

    def unsent(self, trial_id: int) -> bool:
        """Whether reports of the trial have not reached the database."""
        return bool(self._unsent.get(trial_id))

    # A trial's states

    def _create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> FrozenTrial:
        claim = self._local.claim
        if claim is None or template_trial is not None:
            return super()._create_new_trial(study_id, template_trial)

        def attempt() -> FrozenTrial:
            with self._guarded(lambda executor: leases.begin_new(executor, claim)):
                return RDBStorage._create_new_trial(self, study_id)

        try:
            frozen = self.patience.call(attempt)
        except AlreadyCreated as found:
            claim.trial_id = found.trial_id
            frozen = self.get_trial(found.trial_id)
        self._take(claim, optuna_private.trial_id(frozen))
        self._local.fresh = copy.deepcopy(frozen)
        return frozen

    def _take(self, claim: Claim, trial_id: int) -> None:
        claim.trial_id = trial_id
        self._tokens[trial_id] = claim.token
        self._drafts[trial_id] = Draft()

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        claim = self._local.claim
        if claim is not None and state == TrialState.RUNNING:
            return self._set_running(claim, trial_id)
        held = trial_id in self._tokens

        def guard(executor: Executor) -> None:
            if held:
                self._write_kept(executor, trial_id)
            if state.is_finished():
                leases.end(executor, trial_id)
            elif state == TrialState.WAITING:
                leases.release(executor, trial_id)

        def attempt() -> bool:
            with self._guarded(guard):
                return RDBStorage.set_trial_state_values(self, trial_id, state, values)

        changed = self._once(attempt, trial_id, state, values)
        self.let_go(trial_id)
        return changed

    def _once(
        self, attempt: Callable[[], bool], trial_id: int, state: TrialState, values: Sequence[float] | None
    ) -> bool:
        """`attempt`, with patience; the effect of one whose answer was lost counts as this one's."""
        tries = 0

        def counted() -> bool:
            nonlocal tries
            tries += 1
            return attempt()

        try:
            return self.patience.call(counted)
        except (UpdateFinishedTrialError, LeaseLost):
            if tries == 1:
                raise
            stored = super().get_trial(trial_id)
            wanted = None if values is None else list(values)
            if stored.state != state or (wanted is not None and stored.values != wanted):
                raise
            return True

    def _set_running(self, claim: Claim, trial_id: int) -> bool:
        def guard(session: Session) -> None:
            if session.dirty:  # otherwise the trial waits no longer, and nothing was changed
                session.flush()
                leases.begin_taken(session, claim, trial_id)

        def attempt() -> bool:
            with self._guarded(guard):
                return RDBStorage.set_trial_state_values(self, trial_id, TrialState.RUNNING)

        taken = self.patience.call(attempt)
        if not taken and self.ask(lambda executor: leases.holder(executor, trial_id)) != claim.token:
            return False
        self._take(claim, trial_id)
        return True

    def get_trial(self, trial_id: int) -> FrozenTrial:
        fresh, self._local.fresh = self._local.fresh, None
        if fresh is not None and optuna_private.trial_id(fresh) == trial_id:
            return fresh
        stored = super().get_trial(trial_id)
        if self.holds(trial_id) and stored.state != TrialState.RUNNING:
            raise LeaseLost(f"trial {stored.number} was given to another worker, or was ended")
        return stored

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        claim = self._local.claim
        if claim is None:
            return super()._get_trials(study_id, states, included_trial_ids, trial_id_greater_than)
        if claim.trial_id is None and not claim.waits:
            return []  # only a waiting trial was looked for
        if claim.trial_id is not None and self._local.drawn_from == claim.token:
            return []  # one draw looks at one state of the study
        found = super()._get_trials(study_id, states, included_trial_ids, trial_id_greater_than)
        self._local.drawn_from = claim.token if claim.trial_id is not None else ""
        return found
