"""Opening a database in any state: starting, full, empty, in use by others, behind PgBouncer.

Each process has one connection, which its threads share. The first process creates the tables.
"""

import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import TypeVar

import filelock
import sqlalchemy

from tlopt.errors import StorageError
from tlopt.storage import schema
from tlopt.storage.connections import (
    SQLITE_BUSY_SECONDS,
    engine_options,
    is_sqlite,
    set_socket_timeout,
    unpooled_engine,
)
from tlopt.storage.failures import DATABASE_ERRORS, cure_of, outage, phrase_in
from tlopt.storage.rdb import ServiceStorage
from tlopt.storage.retry import Retry
from tlopt.storage.url import hide_password, normalise, refuse_network_file

_T = TypeVar("_T")

LOCK_SECONDS = 300.0  # longest wait for other processes that create tables
LOCK_KEY = 0x746C6F7074  # "tlopt"; advisory locks are per database
MOMENTARY_SECONDS = 60.0  # wait for a server that is starting or has no free connection


def connect(url: str, retry: Retry, *, wait_seconds: float = 0.0) -> ServiceStorage:
    """Open the database `url`, creating its tables if missing; many processes may do so at once.

    SQLite uses a write-ahead log and takes its lock when a transaction begins; with Optuna's defaults two
    workers may get the same trial (optuna issue 4002).

    Args:
        retry: retry policy for later calls.
        wait_seconds: longest wait for a server that does not respond; a lasting fault, such as a wrong
            password, raises immediately.

    Raises:
        StorageError: the database cannot be reached, has the tables of an incompatible Optuna, or belongs to
            another application.
    """
    parsed = _usable(url)
    return _retried(parsed, retry, wait_seconds, lambda: _open(parsed, retry))


def is_initialised(url: str, retry: Retry, *, wait_seconds: float = 0.0) -> bool:
    """Return whether the database `url` has Optuna's tables, without creating any; else as `connect`."""
    parsed = _usable(url)
    return _retried(parsed, retry, wait_seconds, lambda: _has_tables(parsed, schema.has_optuna_tables))


def _usable(url: str) -> sqlalchemy.URL:
    parsed = sqlalchemy.make_url(normalise(url))
    if is_sqlite(parsed):
        refuse_network_file(Path(parsed.database or ""))
    else:
        set_socket_timeout()
    return parsed


def _retried(url: sqlalchemy.URL, retry: Retry, wait_seconds: float, attempt: Callable[[], _T]) -> _T:
    """Call `attempt`, and retry it during momentary outages."""
    began = time.monotonic()
    with as_storage_errors(url):
        while True:
            try:
                return attempt()
            except DATABASE_ERRORS as error:
                reason = outage(error)
                if time.monotonic() - began >= _worth_waiting(reason, wait_seconds):
                    raise
                retry.note_outage(str(reason))
                time.sleep(random.uniform(0.5, 1.5))


def _worth_waiting(reason: str | None, wait_seconds: float) -> float:
    """Seconds for which to retry after the error `reason`; None means that it is not an outage."""
    if reason is None:
        return 0.0
    found = phrase_in([reason])
    when = found[0].when if found else "unknown"
    if when == "lasting":
        return 0.0
    return max(wait_seconds, MOMENTARY_SECONDS if when == "momentary" else 0.0)


def _open(url: sqlalchemy.URL, retry: Retry) -> ServiceStorage:
    if not _has_tables(url):
        _make_tables(url)
    # One connection, so that 64 workers fit into a small max_connections. Nothing opens a second one while
    # holding a first.
    options = {"pool_size": 1, "max_overflow": 0, **engine_options(url)}
    return ServiceStorage(url.render_as_string(hide_password=False), options, retry)


def _has_tables(
    url: sqlalchemy.URL, found: Callable[[sqlalchemy.Connection], bool] = schema.has_tables
) -> bool:
    """Return whether the tables exist in the version of this Optuna; see `schema.has_tables`."""
    if is_sqlite(url) and not _has_content(Path(url.database or "")):
        return False
    with _short_connection(url) as connection:
        return found(connection)


