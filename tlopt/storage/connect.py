"""Connections to a study's database, as databases are: restarted, paused, cut off, full, behind PgBouncer.

Every process has one connection, which its threads share. The tables are made by whoever comes first.
"""

import random
import sqlite3
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

import filelock
import sqlalchemy
from optuna.storages import RDBStorage
from sqlalchemy import event

from tlopt.errors import StorageError
from tlopt.storage.rdb import ServiceStorage
from tlopt.storage.retry import DATABASE_ERRORS, Patience, outage
from tlopt.storage.schema import are_there, create_ours
from tlopt.storage.url import hide_password, normalise, refuse_network_file

LOCK_SECONDS = 300.0  # for the making of tables and studies, one process after the other
LOCK_KEY = 0x746C6F7074  # "tlopt"; advisory locks are per database
BUSY_SECONDS = 3.0  # SQLite waits in C, deaf to signals; then it is asked again
FULL_SECONDS = 60.0  # for a server that has no connection free, or is starting

# tcp_user_timeout: a cut network blocks a write for a quarter of an hour without it, 20 s with it.
_POSTGRES_CONNECTION = {
    "connect_timeout": 5,  # seconds
    "tcp_user_timeout": 20_000,  # milliseconds
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "application_name": "tlopt",
}

# By SET, because PgBouncer refuses unknown start-up parameters. A worker that is stopped while it holds the
# study's row would stop all the others; lock_timeout lets a beat through where a write waits.
_POSTGRES_SETTINGS = (
    "SET {0} TIME ZONE 'UTC';"
    " SET {0} idle_in_transaction_session_timeout = '20s';"
    " SET {0} lock_timeout = '10s'"
)
_POOLED = "tlopt pooled"  # in what SQLAlchemy keeps about a connection

_MOMENTARY = (
    "too many",
    "connection slots",
    "no more connections",  # PgBouncer's
    "starting up",
    "shutting down",
    "recovery",
    "not yet accepting",
)
# What waiting does not mend; everything else that is an outage may end by itself.
_LASTING = (
    "authentication failed",
    "does not exist",
    "no pg_hba.conf entry",
    "translate host name",
    "no password supplied",
    "SSL",
    "certificate",
    "permission denied",
    "unsupported startup parameter",
    "invalid",
    "unable to open",
    "readonly",
)


def connect(url: str, patience: Patience, *, wait_seconds: float = 0.0) -> ServiceStorage:
    """A storage on the database `url`, with its tables; many processes may open it at once.

    SQLite runs with a write-ahead log and takes its lock at the beginning of a transaction; as Optuna ships
    it, two workers may be given the same trial (optuna issue 4002).

    Args:
        patience: of the storage's calls from now on.
        wait_seconds: for a server that does not answer at all; what is wrong otherwise is wrong at once.

    Raises:
        StorageError: the database cannot be reached, or was made by an incompatible Optuna.
    """
    parsed = sqlalchemy.make_url(normalise(url))
    _prepare_process(parsed)
    began = time.monotonic()
    with translated(parsed):
        while True:
            try:
                return _open(parsed, patience)
            except DATABASE_ERRORS as error:
                reason = outage(error)
                if time.monotonic() - began >= _worth_waiting(reason, wait_seconds):
                    raise
                patience.away(str(reason))
                time.sleep(random.uniform(0.5, 1.5))


def _prepare_process(url: sqlalchemy.URL) -> None:
    if is_sqlite(url):
        refuse_network_file(Path(url.database or ""))
        return
    from tlopt.storage.socket_timeout import bound_waits

    bound_waits()


def _worth_waiting(reason: str | None, wait_seconds: float) -> float:
    """For how many seconds a server is asked again that gives `reason`, None where it is no outage."""
    if reason is None or any(text in reason for text in _LASTING):
        return 0.0
    return max(wait_seconds, FULL_SECONDS * any(text in reason for text in _MOMENTARY))


def _open(url: sqlalchemy.URL, patience: Patience) -> ServiceStorage:
    if not _has_tables(url):
        _make_tables(url)
    # One connection, never two: sixty-four workers are to fit a small max_connections. Nothing here opens a
    # second one inside a session.
    options = {"pool_size": 1, "max_overflow": 0, "connect_args": connect_options(url)}
    storage = ServiceStorage(url.render_as_string(hide_password=False), options, patience)
    event.listen(storage.engine, "connect", _prepare_sqlite if is_sqlite(url) else _prepare_postgres)
    event.listen(storage.engine, "begin", _begin_immediate if is_sqlite(url) else _begin_pooled)
    if storage.get_current_version() != storage.get_head_version():
        _construct_plain(url)  # which refuses, and says what to run
    storage.engine.dispose()  # what the constructor has opened was not prepared
    return storage


