"""Read-only connections, and findings from the errors that they raise."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy
from optuna.exceptions import StorageInternalError

from tlopt.doctor.finding import Ended, Finding
from tlopt.storage.failures import DATABASE_ERRORS, cure_of, phrase_in
from tlopt.storage.url import hide_password

CONNECT_SECONDS = 5


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
    """Turn what clients raise into the last finding, without the password.

    The cause is dropped: SQLAlchemy's and Optuna's messages may quote the URL.

    Raises:
        Ended: with the finding.
    """
    try:
        yield
    except (*DATABASE_ERRORS, sqlite3.Error) as error:
        cause = error.__cause__ if isinstance(error, StorageInternalError) else error
        raise Ended(_complaint(url, str(getattr(cause, "orig", None) or cause))) from None


def _complaint(url: sqlalchemy.URL, says: str) -> Finding:
    lines = says.strip().splitlines() or ["no answer"]
    found = phrase_in(lines)
    reason = found[1] if found else lines[0]
    if url.password:
        reason = reason.replace(url.password, "***")
    return Finding(
        "problem", "database", hide_password(reason.strip()), cure_of(reason, url.get_backend_name())
    )
