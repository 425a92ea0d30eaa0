"""Connection settings: driver arguments, session settings and the socket timeout.

Servers, databases and roles may have different defaults for isolation, time zone and durability. The settings
that the guarantees need are therefore made on each connection, and behind a pooler in each transaction.
"""

import os
import select
import time
from typing import Any

import psycopg2
import sqlalchemy
from psycopg2 import extensions
from sqlalchemy import event

from tlopt.storage.failures import READ_ONLY

SQLITE_BUSY_SECONDS = 3.0  # SQLite waits in C, where signals are not handled; then the call is retried
SOCKET_TIMEOUT_SECONDS = 20.0  # without data from the server
CONNECT_TIMEOUT_SECONDS = 8.0  # while connecting; libpq's connect_timeout bounds only its own waits
SHUTDOWN_SECONDS = 3.0  # for all responses together during shutdown
_LEAST_SECONDS = 1.0  # for each response, even then
_POLL_SECONDS = 0.25

# tcp_user_timeout: on a broken network a write blocks for 15 minutes without it, for 20 s with it.
_POSTGRES_CONNECTION = {
    "connect_timeout": 5,  # seconds
    "tcp_user_timeout": 20_000,  # milliseconds
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "application_name": "tlopt",
}

# Set by SQL, because PgBouncer rejects unknown start-up parameters.
# - idle_in_transaction_session_timeout: a stopped worker that holds the study's row lock would block all.
# - lock_timeout: a heartbeat must not wait for a long write.
# - default_transaction_isolation: counting the budget under the study's lock needs a snapshot taken after the
#   lock was granted, hence read committed. Behind a pooler it is set at each BEGIN.
# - synchronous_commit: with `off`, a server crash loses committed transactions.
_POSTGRES_SETTINGS = (
    "SET {0} TIME ZONE 'UTC';"
    " SET {0} idle_in_transaction_session_timeout = '20s';"
    " SET {0} lock_timeout = '10s';"
    " SET {0} default_transaction_isolation = 'read committed';"
    " SELECT set_config('synchronous_commit', 'local', {1})"
    " WHERE current_setting('synchronous_commit') = 'off'"
)
_POOLED = "tlopt pooled"  # key in SQLAlchemy's info of a connection

_shutdown_deadline = float("inf")  # by time.monotonic; later responses get _LEAST_SECONDS


def is_sqlite(url: sqlalchemy.URL) -> bool:
    """Return whether the database is an SQLite file."""
    return url.get_backend_name() == "sqlite"


def file_identity(url: sqlalchemy.URL) -> tuple[int, int] | None:
    """Device and inode of an SQLite file; None for a server or a missing file."""
    if not is_sqlite(url):
        return None
    try:
        found = os.stat(url.database or "")
    except OSError:
        return None
    return found.st_dev, found.st_ino


def engine_options(url: sqlalchemy.URL) -> dict[str, Any]:
    """Arguments for SQLAlchemy's `create_engine`; driver arguments in the URL take precedence."""
    if is_sqlite(url):
        return {"connect_args": {"timeout": SQLITE_BUSY_SECONDS}}
    arguments = {name: value for name, value in _POSTGRES_CONNECTION.items() if name not in url.query}
    return {"connect_args": arguments}


def prepare_engine(engine: sqlalchemy.Engine) -> None:
    """Install the settings for every connection that `engine` makes from now on."""
    if is_sqlite(engine.url):
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_immediate)
    else:
        event.listen(engine, "connect", _prepare_postgres)
        event.listen(engine, "begin", _begin_pooled)
        event.listen(engine, "handle_error", _leave_read_only_server)


def unpooled_engine(url: sqlalchemy.URL) -> sqlalchemy.Engine:
    """Create an engine that keeps no connection open."""
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.pool.NullPool, **engine_options(url))
    prepare_engine(engine)
    return engine


def is_pooled(connection: sqlalchemy.Connection) -> bool:
    """Return whether there is a pooler, through which session settings would reach other clients."""
    return bool(connection.info.get(_POOLED))


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # otherwise Python begins transactions itself, but only before writes
    connection.execute("PRAGMA synchronous=NORMAL")


def _begin_immediate(connection: sqlalchemy.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _prepare_postgres(connection: Any, record: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (pid,) = cursor.fetchone()
        # A pooler reports a made-up process id on connecting.
        record.info[_POOLED] = pid != connection.info.backend_pid
        if not record.info[_POOLED]:
            cursor.execute(_POSTGRES_SETTINGS.format("", "false"))
    connection.commit()
    if record.info[_POOLED]:  # set at each BEGIN; costs a statement without a pooler
        connection.isolation_level = extensions.ISOLATION_LEVEL_READ_COMMITTED


def _begin_pooled(connection: sqlalchemy.Connection) -> None:
    """Set up a transaction behind a pooler, where its session serves other clients afterwards."""
    driver: Any = connection.connection.dbapi_connection
    if is_pooled(connection) and not driver.autocommit:
        connection.exec_driver_sql(_POSTGRES_SETTINGS.format("LOCAL", "true"))


def _leave_read_only_server(context: sqlalchemy.engine.ExceptionContext) -> None:
    """Reconnect after a write to a read-only server.

    After a failover the host name leads to the new primary, and an open session keeps its initial
    `default_transaction_read_only`.
    """
    if getattr(context.original_exception, "pgcode", None) == READ_ONLY:
        context.is_disconnect = True


# The socket timeout. psycopg2 has one hook for all connections of a process
# (psycopg.org/docs/extensions.html, `set_wait_callback`). libpq alone waits forever for a paused server, and
# delays Python's signal handlers, which run between the polls here.


def set_socket_timeout() -> None:
    """Bound all waits for servers in this process from now on."""
    extensions.set_wait_callback(_wait)


def shorten_socket_timeout() -> None:
    """Bound further waits so that this process can exit in time."""
    global _shutdown_deadline
    _shutdown_deadline = time.monotonic() + SHUTDOWN_SECONDS


def _wait(connection: Any) -> None:
    """Wait until `connection` has its response.

    Raises:
        OperationalError: the server did not respond in time; the connection is closed.
    """
    while True:
        state = connection.poll()
        if state == extensions.POLL_OK:
            return
        readers = [connection] if state == extensions.POLL_READ else []
        writers = [connection] if state == extensions.POLL_WRITE else []
        _poll(connection, readers, writers)


def _poll(connection: Any, readers: list[Any], writers: list[Any]) -> None:
    silent_since = time.monotonic()
    allowed = (
        CONNECT_TIMEOUT_SECONDS if connection.status == extensions.STATUS_SETUP else SOCKET_TIMEOUT_SECONDS
    )
    while not any(select.select(readers, writers, [], _POLL_SECONDS)):
        now = time.monotonic()
        if now > min(silent_since + allowed, max(_shutdown_deadline, silent_since + _LEAST_SECONDS)):
            # psycopg2 then closes the connection; close() would deadlock with execute.
            raise psycopg2.OperationalError(f"the server has not answered for {now - silent_since:.0f} s")
