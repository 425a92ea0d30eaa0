"""WSGI middleware that caches responses about a study for a few seconds, for all clients.

The response for a study of many trials takes a second of CPU time and longer to read, and every open page
requests it every ten seconds.
"""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from tlopt.dashboard.access import Application, Environ, StartResponse
from tlopt.dashboard.compression import accepts_gzip

CACHED_TIMES = 10  # times the time to compute a response: each URL uses at most a tenth of a core
CACHED_SECONDS_MAX = 10.0  # the interval at which the dashboard's pages poll a study of 500 trials
BYTES_MAX = 64 << 20
_PATHS = "/api/studies/"


@dataclass(frozen=True)
class _Response:
    status: str
    headers: list[tuple[str, str]]
    body: bytes
    until: float  # expiry, by `clock`


@dataclass(eq=False)
class ResponseCache:
    """A WSGI application that caches GET responses about a study; any other request clears the cache.

    Attributes:
        inner: the application to cache.
        clock: returns seconds; monotonic.
    """

    inner: Application
    clock: Callable[[], float] = time.monotonic
    _responses: dict[tuple[str, ...], _Response] = field(default_factory=dict)  # newest last
    _locks: dict[tuple[str, ...], threading.Lock] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _changes: int = 0

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        path = str(environ.get("PATH_INFO", ""))
        if environ["REQUEST_METHOD"] != "GET":
            try:
                return self.inner(environ, start_response)
            finally:
                self._clear()
        if not path.startswith(_PATHS):
            return self.inner(environ, start_response)
        key = (path, str(environ.get("QUERY_STRING", "")), str(accepts_gzip(environ)))
        with self._lock:
            key_lock = self._locks.setdefault(key, threading.Lock())
        with key_lock:
            response = self._cached(key) or self._compute(key, environ)
        start_response(response.status, list(response.headers))
        return [response.body]

    def _cached(self, key: tuple[str, ...]) -> _Response | None:
        with self._lock:
            response = self._responses.get(key)
        return response if response is not None and self.clock() < response.until else None

    def _compute(self, key: tuple[str, ...], environ: Environ) -> _Response:
        """Compute and cache a response; requests that wait for the same URL use it, too."""
        started: list[Any] = []

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> None:
            started[:] = status, headers

        began, changes = self.clock(), self._changes
        pieces = self.inner(environ, start)
        try:
            body = b"".join(pieces)
        finally:
            if hasattr(pieces, "close"):
                pieces.close()
        status, headers = started
        ended = self.clock()
        seconds = min(CACHED_TIMES * (ended - began), CACHED_SECONDS_MAX)
        response = _Response(
            status, headers, body, until=ended + seconds if status.startswith("200") else ended
        )
        with self._lock:
            self._responses.pop(key, None)
            if changes == self._changes:
                self._responses[key] = response
            self._evict()
        return response

    def _evict(self) -> None:
        """Evict expired responses, and the oldest ones beyond `BYTES_MAX`."""
        now, size = self.clock(), 0
        for key, response in reversed(list(self._responses.items())):
            size += len(response.body)
            if response.until <= now or size > BYTES_MAX:
                del self._responses[key]
                self._locks.pop(key, None)

    def _clear(self) -> None:
        with self._lock:
            self._changes += 1
            self._responses.clear()
