"""WSGI middleware that responds at once while the dashboard's database is unavailable."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tlopt.dashboard.access import Application, Environ, StartResponse
from tlopt.errors import StorageError
from tlopt.storage.failures import DATABASE_ERRORS, outage

OUTAGE_SECONDS_MAX = 2.0  # wait for the database per request; pages retry
PAUSE_SECONDS = 5.0  # after a failed request, without waiting for the database: few threads serve all pages


@dataclass(eq=False)
class OutageResponder:
    """A WSGI application that responds with status 503 while the database is unavailable.

    Attributes:
        inner: the application, which raises the errors of its database.
        clock: returns seconds; monotonic.
    """

    inner: Application
    clock: Callable[[], float] = time.monotonic
    _unavailable_until: float = float("-inf")

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        uses_database = str(environ.get("PATH_INFO", "")).startswith("/api/")
        if uses_database and self.clock() < self._unavailable_until:
            return _unavailable(start_response)
        try:
            return self.inner(environ, start_response)
        except (StorageError, *DATABASE_ERRORS) as error:
            if not isinstance(error, StorageError) and outage(error) is None:
                raise
            self._unavailable_until = self.clock() + PAUSE_SECONDS
            return _unavailable(start_response)


def _unavailable(start_response: StartResponse) -> Iterable[bytes]:
    text = (
        '{"reason": "the database does not respond. Check that its server runs and that this machine can'
        ' reach it (tlopt doctor); the page retries by itself."}'
    )
    headers = [("Content-Type", "application/json"), ("Retry-After", f"{PAUSE_SECONDS:.0f}")]
    start_response("503 Service Unavailable", headers)
    return [text.encode()]
