"""Waiting for a database that is away: calls are made again for a bounded time, and a person is told."""

import logging
import random
import sqlite3
import time
from collections.abc import Callable
from typing import TypeVar

import psycopg2
import sqlalchemy
from optuna.exceptions import StorageInternalError

from tlopt.errors import StorageError
from tlopt.storage.url import hide_password

T = TypeVar("T")

OUTAGE_SECONDS_MAX = 600.0
# psycopg2's own come bare where SQLAlchemy resets a connection that it takes back
DATABASE_ERRORS = (StorageInternalError, sqlalchemy.exc.SQLAlchemyError, psycopg2.Error)
QUIET_SECONDS = 2.0  # an outage that is shorter interests nobody
_PAUSE_SECONDS = (0.1, 5.0)  # the first, and the longest: below what a lease allows between two beats

_LOOK_SECONDS = 0.1  # whether the process is in a hurry

_logger = logging.getLogger("tlopt.storage")


class Patience:
    """How long one process waits for its database, and what it says meanwhile.

    Attributes:
        seconds_max: of one outage; after it the error is raised as a StorageError.
        hurry: set when the process is to end: a call that fails is not tried again.
        n_outages: how often the database went away.
    """

    def __init__(self, seconds_max: float = OUTAGE_SECONDS_MAX) -> None:
        self.seconds_max = seconds_max
        self.hurry = False
        self.n_outages = 0
        self._away_since: float | None = None
        self._said = False

    @property
    def is_away(self) -> bool:
        """Whether the last call of any thread found the database away."""
        return self._away_since is not None

    def call(self, attempt: Callable[[], T]) -> T:
        """What `attempt` returns, tried again for as long as the database is away.

        Raises:
            StorageError: it was away for `seconds_max`, or for any time in a hurry.
        """
        pause, longest = _PAUSE_SECONDS
        since: float | None = None  # of this call: others may get their answers meanwhile
        while True:
            try:
                result = attempt()
            except DATABASE_ERRORS as error:
                reason = outage(error)
                if reason is None:
                    raise
                since = since or time.monotonic()
                self._wait(reason, pause * random.uniform(0.5, 1.5), since)
                pause = min(longest, 2 * pause)
            else:
                self.back()
                return result

    def away(self, reason: str) -> None:
        """Note that the database does not answer."""
        now = time.monotonic()
        if self._away_since is None:
            self._away_since, self._said = now, False
            self.n_outages += 1
        seconds = now - self._away_since
        if seconds > QUIET_SECONDS and not self._said:
            self._said = True
            _logger.warning("the database is away (%s); trying again for %g s", reason, self.seconds_max)

    def back(self) -> None:
        """Note that the database has answered."""
        since, self._away_since = self._away_since, None
        if since is not None and self._said:
            _logger.warning("the database is back after %.0f s", time.monotonic() - since)

    def _wait(self, reason: str, seconds: float, since: float) -> None:
        until = time.monotonic() + seconds
        while True:
            self.away(reason)
            if time.monotonic() - since > self.seconds_max or self.hurry:
                raise StorageError(f"the database is away: {reason}") from None
            if time.monotonic() > until:
                return
            time.sleep(_LOOK_SECONDS)


def outage(error: BaseException) -> str | None:
    """Why the database did not answer, in one line without a password, or None where it is another error."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, (psycopg2.OperationalError, psycopg2.InterfaceError)):
            return _line(cause)
        if getattr(getattr(cause, "orig", None), "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR:
            return None  # no such table, no such column: SQLite calls wrong SQL operational, too
        if isinstance(cause, (sqlalchemy.exc.OperationalError, sqlalchemy.exc.InterfaceError)):
            return _line(cause.orig or cause)
        if isinstance(cause, sqlalchemy.exc.PendingRollbackError):
            return (
                "the connection was closed"  # Optuna reads again where a read has failed, in the same session
            )
        if isinstance(cause, sqlalchemy.exc.TimeoutError):
            return "no connection became free"
        if isinstance(cause, sqlalchemy.exc.DBAPIError) and cause.connection_invalidated:
            return "the connection was closed"
        cause = cause.__cause__
    return None


def _line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return hide_password(lines[0]) if lines else type(error).__name__
