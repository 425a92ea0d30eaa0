"""Read-only connections, and findings from the errors that they raise."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy
from optuna.exceptions import StorageInternalError

from tlopt.doctor.finding import CheckFailed, Finding
from tlopt.storage.failures import DATABASE_ERRORS, cure_of, phrase_in
from tlopt.storage.url import hide_password

CONNECT_SECONDS = 5


@contextmanager
def connected(url: sqlalchemy.URL) -> Iterator[sqlalchemy.Connection]:
    """A new connection, closed at the end of the block."""
    with sqlalchemy.create_engine(url, **read_only_engine_options(url)).connect() as connection:
        yield connection


def read_only_engine_options(url: sqlalchemy.URL) -> dict[str, Any]:
    """Arguments of SQLAlchemy's `create_engine` for connections that cannot write and create no files."""
    if url.get_backend_name() == "sqlite":
        file = Path(url.database or "")
        return {"poolclass": sqlalchemy.NullPool, "creator": lambda: _reading_sqlite(file)}
    return {
        "poolclass": sqlalchemy.NullPool,
        "connect_args": {"connect_timeout": CONNECT_SECONDS, "application_name": "tlopt doctor"},
        # Per transaction: behind PgBouncer, a setting of the session would affect other clients.
        "execution_options": {"postgresql_readonly": True},
    }


def _reading_sqlite(file: Path) -> sqlite3.Connection:
    # mode=rw creates no database; mode=ro would leave files of the write-ahead log.
    connection = sqlite3.connect(
        f"{file.as_uri()}?mode=rw", uri=True, timeout=CONNECT_SECONDS, check_same_thread=False
    )
    connection.execute("PRAGMA query_only = ON")
    return connection


@contextmanager
def translated(url: sqlalchemy.URL) -> Iterator[None]:
    """Translate errors of database clients into a finding without the password.

    The cause is suppressed: messages of SQLAlchemy and Optuna may contain the URL.

    Raises:
        CheckFailed: with the finding.
    """
    try:
        yield
    except (*DATABASE_ERRORS, sqlite3.Error) as error:
        cause = error.__cause__ if isinstance(error, StorageInternalError) else error
        raise CheckFailed(_client_error(url, str(getattr(cause, "orig", None) or cause))) from None


def _client_error(url: sqlalchemy.URL, message: str) -> Finding:
    lines = message.strip().splitlines() or ["no answer"]
    found = phrase_in(lines)
    reason = found[1] if found else lines[0]
    if url.password:
        reason = reason.replace(url.password, "***")
    return Finding(
        "problem", "database", hide_password(reason.strip()), cure_of(reason, url.get_backend_name())
    )
