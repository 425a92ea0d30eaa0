"""Classification of database and driver errors: outages, lasting faults with their cures, and bugs.

PostgreSQL's errors are classified by SQLSTATE (postgresql.org/docs/current/errcodes-appendix.html), SQLite's
by result code (sqlite.org/rescode.html), and connection errors, which have neither, by libpq's wording.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import psycopg2
import sqlalchemy
from optuna.exceptions import StorageInternalError

from tlopt.storage.url import hide_password


class TablesMissing(Exception):
    """The tables are missing or still being restored."""

    def __init__(self) -> None:
        super().__init__("the tables are not all there yet")


# SQLAlchemy does not wrap psycopg2's errors when it resets a returned connection.
DATABASE_ERRORS = (StorageInternalError, sqlalchemy.exc.SQLAlchemyError, psycopg2.Error, TablesMissing)

READ_ONLY = "25006"
UNDEFINED_TABLE = "42P01"
_NO_SUCH_KEY = "42P10"  # ON CONFLICT without its unique index, which a restore creates last
INSUFFICIENT_PRIVILEGE = "42501"
MISSING_TABLES = (UNDEFINED_TABLE, _NO_SUCH_KEY)

_OUTAGE_CLASSES = (
    "08",  # connection exception
    "28",  # invalid authorization: a password that is being changed
    "40",  # transaction rollback: serialization failure, deadlock
    "53",  # insufficient resources: disk full, too many connections
    "57",  # operator intervention: shutdown, starting up, statement timeout
    "58",  # system error
)
_OUTAGE_STATES = (
    READ_ONLY,  # a standby before its promotion, or a server whose disk is nearly full
    "25P03",  # idle_in_transaction_session_timeout
    "25P04",  # transaction_timeout
    "3D000",  # the database does not exist: it is being restored
    "55000",  # object not in prerequisite state, as in recovery
    "55006",  # object in use
    "55P03",  # lock_timeout
    *MISSING_TABLES,
)

_SQLITE_LASTING = (
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_AUTH,
)
_SQLITE_PRIMARY = 0xFF  # the low byte of an extended result code

MORE_CONNECTIONS = "raise max_connections, end other clients, or put PgBouncer before the server"
ROOM = "free space on the database's disk"
DAMAGED = "restore the file from a copy; sqlite3 FILE .recover prints what can still be read"
GRANT = "GRANT ALL ON ALL TABLES IN SCHEMA ... TO the user in the URL, and ON ALL SEQUENCES likewise"

When = Literal["momentary", "lasting", "unknown"]


@dataclass(frozen=True)
class Phrase:
    """A phrase in an error message, and the fault that it indicates.

    Attributes:
        when: `momentary` faults end within a minute, `lasting` ones need a person, `unknown` ones may be
            either.
    """

    text: str
    when: When
    cure: str


# Likelier causes first: errors for a host with several addresses have a line for each.
PHRASES = (
    Phrase("password authentication failed", "lasting", "correct user and password in the URL"),
    Phrase(
        "no password supplied",
        "lasting",
        "add the password to the URL: postgresql://USER:PASSWORD@HOST:PORT/DATABASE",
    ),
    Phrase("no encryption", "lasting", "add ?sslmode=require to the URL"),
    Phrase("no pg_hba.conf entry", "lasting", "let the server admit this host and user: pg_hba.conf"),
    Phrase(
        "does not support SSL", "lasting", "take sslmode out of the URL, or turn on encryption at the server"
    ),
    Phrase("certificate", "lasting", "check sslmode and the certificates that the URL names"),
    Phrase("SSL", "lasting", "check sslmode in the URL, and the server's encryption"),
    Phrase("unsupported startup parameter", "lasting", "take the parameter out of the URL"),
    Phrase(
        "does not exist",
        "lasting",
        "make it on the server (CREATE ROLE, CREATE DATABASE), or correct the URL",
    ),
    Phrase(
        "permission denied for database", "lasting", "GRANT CONNECT ON DATABASE ... TO the user in the URL"
    ),
    Phrase("permission denied for schema", "lasting", "GRANT ALL ON SCHEMA ... TO the user in the URL"),
    Phrase("permission denied", "lasting", GRANT),
    Phrase(
        "too many connections for",
        "momentary",
        "raise the limit: ALTER ROLE or ALTER DATABASE ... CONNECTION LIMIT",
    ),
    Phrase("too many", "momentary", MORE_CONNECTIONS),
    Phrase("connection slots are reserved", "momentary", MORE_CONNECTIONS),
    Phrase("no more connections", "momentary", MORE_CONNECTIONS),  # PgBouncer's
    Phrase("starting up", "momentary", "try again in a minute"),
    Phrase("not yet accepting", "momentary", "try again in a minute"),
    Phrase("recovery", "momentary", "try again in a minute"),
    Phrase("shutting down", "momentary", "try again in a minute, or start the server"),
    Phrase("read-only transaction", "momentary", "make the server writable, or name the primary in the URL"),
    Phrase("not all there yet", "momentary", "wait for the end of the restore, and try again"),
    Phrase("translate host name", "lasting", "correct the host in the URL"),
    Phrase(
        "timeout expired", "unknown", "correct the host in the URL, or open the port in the firewall between"
    ),
    Phrase(
        "has not answered", "unknown", "correct the host in the URL, or open the port in the firewall between"
    ),
    Phrase("unreachable", "unknown", "correct the host in the URL, or repair the network between"),
    Phrase("No route to host", "unknown", "correct the host in the URL, or repair the network between"),
    Phrase("refused", "unknown", "start the server, or correct host and port in the URL"),
    Phrase("No such file or directory", "unknown", "start the server, or name a host in the URL"),
    Phrase("unable to open", "lasting", "check that the file's folder exists, and that you may write both"),
    Phrase("readonly database", "lasting", "make the file and its folder writable for this user"),
    Phrase("not a database", "lasting", "name another file; this one holds something else"),
    Phrase("malformed", "lasting", DAMAGED),
    Phrase("is full", "unknown", ROOM),
    Phrase("No space left", "unknown", ROOM),
    Phrase("disk I/O error", "unknown", f"{ROOM}, and check that disk"),
    Phrase("is locked", "momentary", "see who holds the file: fuser -v FILE"),
    Phrase("invalid", "lasting", "correct the URL"),
)
_ANY_CURE = {
    "postgresql": "check that the server runs, and host, port, user, password and database in the URL",
    "sqlite": "name another file, or restore this one from a copy",
}


@dataclass(frozen=True)
class Failure:
    """A fault of the database.

    Attributes:
        reason: one line without passwords.
        lasts: whether waiting does not help.
        sqlstate: PostgreSQL's error code, also used for missing tables in SQLite; else "".
    """

    reason: str
    lasts: bool = False
    sqlstate: str = ""

    @property
    def lacks_tables(self) -> bool:
        """True if tables are missing or still being restored."""
        return self.sqlstate in MISSING_TABLES


def failure(error: BaseException) -> Failure | None:
    """The database fault that caused `error`; None for wrong SQL and other bugs."""
    for cause in _causes(error):
        found = _driver_failure(getattr(cause, "orig", None) or cause)
        if found is not None:
            return found if found.reason else None
        if isinstance(cause, TablesMissing):
            return Failure(_line(cause), sqlstate=UNDEFINED_TABLE)
        if isinstance(cause, sqlalchemy.exc.PendingRollbackError):
            # Optuna retries a failed read in the same session.
            return Failure("the connection was closed")
        if isinstance(cause, sqlalchemy.exc.TimeoutError):
            return Failure("no connection became free")
        if isinstance(cause, sqlalchemy.exc.DBAPIError) and cause.connection_invalidated:
            return Failure("the connection was closed")
    return None


def outage(error: BaseException) -> str | None:
    """The reason of an outage in one line without passwords; None if `error` is not an outage."""
    found = failure(error)
    return None if found is None or found.lasts else found.reason


def phrase_in(lines: Iterable[str]) -> tuple[Phrase, str] | None:
    """The first known phrase, and the line that contains it."""
    lines = list(lines)
    return next(((known, line) for known in PHRASES for line in lines if known.text in line), None)


def cure_of(reason: str, backend: str) -> str:
    """Advice on curing a fault.

    Args:
        backend: "postgresql" or "sqlite".
    """
    found = phrase_in([reason])
    return found[0].cure if found else _ANY_CURE[backend]


_BUG = Failure("")


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def _driver_failure(error: BaseException) -> Failure | None:
    """Classify a driver's error; `_BUG` for a wrong statement, None if it is not a driver's error."""
    if isinstance(error, psycopg2.Error):
        return _postgres_failure(error)
    if isinstance(error, sqlite3.Error):
        return _sqlite_failure(error)
    if isinstance(error, (sqlalchemy.exc.OperationalError, sqlalchemy.exc.InterfaceError)):
        return Failure(_line(error))
    return None


def _postgres_failure(error: psycopg2.Error) -> Failure:
    state = error.pgcode or ""
    if state == INSUFFICIENT_PRIVILEGE:
        return Failure(_line(error), lasts=True, sqlstate=state)
    if state.startswith(("XX001", "XX002")):  # a damaged table, a damaged index
        return Failure(_line(error), lasts=True, sqlstate=state)
    if state:
        transient = state in _OUTAGE_STATES or state[:2] in _OUTAGE_CLASSES
        return Failure(_line(error), sqlstate=state) if transient else _BUG
    connecting = isinstance(error, (psycopg2.OperationalError, psycopg2.InterfaceError))
    # libpq reports a connection closed by the server as DatabaseError without SQLSTATE.
    return Failure(_line(error)) if connecting or type(error) is psycopg2.DatabaseError else _BUG


def _sqlite_failure(error: sqlite3.Error) -> Failure:
    code = getattr(error, "sqlite_errorcode", None)
    code = None if code is None else code & _SQLITE_PRIMARY
    if code in _SQLITE_LASTING:
        return Failure(_line(error), lasts=True)
    if str(error).startswith("no such table"):
        return Failure(_line(error), sqlstate=UNDEFINED_TABLE)
    # SQLITE_ERROR means wrong SQL, such as a missing column, although it is an OperationalError.
    operational = isinstance(error, sqlite3.OperationalError) and code != sqlite3.SQLITE_ERROR
    return Failure(_line(error)) if operational else _BUG


def _line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return hide_password(lines[0]) if lines else type(error).__name__