def _engine(url: sqlalchemy.URL) -> sqlalchemy.Engine:
    """An engine that keeps no connection open."""
    return sqlalchemy.create_engine(
        url, poolclass=sqlalchemy.pool.NullPool, connect_args=connect_options(url)
    )


def _has_tables(url: sqlalchemy.URL) -> bool:
    """Whether the tables are there, Optuna's of the version that this Optuna wants."""
    if is_sqlite(url) and not Path(url.database or "").is_file():
        return False
    with _engine(url).connect() as connection:
        return are_there(connection)


def _make_tables(url: sqlalchemy.URL) -> None:
    for turn in turns(url):
        with turn as ours:
            if ours:
                if not _has_tables(url):
                    _construct_plain(url)
                return
        # Not within: a pooler's connections are few, and who waits for a second must not hold a first.
        if _has_tables(url):
            return


def _construct_plain(url: sqlalchemy.URL) -> None:
    """Have Optuna make its tables, or refuse those of another version; then make ours."""
    # its check of the schema opens a second connection inside a session
    options = {"connect_args": connect_options(url), "pool_size": 1, "max_overflow": 2}
    try:
        plain = RDBStorage(url.render_as_string(hide_password=False), options)
    except RuntimeError as error:  # it is an older or newer Optuna's; the message says what to run
        raise StorageError(f"{hide_password(str(url))}: {error}") from None
    create_ours(plain.engine)
    plain.engine.dispose()


def is_sqlite(url: sqlalchemy.URL) -> bool:
    """Whether the database is a file of this machine."""
    return url.get_backend_name() == "sqlite"


def connect_options(url: sqlalchemy.URL) -> dict[str, Any]:
    """The driver's arguments; those in the URL come before ours."""
    if is_sqlite(url):
        return {"timeout": BUSY_SECONDS}
    return {name: value for name, value in _POSTGRES_CONNECTION.items() if name not in url.query}


def turns(url: sqlalchemy.URL) -> Iterator[AbstractContextManager[bool]]:
    """Tries for a turn, which one process at a time has over the database; in each, whether it is ours.

    Whoever has not got it looks whether what is wanted has been done by others, and comes back.

    Raises:
        TimeoutError: for `LOCK_SECONDS` nothing came of it.
    """
    deadline, pause = time.monotonic() + LOCK_SECONDS, 0.1
    while time.monotonic() < deadline:
        yield _turn_of_machine(Path(url.database or "")) if is_sqlite(url) else _turn_of_server(url)
        # Each look is a new connection, which costs the server as much as what it waits for.
        time.sleep(random.uniform(0.5, 1.5) * pause)
        pause = min(2.0, 1.5 * pause)
    raise TimeoutError(f"another process has been making tables or studies for {LOCK_SECONDS:g} s")


@contextmanager
def _turn_of_server(url: sqlalchemy.URL) -> Iterator[bool]:
    # The transaction's lock, not the session's: behind PgBouncer a session outlives its client.
    ours = sqlalchemy.select(sqlalchemy.func.pg_try_advisory_xact_lock(LOCK_KEY))
    with _engine(url).begin() as connection:
        yield bool(connection.execute(ours).scalar())


@contextmanager
def _turn_of_machine(file: Path) -> Iterator[bool]:
    if not file.parent.is_dir():  # the lock would create it, and hide a mistyped path
        raise FileNotFoundError(f"there is no folder {file.parent}")
    lock = filelock.FileLock(f"{file}.lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        yield False
        return
    try:
        with closing(sqlite3.connect(file, timeout=LOCK_SECONDS)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
        yield True
    finally:
        lock.release()


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # otherwise Python begins transactions, and only before the first write
    connection.execute("PRAGMA synchronous=NORMAL")


def _begin_immediate(connection: sqlalchemy.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _prepare_postgres(connection: Any, record: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (pid,) = cursor.fetchone()
        # A pooler makes up the number that it tells at the start.
        record.info[_POOLED] = pid != connection.info.backend_pid
        if not record.info[_POOLED]:
            cursor.execute(_POSTGRES_SETTINGS.format(""))
    connection.commit()


def _begin_pooled(connection: sqlalchemy.Connection) -> None:
    """Behind a pooler each transaction may be in another session, and the session is others' afterwards."""
    driver: Any = connection.connection.dbapi_connection
    if connection.info.get(_POOLED) and not driver.autocommit:  # the constructor's own is not prepared
        connection.exec_driver_sql(_POSTGRES_SETTINGS.format("LOCAL"))


@contextmanager
def translated(url: sqlalchemy.URL) -> Iterator[None]:
    """Turns what databases and locks raise into a StorageError without passwords.

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
    advice = (
        "check that its folder exists and can be written, and that the file is an SQLite database"
        if is_sqlite(url)
        else "check that the server runs, and host, port, user, password and database in the URL"
    )
    hidden = hide_password(url.render_as_string(hide_password=False))
    return StorageError(f"{hidden}: {reason}\n{advice}")
