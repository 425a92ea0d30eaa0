"""Connections that cannot write, and what their failures mean."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy
from optuna.exceptions import StorageInternalError

from tlopt.doctor.finding import Ended, Finding
from tlopt.storage.url import hide_password

CONNECT_SECONDS = 5

MORE_CONNECTIONS = "raise max_connections, end other clients, or put PgBouncer before the server"
DAMAGED = "restore the file from a copy; sqlite3 FILE .recover prints what can still be read"

# What a client says, and what to do then, the likelier cause first: a host with several addresses has a line
# for each of them.
_CURES = (
    ("password authentication failed", "mend user and password in the URL"),
    ("no password supplied", "add the password to the URL: postgresql://USER:PASSWORD@HOST:PORT/DATABASE"),
    ("no encryption", "add ?sslmode=require to the URL"),
    ("no pg_hba.conf entry", "let the server admit this host and user: pg_hba.conf"),
    ("does not support SSL", "take sslmode out of the URL, or let the server encrypt"),
    ("does not exist", "make it on the server (CREATE ROLE, CREATE DATABASE), or mend the URL"),
    ("permission denied for database", "GRANT CONNECT ON DATABASE ... TO the user in the URL"),
    ("permission denied", "GRANT ALL ON ALL TABLES IN SCHEMA ... TO the user in the URL"),
    ("too many connections for", "raise the limit: ALTER ROLE or ALTER DATABASE ... CONNECTION LIMIT"),
    ("too many clients", MORE_CONNECTIONS),
    ("connection slots are reserved", MORE_CONNECTIONS),
    ("starting up", "ask again in a minute"),
    ("shutting down", "ask again in a minute, or start the server"),
    ("translate host name", "mend the host in the URL"),
    ("timeout expired", "mend the host in the URL, or open the port in the firewall between"),
    ("unreachable", "mend the host in the URL, or the network between"),
    ("No route to host", "mend the host in the URL, or the network between"),
    ("refused", "start the server, or mend host and port in the URL"),
    ("No such file or directory", "start the server, or name a host in the URL"),
    ("not a database", "name another file; this one holds something else"),
    ("malformed", DAMAGED),
    ("is locked", "see who holds the file: fuser -v FILE"),
    ("no longer compatible", "do that when no worker runs, and with a copy of the database at hand"),
)
_ANY_CURE = {
    "postgresql": "check host, port, user, password and database in the URL, and that the server runs",
    "sqlite": "name another file, or restore this one from a copy",
}


@contextmanager
def connected(url: sqlalchemy.URL) -> Iterator[sqlalchemy.Connection]:
    """A connection of its own, closed afterwards."""
    with sqlalchemy.create_engine(url, **options(url)).connect() as connection:
        yield connection


def options(url: sqlalchemy.URL) -> dict[str, Any]:
    """For SQLAlchemy's `create_engine`: connections that cannot write and leave nothing behind."""
    if url.get_backend_name() == "sqlite":
        file = Path(url.database or "")
        return {"poolclass": sqlalchemy.NullPool, "creator": lambda: _reading_sqlite(file)}
    return {
        "poolclass": sqlalchemy.NullPool,
        "connect_args": {"connect_timeout": CONNECT_SECONDS, "application_name": "tlopt doctor"},
        # In each transaction: behind PgBouncer a session's setting would reach other clients.
        "execution_options": {"postgresql_readonly": True},
    }


def _reading_sqlite(file: Path) -> sqlite3.Connection:
    # mode=rw makes no file. mode=ro would leave those of the write-ahead log behind.
    connection = sqlite3.connect(
        f"{file.as_uri()}?mode=rw", uri=True, timeout=CONNECT_SECONDS, check_same_thread=False
    )
    connection.execute("PRAGMA query_only = ON")
    return connection


@contextmanager
def translated(url: sqlalchemy.URL) -> Iterator[None]:
    """Turns what clients raise into the last finding, without the password.

    The cause is dropped: SQLAlchemy's and Optuna's messages may quote the URL.

    Raises:
        Ended: with the finding.
    """
    try:
        yield
    # RuntimeError: Optuna's, of a schema that another version made
    except (sqlalchemy.exc.SQLAlchemyError, StorageInternalError, sqlite3.Error, RuntimeError) as error:
        cause = error.__cause__ if isinstance(error, StorageInternalError) else error
        raise Ended(_complaint(url, str(getattr(cause, "orig", None) or cause))) from None


def _complaint(url: sqlalchemy.URL, says: str) -> Finding:
    lines = says.strip().splitlines() or ["no answer"]
    reason, cure = next(
        ((line, cure) for sign, cure in _CURES for line in lines if sign in line),
        (lines[0], _ANY_CURE[url.get_backend_name()]),
    )
    if url.password:
        reason = reason.replace(url.password, "***")
    return Finding("problem", "database", hide_password(reason.strip()), cure)
