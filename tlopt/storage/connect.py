"""Open a study's database, whatever state it is in: starting, full, empty, shared, behind PgBouncer.

Every process has one connection, which its threads share. The tables are made by whoever comes first.
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
from tlopt.storage.connections import engine_options, is_sqlite, set_socket_timeout, unpooled_engine
from tlopt.storage.failures import DATABASE_ERRORS, cure_of, outage, phrase_in
from tlopt.storage.rdb import ServiceStorage
from tlopt.storage.retry import Retry
from tlopt.storage.url import hide_password, normalise, refuse_network_file

Result = TypeVar("Result")

LOCK_SECONDS = 300.0  # for the making of tables, one process after the other
LOCK_KEY = 0x746C6F7074  # "tlopt"; advisory locks are per database
MOMENTARY_SECONDS = 60.0  # for a server that has no connection free, or is starting


def connect(url: str, retry: Retry, *, wait_seconds: float = 0.0) -> ServiceStorage:
    """A storage on the database `url`, with its tables; many processes may open it at once.

    SQLite runs with a write-ahead log and takes its lock at the beginning of a transaction; as Optuna ships
    it, two workers may be given the same trial (optuna issue 4002).

    Args:
        retry: of the storage's calls from now on.
        wait_seconds: how long a server that does not answer at all is waited for; a lasting fault, such as a
            wrong password, is an error at once.

    Raises:
        StorageError: the database cannot be reached, was made by an incompatible Optuna or belongs to another
            application.
    """
    parsed = _usable(url)
    return _patiently(parsed, retry, wait_seconds, lambda: _open(parsed, retry))


def is_made(url: str, retry: Retry, *, wait_seconds: float = 0.0) -> bool:
    """Whether Optuna's tables are in the database `url`; makes neither tables nor a file. As `connect`."""
    parsed = _usable(url)
    return _patiently(parsed, retry, wait_seconds, lambda: _has_tables(parsed, schema.has_optuna_tables))


def _usable(url: str) -> sqlalchemy.URL:
    parsed = sqlalchemy.make_url(normalise(url))
    if is_sqlite(parsed):
        refuse_network_file(Path(parsed.database or ""))
    else:
        set_socket_timeout()
    return parsed


def _patiently(
    url: sqlalchemy.URL, retry: Retry, wait_seconds: float, attempt: Callable[[], Result]
) -> Result:
    """The result of `attempt`, which is made again while the database is away for a moment."""
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
    """The seconds for which a database is asked again that gives `reason`, None where it is no outage."""
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
    # One connection, never two: sixty-four workers are to fit a small max_connections. Nothing opens a second
    # one while it holds a first.
    options = {"pool_size": 1, "max_overflow": 0, **engine_options(url)}
    return ServiceStorage(url.render_as_string(hide_password=False), options, retry)


def _has_tables(
    url: sqlalchemy.URL, found: Callable[[sqlalchemy.Connection], bool] = schema.has_tables
) -> bool:
    """Whether the tables are there, of the version that this Optuna reads; see `schema.has_tables`."""
    if is_sqlite(url) and not _has_content(Path(url.database or "")):
        return False
    with _short_connection(url) as connection:
        return found(connection)


def _has_content(file: Path) -> bool:
    """Whether an SQLite file is there and not empty; to begin a transaction in an empty one fills it."""
    _check_folder(file)
    return file.is_file() and file.stat().st_size > 0


def _check_folder(file: Path) -> None:
    """Raise where an SQLite file's folder is not there: a mistyped path is no empty database."""
    if not file.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {file.parent}")


def _make_tables(url: sqlalchemy.URL) -> None:
    for lock in table_locks(url):
        with lock as connection:
            if connection is not None:
                if not schema.has_tables(connection):
                    schema.create_tables(connection)
                return
        # Not within: a pooler's connections are few, and who waits for a second must not hold a first.
        if _has_tables(url):
            return


@contextmanager
def _short_connection(url: sqlalchemy.URL) -> Iterator[sqlalchemy.Connection]:
    """A connection of its own in a transaction, closed afterwards."""
    with unpooled_engine(url).begin() as connection:
        yield connection


def table_locks(url: sqlalchemy.URL) -> Iterator[AbstractContextManager[sqlalchemy.Connection | None]]:
    """Attempts to be the process that makes the tables: a transaction each, None while another does.

    Raises:
        TimeoutError: nothing came of it for `LOCK_SECONDS`.
    """
    deadline, pause = time.monotonic() + LOCK_SECONDS, 0.1
    while time.monotonic() < deadline:
        yield _file_lock(url) if is_sqlite(url) else _server_lock(url)
        # Each look is a new connection, which costs the server as much as what it waits for.
        time.sleep(random.uniform(0.5, 1.5) * pause)
        pause = min(2.0, 1.5 * pause)
    raise TimeoutError(f"another process has been making tables for {LOCK_SECONDS:g} s")


@contextmanager
def _server_lock(url: sqlalchemy.URL) -> Iterator[sqlalchemy.Connection | None]:
    # The transaction's lock, not the session's: behind PgBouncer a session outlives its client.
    ours = sqlalchemy.select(sqlalchemy.func.pg_try_advisory_xact_lock(LOCK_KEY))
    with _short_connection(url) as connection:
        yield connection if connection.execute(ours).scalar() else None


@contextmanager
def _file_lock(url: sqlalchemy.URL) -> Iterator[sqlalchemy.Connection | None]:
    file = Path(url.database or "")
    _check_folder(file)  # which the lock would create
    lock = filelock.FileLock(f"{file}.lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        yield None
        return
    try:
        with closing(sqlite3.connect(file, timeout=LOCK_SECONDS)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
        with _short_connection(url) as made:
            yield made
    finally:
        lock.release()


@contextmanager
def as_storage_errors(url: sqlalchemy.URL) -> Iterator[None]:
    """Turn what databases and locks raise into a StorageError without passwords.

    The cause is dropped: SQLAlchemy's and Optuna's messages may quote the URL.
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
