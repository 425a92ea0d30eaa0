"""Prompt answers, with a cure, while the dashboard's database is away: a WSGI application."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tlopt.dashboard.access import Application, Environ, StartResponse
from tlopt.errors import StorageError
from tlopt.storage.failures import DATABASE_ERRORS, outage

OUTAGE_SECONDS_MAX = 2.0  # that a question waits for the database: a page asks again by itself
PAUSE_SECONDS = 5.0  # after an outage, in which nobody waits: few threads serve all pages


@dataclass(eq=False)
class Available:
    """A WSGI application that answers 503 while the database of `inner` is away.

    Attributes:
        inner: raises what its database raises.
        clock: seconds.
    """

    inner: Application
    clock: Callable[[], float] = time.monotonic
    _away_until: float = float("-inf")

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        asks_database = str(environ.get("PATH_INFO", "")).startswith("/api/")
        if asks_database and self.clock() < self._away_until:
            return _unavailable(start_response)
        try:
            return self.inner(environ, start_response)
        except (StorageError, *DATABASE_ERRORS) as error:
            if not isinstance(error, StorageError) and outage(error) is None:
                raise
            self._away_until = self.clock() + PAUSE_SECONDS
            return _unavailable(start_response)


def _unavailable(start_response: StartResponse) -> Iterable[bytes]:
    text = (
        '{"reason": "the database does not answer. Check that its server runs and that this machine reaches'
        ' it (tlopt doctor); the page asks again by itself."}'
    )
    headers = [("Content-Type", "application/json"), ("Retry-After", f"{PAUSE_SECONDS:.0f}")]
    start_response("503 Service Unavailable", headers)
    return [text.encode()]
