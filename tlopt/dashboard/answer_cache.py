"""Answers about a study, made once for all who ask the same within moments: a WSGI application.

A study of many trials takes a second of work to tell and longer to read; a page that waits for it asks again
every ten seconds, and so does everybody's page.
"""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from tlopt.dashboard.access import Application, Environ, StartResponse
from tlopt.dashboard.compression import takes_gzip

KEPT_TIMES = 10  # as long as it took to make: a tenth of a core, at most, goes into one question
KEPT_SECONDS_MAX = 10.0  # the dashboard's own pages ask no more often about a study of 500 trials
BYTES_MAX = 64 << 20
_PATHS = "/api/studies/"


@dataclass(frozen=True)
class _Answer:
    status: str
    headers: list[tuple[str, str]]
    body: bytes
    until: float  # by `clock`


@dataclass(eq=False)
class Shared:
    """A WSGI application that keeps what it was told of a study for moments; a change lets go of all.

    Attributes:
        inner: what is asked.
        clock: seconds.
    """

    inner: Application
    clock: Callable[[], float] = time.monotonic
    _answers: dict[tuple[str, ...], _Answer] = field(default_factory=dict)  # the newest last
    _turns: dict[tuple[str, ...], threading.Lock] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _changes: int = 0

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        path = str(environ.get("PATH_INFO", ""))
        if environ["REQUEST_METHOD"] != "GET":
            try:
                return self.inner(environ, start_response)
            finally:
                self._forget()
        if not path.startswith(_PATHS):
            return self.inner(environ, start_response)
        key = (path, str(environ.get("QUERY_STRING", "")), str(takes_gzip(environ)))
        with self._lock:
            turn = self._turns.setdefault(key, threading.Lock())
        with turn:
            answer = self._known(key) or self._ask(key, environ)
        start_response(answer.status, list(answer.headers))
        return [answer.body]

    def _known(self, key: tuple[str, ...]) -> _Answer | None:
        with self._lock:
            answer = self._answers.get(key)
        return answer if answer is not None and self.clock() < answer.until else None

    def _ask(self, key: tuple[str, ...], environ: Environ) -> _Answer:
        """A new answer; who waits for the same gets it, too."""
        given: list[Any] = []

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> None:
            given[:] = status, headers

        began, changes = self.clock(), self._changes
        pieces = self.inner(environ, start)
        try:
            body = b"".join(pieces)
        finally:
            if hasattr(pieces, "close"):
                pieces.close()
        status, headers = given
        ended = self.clock()
        kept = min(KEPT_TIMES * (ended - began), KEPT_SECONDS_MAX)
        answer = _Answer(status, headers, body, until=ended + kept if status.startswith("200") else ended)
        with self._lock:
            self._answers.pop(key, None)
            if changes == self._changes:
                self._answers[key] = answer
            self._make_room()
        return answer

    def _make_room(self) -> None:
        """Let go of what is old: pages ask about ever later trials; and of the oldest above the bound."""
        now, size = self.clock(), 0
        for key, answer in reversed(list(self._answers.items())):
            size += len(answer.body)
            if answer.until <= now or size > BYTES_MAX:
                del self._answers[key]
                self._turns.pop(key, None)

    def _forget(self) -> None:
        with self._lock:
            self._changes += 1
            self._answers.clear()
