"""Optuna's database storage with retries, and with a context for the calls of each thread."""

import functools
import threading
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import sqlalchemy
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import event
from sqlalchemy.orm import Session

from tlopt.errors import StorageError
from tlopt.storage import connections, leases, schema
from tlopt.storage.connections import file_identity
from tlopt.storage.failures import TablesMissing
from tlopt.storage.leases import Claim, Executor
from tlopt.storage.optuna_private import OptunaDatabase, ReadTrials
from tlopt.storage.retry import Retry

_T = TypeVar("_T")
TransactionCheck = Callable[[Session], None]


class RetryingStorage(OptunaDatabase):
    """`RDBStorage` whose calls are retried, as far as they may be made twice. The tables must be there.

    Args:
        url: with its driver named.
        engine_kwargs: as SQLAlchemy takes them.
        retry: of every call.
    """

    def __init__(self, url: str, engine_kwargs: dict[str, Any], retry: Retry) -> None:
        super().__init__(url, engine_kwargs, skip_compatibility_check=True, skip_table_creation=True)
        self.engine.dispose()  # the constructor's connection was not prepared
        connections.prepare_engine(self.engine)
        self.retry = retry
        retry.is_ready = self.has_all_tables
        self._scope = CallScope()
        self._file = file_identity(self.engine.url)
        self._connections = _Count()
        self._study_ids: dict[str, int] = {}
        # no methods of ours: SQLAlchemy keeps listeners longer than this object is to live
        event.listen(self.scoped_session, "before_commit", self._scope.check)
        event.listen(self.engine, "connect", self._connections.add)

    def __getstate__(self) -> dict[Any, Any]:
        return {"url": self.url, "options": self.engine_kwargs, "outage_seconds_max": self.retry.seconds_max}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        connections.set_socket_timeout()
        self.__init__(state["url"], state["options"], Retry(state["outage_seconds_max"]))  # type: ignore[misc]

    @contextmanager
    def autocommit(self) -> Iterator[sqlalchemy.Connection]:
        """A connection on which each statement is a transaction of its own, which saves two round trips.

        By the driver's own switch: SQLAlchemy's isolation level AUTOCOMMIT is set back by a statement. On
        SQLite, and behind a pooler, whose sessions have settings of their own, one transaction for all.
        """
        with self.engine.connect() as connection:
            if self.engine.dialect.name == "sqlite" or connections.is_pooled(connection):
                with connection.begin():
                    yield connection
                return
            driver: Any = connection.connection.dbapi_connection
            driver.autocommit = True
            try:
                yield connection
            finally:
                if not driver.closed:
                    driver.autocommit = False

    def query(self, run: Callable[[Executor], _T]) -> _T:
        """The result of one statement, with retries."""

        def attempt() -> _T:
            with self.autocommit() as connection:
                return run(connection)

        return self.retry.call(attempt)

    def has_all_tables(self) -> bool:
        """Whether the tables are there, and no restore of them is under way. One attempt."""
        with self.engine.connect() as connection:
            return schema.restore_is_complete(connection)

    def wait_for_tables(self) -> bool:
        """Wait for the end of a restore of the tables, if one is under way; returns whether one was."""
        waited = False

        def attempt() -> None:
            nonlocal waited
            if not self.has_all_tables():
                waited = True
                raise TablesMissing

        self.retry.call(attempt)
        return waited

    def file_failure(self) -> StorageError | None:
        """The error where an SQLite file was removed or replaced: what is written now reaches nobody."""
        if self._file is None or file_identity(self.engine.url) == self._file:
            return None
        return StorageError(
            f"{self.engine.url.database} was removed or replaced while this process used it: what it wrote"
            " since is lost; put the file back, then start again"
        )

    def begin_shutdown(self) -> None:
        """Stop retrying, and wait for answers no longer than the end of a process allows."""
        self.retry.shutting_down = True
        if self.engine.dialect.name == "postgresql":
            connections.shorten_socket_timeout()

    @property
    def n_connections(self) -> int:
        """Number of connections made so far, one after the other: a new one means an interruption."""
        return self._connections.n

    def get_study_id_from_name(self, study_name: str) -> int:
        if study_name not in self._study_ids:  # it never changes, and pruners with brackets ask at each step
            self._study_ids[study_name] = self.retry.call(
                lambda: super(RetryingStorage, self).get_study_id_from_name(study_name)
            )
        return self._study_ids[study_name]

    def delete_study(self, study_id: int) -> None:
        self._study_ids.clear()
        super().delete_study(study_id)

    def get_trial(self, trial_id: int) -> FrozenTrial:
        # Optuna asks in the middle of a write for the number of a trial that has ended, and commits there.
        with self._scope.guarded(None):
            return self.retry.call(lambda: super(RetryingStorage, self).get_trial(trial_id))

    def forget(self) -> None:
        self._study_ids.clear()

    def skips_reads(self) -> bool:
        return self._scope.skips_reads()

    def read_trials(
        self, study_id: int, states: Container[TrialState] | None, also: set[int], newer_than: int
    ) -> list[FrozenTrial]:
        if self._scope.skips_reads():
            return []
        found = self.retry.call(
            lambda: super(RetryingStorage, self).read_trials(study_id, states, also, newer_than)
        )
        self._scope.has_read()
        return found

    def still_has_trials(self, study_id: int, read: ReadTrials) -> bool:
        return self.query(lambda executor: leases.still_has_trials(executor, study_id, read))

    def best_trial_id(self, study_id: int, direction: StudyDirection) -> int:
        return self.retry.call(lambda: super(RetryingStorage, self).best_trial_id(study_id, direction))

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """A block in which other trials are taken as they were last read."""
        with self._scope.unchanged():
            yield


