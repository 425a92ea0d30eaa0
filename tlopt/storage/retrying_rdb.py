"""Optuna's database storage with retries and a per-thread context for its calls."""

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
    """`RDBStorage` with retries of all calls that may safely be repeated. The tables must exist.

    Args:
        url: database URL that names the driver.
        engine_kwargs: arguments for SQLAlchemy's `create_engine`.
        retry: retry policy for all calls.
    """

    def __init__(self, url: str, engine_kwargs: dict[str, Any], retry: Retry) -> None:
        super().__init__(url, engine_kwargs, skip_compatibility_check=True, skip_table_creation=True)
        self.engine.dispose()  # the constructor's connection lacks our settings
        connections.prepare_engine(self.engine)
        self.retry = retry
        retry.is_ready = self.has_all_tables
        self._scope = CallScope()
        self._file = file_identity(self.engine.url)
        self._connections = _Count()
        self._study_ids: dict[str, int] = {}
        # not methods of this object, because SQLAlchemy keeps listeners alive
        event.listen(self.scoped_session, "before_commit", self._scope.check)
        event.listen(self.engine, "connect", self._connections.add)

    def __getstate__(self) -> dict[Any, Any]:
        return {"url": self.url, "options": self.engine_kwargs, "outage_seconds_max": self.retry.seconds_max}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        connections.set_socket_timeout()
        self.__init__(state["url"], state["options"], Retry(state["outage_seconds_max"]))  # type: ignore[misc]

    @contextmanager
    def autocommit(self) -> Iterator[sqlalchemy.Connection]:
        """Yield a connection that commits each statement separately, which saves two round trips.

        Uses the driver's flag, because resetting SQLAlchemy's isolation level AUTOCOMMIT costs a statement.
        On SQLite, and behind a pooler, which needs settings per transaction, the block is one transaction.
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
        """Run a query with retries and return its result."""

        def attempt() -> _T:
            with self.autocommit() as connection:
                return run(connection)

        return self.retry.call(attempt)

    def has_all_tables(self) -> bool:
        """Return whether the tables exist and are not being restored. Not retried."""
        with self.engine.connect() as connection:
            return schema.restore_is_complete(connection)

    def wait_for_tables(self) -> bool:
        """Wait until a restore of the tables, if any, has finished; return whether there was one."""
        waited = False

        def attempt() -> None:
            nonlocal waited
            if not self.has_all_tables():
                waited = True
                raise TablesMissing

        self.retry.call(attempt)
        return waited

    def file_failure(self) -> StorageError | None:
        """An error if the SQLite file was removed or replaced, so that further writes would be lost."""
        if self._file is None or file_identity(self.engine.url) == self._file:
            return None
        return StorageError(
            f"{self.engine.url.database} was removed or replaced while this process was using it, and later"
            " writes are lost; put the file back, then start again"
        )

    def begin_shutdown(self) -> None:
        """Stop retrying, and shorten waits for the server so that the process can exit in time."""
        self.retry.shutting_down = True
        if self.engine.dialect.name == "postgresql":
            connections.shorten_socket_timeout()

    @property
    def n_connections(self) -> int:
        """Number of connections made so far; a new one means that the previous one was interrupted."""
        return self._connections.n

    def get_study_id_from_name(self, study_name: str) -> int:
        if study_name not in self._study_ids:  # constant, and Hyperband asks at each step
            self._study_ids[study_name] = self.retry.call(
                lambda: super(RetryingStorage, self).get_study_id_from_name(study_name)
            )
        return self._study_ids[study_name]

    def delete_study(self, study_id: int) -> None:
        self._study_ids.clear()
        super().delete_study(study_id)

    def get_trial(self, trial_id: int) -> FrozenTrial:
        # Optuna reads the number of a finished trial within a write, and commits there.
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
        """Use other trials as last read within the block."""
        with self._scope.unchanged():
            yield


def _retried(method: Any) -> Any:
    @functools.wraps(method)
    def call(self: RetryingStorage, *args: Any, **kwargs: Any) -> Any:
        return self.retry.call(lambda: method(self, *args, **kwargs))

    return call


# Reads, and idempotent writes.
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
    """Counter of connections made by an engine."""

    n = 0

    def add(self, _connection: object, _record: object) -> None:
        self.n += 1


class CallScope(threading.local):
    """Context for the storage calls of one thread.

    Optuna calls the storage from `ask`, `suggest_float` and `tell`, which cannot pass on extra arguments; a
    context manager around such a call sets them here.
    """

    claim: Claim | None = None
    fresh: FrozenTrial | None = None  # a trial just created, to save reading it
    _guard: TransactionCheck | None = None
    _unchanged: bool = False
    _drawn_from: str = ""  # token of the claim for which trials were read

    @contextmanager
    def guarded(self, guard: TransactionCheck | None) -> Iterator[None]:
        """Run `guard` in every transaction of the block before it is committed; an exception rolls back."""
        before, self._guard = self._guard, guard
        try:
            yield
        finally:
            self._guard = before

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Read no trials within the block."""
        before, self._unchanged = self._unchanged, True
        try:
            yield
        finally:
            self._unchanged = before

    @contextmanager
    def claiming(self, claim: Claim) -> Iterator[None]:
        """Lease the trial that is created or taken in the block to `claim`."""
        self.claim = claim
        try:
            yield
        finally:
            self.claim = None

    def check(self, session: Session) -> None:
        """Run the guard in the transaction that is about to be committed."""
        if self._guard is not None:
            self._guard(session)

    def skips_reads(self) -> bool:
        """Return whether reading other trials can be skipped now."""
        claim = self.claim
        if claim is None:
            return self._unchanged
        if claim.trial_id is None:
            return not claim.has_waiting  # only to find a waiting trial
        return self._drawn_from == claim.token  # read once per claim

    def has_read(self) -> None:
        """Note that the study's trials have been read."""
        if self.claim is not None:
            self._drawn_from = self.claim.token if self.claim.trial_id is not None else ""
