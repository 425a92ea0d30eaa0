"""Retries during database outages, for a bounded time, with a log."""

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from tlopt.errors import StorageError
from tlopt.storage.failures import DATABASE_ERRORS, Failure, TablesMissing, failure, phrase_in

_T = TypeVar("_T")

DEFAULT_OUTAGE_SECONDS_MAX = 600.0
QUIET_SECONDS = 2.0  # a shorter outage is not reported
_PAUSE_SECONDS = (0.1, 5.0)  # first and longest pause; shorter than the allowed time between heartbeats
_POLL_SECONDS = 0.1  # between two checks for shutdown

_logger = logging.getLogger("tlopt.storage")


class Retry:
    """The retry policy of one process, and its log of outages.

    Attributes:
        seconds_max: longest outage; after it the error is raised as a StorageError.
        shutting_down: if set, failed calls are not retried.
        n_outages: number of outages so far.
        is_ready: called before a retry if tables were missing; returns whether they are complete.
    """

    def __init__(self, seconds_max: float = DEFAULT_OUTAGE_SECONDS_MAX) -> None:
        self.seconds_max = seconds_max
        self.shutting_down = False
        self.n_outages = 0
        self.is_ready: Callable[[], bool] = lambda: True
        self._lacks_tables = False
        self._outage_since: float | None = None
        self._reported = False

    @property
    def in_outage(self) -> bool:
        """True if the last call of any thread found the database unavailable."""
        return self._outage_since is not None

    def call(self, attempt: Callable[[], _T]) -> _T:
        """Call `attempt` and retry it during an outage; return its result.

        Raises:
            StorageError: the outage exceeded `seconds_max`, the process is shutting down, or the fault is a
                lasting one, such as a missing permission.
        """
        pause, longest = _PAUSE_SECONDS
        since: float | None = None  # start of the outage for this call; other threads may succeed meanwhile
        while True:
            try:
                self._refuse_half_restored()
                result = attempt()
            except DATABASE_ERRORS as error:
                fault = failure(error)
                if fault is None:
                    raise
                if fault.lasts:
                    raise refusal(fault) from None
                since = since or time.monotonic()
                self._lacks_tables = self._lacks_tables or fault.lacks_tables
                self._wait(fault.reason, pause * random.uniform(0.5, 1.5), since)
                pause = min(longest, 2 * pause)
            else:
                self.note_answer()
                return result

    def _refuse_half_restored(self) -> None:
        if self._lacks_tables and not self.is_ready():
            raise TablesMissing
        self._lacks_tables = False

    def note_outage(self, reason: str) -> None:
        """Note that the database is unavailable."""
        now = time.monotonic()
        if self._outage_since is None:
            self._outage_since, self._reported = now, False
            self.n_outages += 1
        seconds = now - self._outage_since
        if seconds > QUIET_SECONDS and not self._reported:
            self._reported = True
            _logger.warning("the database is unavailable (%s); retrying for %g s", reason, self.seconds_max)

    def note_answer(self) -> None:
        """Note that the database has responded."""
        since, self._outage_since = self._outage_since, None
        if since is not None and self._reported:
            _logger.warning("the database is available again after %.0f s", time.monotonic() - since)

    def _wait(self, reason: str, seconds: float, since: float) -> None:
        until = time.monotonic() + seconds
        while True:
            self.note_outage(reason)
            if time.monotonic() - since > self.seconds_max or self.shutting_down:
                raise StorageError(_with_cure(f"the database is unavailable: {reason}")) from None
            if time.monotonic() > until:
                return
            time.sleep(_POLL_SECONDS)


def refusal(fault: Failure) -> StorageError:
    """The error for a lasting fault."""
    return StorageError(_with_cure(f"the database refuses: {fault.reason}"))


def _with_cure(message: str) -> str:
    """`message`, and what to do on a second line if it has a known phrase."""
    found = phrase_in([message])
    return f"{message}\n{found[0].cure}" if found else message