def _retried(method: Any) -> Any:
    @functools.wraps(method)
    def call(self: RetryingStorage, *args: Any, **kwargs: Any) -> Any:
        return self.retry.call(lambda: method(self, *args, **kwargs))

    return call


# Reads, and writes that may be made twice without harm.
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
    setattr(RetryingStorage, _name, _retried(getattr(OptunaDatabase, _name)))


class _Count:
    """Counter of the connections that an engine has made."""

    n = 0

    def add(self, _connection: object, _record: object) -> None:
        self.n += 1


class CallScope(threading.local):
    """The context of one thread's calls.

    Optuna calls the storage from within `ask`, `suggest_float` and `tell`, which take no arguments of ours; a
    block around such a call sets the context here.
    """

    claim: Claim | None = None
    fresh: FrozenTrial | None = None  # the trial that was just created: it need not be read
    _guard: TransactionCheck | None = None
    _unchanged: bool = False
    _drawn_from: str = ""  # token of the claim for which the study was read

    @contextmanager
    def guarded(self, guard: TransactionCheck | None) -> Iterator[None]:
        """A block in which `guard` is part of every transaction; if it raises, nothing is committed."""
        before, self._guard = self._guard, guard
        try:
            yield
        finally:
            self._guard = before

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """A block in which no trials are read."""
        before, self._unchanged = self._unchanged, True
        try:
            yield
        finally:
            self._unchanged = before

    @contextmanager
    def claiming(self, claim: Claim) -> Iterator[None]:
        """A block in which a trial that is created or taken goes to `claim`."""
        self.claim = claim
        try:
            yield
        finally:
            self.claim = None

    def check(self, session: Session) -> None:
        """Make the guard part of the transaction that is about to be committed."""
        if self._guard is not None:
            self._guard(session)

    def skips_reads(self) -> bool:
        """Whether other trials need not be read now."""
        claim = self.claim
        if claim is None:
            return self._unchanged
        if claim.trial_id is None:
            return not claim.has_waiting  # only a waiting trial is looked for
        return self._drawn_from == claim.token  # one draw looks at one state of the study

    def has_read(self) -> None:
        """Note that the study's trials have been read."""
        if self.claim is not None:
            self._drawn_from = self.claim.token if self.claim.trial_id is not None else ""
