"""Optuna's database storage, which waits for a database that is away and knows what one thread is about."""

import functools
import threading
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import sqlalchemy
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import event
from sqlalchemy.orm import Session

from tlopt.storage import socket_timeout
from tlopt.storage.leases import Claim, Executor
from tlopt.storage.retry import Patience

T = TypeVar("T")
Guard = Callable[[Session], None]


class PatientStorage(RDBStorage):
    """As `RDBStorage`, with patience in every call that may be made twice. The schema must be there.

    Args:
        url: with its driver named.
        engine_kwargs: as SQLAlchemy takes them.
        patience: how long a database that is away is waited for.
    """

    def __init__(self, url: str, engine_kwargs: dict[str, Any], patience: Patience) -> None:
        super().__init__(url, engine_kwargs, skip_compatibility_check=True, skip_table_creation=True)
        self.patience = patience
        self._local = _Local()
        self._connections = _Count()
        self._study_ids: dict[str, int] = {}
        # no methods of ours: SQLAlchemy keeps listeners longer than this object is to live
        event.listen(self.scoped_session, "before_commit", self._local.check)
        event.listen(self.engine, "connect", self._connections.add)

    @contextmanager
    def singly(self) -> Iterator[sqlalchemy.Connection]:
        """A connection on which each statement is a transaction of its own, which saves two round trips.

        By the driver's own switch: SQLAlchemy's isolation level AUTOCOMMIT is set back by a statement. On
        SQLite one transaction for all.
        """
        if self.engine.dialect.name == "sqlite":
            with self.engine.begin() as connection:
                yield connection
            return
        with self.engine.connect() as connection:
            driver: Any = connection.connection.dbapi_connection
            driver.autocommit = True
            try:
                yield connection
            finally:
                if not driver.closed:
                    driver.autocommit = False

    def ask(self, question: Callable[[Executor], T]) -> T:
        """The answer to one statement, with patience."""

        def attempt() -> T:
            with self.singly() as connection:
                return question(connection)

        return self.patience.call(attempt)

    def hurry(self) -> None:
        """Try nothing again, and wait for answers no longer than the end of a process allows."""
        self.patience.hurry = True
        if self.engine.dialect.name == "postgresql":
            socket_timeout.hurry()

    @property
    def n_connections(self) -> int:
        """How many were made so far, one after the other: another one tells of an interruption."""
        return self._connections.n

    @contextmanager
    def _guarded(self, guard: Guard | None) -> Iterator[None]:
        """A block in which `guard` is part of every transaction; if it raises, nothing is committed."""
        before, self._local.guard = self._local.guard, guard
        try:
            yield
        finally:
            self._local.guard = before

    def get_study_id_from_name(self, study_name: str) -> int:
        if study_name not in self._study_ids:  # it never changes, and pruners with brackets ask at each step
            self._study_ids[study_name] = self.patience.call(
                lambda: RDBStorage.get_study_id_from_name(self, study_name)
            )
        return self._study_ids[study_name]

    def get_trial(self, trial_id: int) -> FrozenTrial:
        # Optuna asks in the middle of a write what it is to say of a trial that has ended, and commits there.
        with self._guarded(None):
            return self.patience.call(lambda: RDBStorage.get_trial(self, trial_id))

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """A block in which other trials are what was read of them last: nothing is read."""
        before, self._local.unchanged = self._local.unchanged, True
        try:
            yield
        finally:
            self._local.unchanged = before

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        if self._local.unchanged:
            return []
        return self.patience.call(
            lambda: RDBStorage._get_trials(self, study_id, states, included_trial_ids, trial_id_greater_than)
        )

    def _get_best_trial_id(self, study_id: int, direction: StudyDirection) -> int:
        return self.patience.call(lambda: RDBStorage._get_best_trial_id(self, study_id, direction))


def _patient(method: Any) -> Any:
    @functools.wraps(method)
    def call(self: PatientStorage, *args: Any, **kwargs: Any) -> Any:
        return self.patience.call(lambda: method(self, *args, **kwargs))

    return call


# what is read, and what may be written twice without harm
for _name in (
    "set_study_user_attr",
    "set_study_system_attr",
    "get_study_name_from_id",
    "get_study_directions",
    "get_study_user_attrs",
    "get_study_system_attrs",
    "get_all_studies",
    "get_trial_id_from_study_id_trial_number",
):
    setattr(PatientStorage, _name, _patient(getattr(RDBStorage, _name)))


class _Count:
    """How many connections an engine has made."""

    n = 0

    def add(self, _connection: object, _record: object) -> None:
        self.n += 1


class _Local(threading.local):
    """What one thread is about."""

    claim: Claim | None = None
    guard: Guard | None = None
    fresh: FrozenTrial | None = None
    unchanged: bool = False
    drawn_from: str = ""  # token of the claim for which the study was read

    def check(self, session: Session) -> None:
        """Make the guard part of the transaction that is about to be committed."""
        if self.guard is not None:
            self.guard(session)