def _has_content(file: Path) -> bool:
    """Return whether an SQLite file exists and is not empty; a transaction would write to an empty one."""
    _check_folder(file)
    return file.is_file() and file.stat().st_size > 0


def _check_folder(file: Path) -> None:
    """Raise if the folder of an SQLite file is missing, which usually means a mistyped path."""
    if not file.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {file.parent}")


def _make_tables(url: sqlalchemy.URL) -> None:
    for lock in table_locks(url):
        with lock as connection:
            if connection is not None:
                if not schema.has_tables(connection):
                    schema.create_tables(connection)
                return
        # After the block: do not wait for a second connection of a small pool while holding one.
        if _has_tables(url):
            return


@contextmanager
def _short_connection(url: sqlalchemy.URL) -> Iterator[sqlalchemy.Connection]:
    """A separate connection in a transaction, closed after the block."""
    with unpooled_engine(url).begin() as connection:
        yield connection


def table_locks(url: sqlalchemy.URL) -> Iterator[AbstractContextManager[sqlalchemy.Connection | None]]:
    """Yield attempts to lock the creation of tables: contexts with a transaction, or None if it is locked.

    Raises:
        TimeoutError: the lock was not acquired within `LOCK_SECONDS`.
    """
    deadline, pause = time.monotonic() + LOCK_SECONDS, 0.1
    while time.monotonic() < deadline:
        yield _file_lock(url) if is_sqlite(url) else _server_lock(url)
        # Each attempt opens a connection, as expensive for the server as creating tables.
        time.sleep(random.uniform(0.5, 1.5) * pause)
        pause = min(2.0, 1.5 * pause)
    raise TimeoutError(f"another process has been creating tables for {LOCK_SECONDS:g} s")


@contextmanager
def _server_lock(url: sqlalchemy.URL) -> Iterator[sqlalchemy.Connection | None]:
    # A transaction-level lock, because behind PgBouncer a session outlives its client.
    ours = sqlalchemy.select(sqlalchemy.func.pg_try_advisory_xact_lock(LOCK_KEY))
    with _short_connection(url) as connection:
        yield connection if connection.execute(ours).scalar() else None


@contextmanager
def _file_lock(url: sqlalchemy.URL) -> Iterator[sqlalchemy.Connection | None]:
    file = Path(url.database or "")
    _check_folder(file)  # FileLock would create it
    lock = filelock.FileLock(f"{file}.lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        yield None
        return
    try:
        use_write_ahead_log(file)
        with _short_connection(url) as made:
            yield made
    finally:
        lock.release()


def use_write_ahead_log(file: Path) -> None:
    """Set the journal mode of an SQLite file, which stays with the file.

    While another connection writes, SQLite refuses this at once instead of waiting for its busy timeout.
    """
    deadline = time.monotonic() + LOCK_SECONDS
    with closing(sqlite3.connect(file, timeout=SQLITE_BUSY_SECONDS)) as connection:
        while True:
            try:
                connection.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)


@contextmanager
def as_storage_errors(url: sqlalchemy.URL) -> Iterator[None]:
    """Raise errors of the database and of locks as a StorageError without passwords.

    The original exception is dropped, because SQLAlchemy's and Optuna's messages may contain the URL.
    """
    try:
        yield
    except DATABASE_ERRORS as error:
        raise _unusable(url, getattr(error, "orig", None) or error.__cause__ or error) from None
    except (sqlite3.Error, OSError) as error:
        raise _unusable(url, error) from None


def _unusable(url: sqlalchemy.URL, error: BaseException) -> StorageError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if url.password:
        reason = reason.replace(url.password, "***")
    hidden = hide_password(url.render_as_string(hide_password=False))
    return StorageError(f"{hidden}: {reason}\n{cure_of(reason, url.get_backend_name())}")
