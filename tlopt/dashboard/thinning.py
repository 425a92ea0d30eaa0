"""WSGI middleware that omits most learning curves of studies with many trials.

The dashboard's page draws one line for each trial with reports, which takes minutes for ten thousand.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tlopt.dashboard.access import Application, Environ, StartResponse
from tlopt.spec.objectives import cost

CURVES_MAX = 500  # more lines cannot be told apart
_CURVES_BEST = 100
_PATH = re.compile(r"/api/studies/\d+")


@dataclass(frozen=True)
class ThinnedCurves:
    """A WSGI application that omits learning curves from responses with more than `CURVES_MAX`.

    Curves of running, of the best and of the newest trials remain, and all values. The database is unchanged.
    """

    inner: Application

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] != "GET" or not _PATH.fullmatch(str(environ.get("PATH_INFO", ""))):
            return self.inner(environ, start_response)
        started: list[Any] = []

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> None:
            started[:] = status, headers, rest

        body = b"".join(self.inner(environ, start))
        status, headers, rest = started
        if status.startswith("200"):
            body = thinned(body)
            headers = [(name, value) for name, value in headers if name.lower() != "content-length"]
            headers.append(("Content-Length", str(len(body))))
        start_response(status, headers, *rest)
        return [body]


def thinned(body: bytes) -> bytes:
    """The dashboard's response for a study, with at most `CURVES_MAX` curves of finished trials."""
    if body.count(b'"intermediate_values"') <= CURVES_MAX:
        return body
    study = json.loads(body)
    finished = [
        trial
        for trial in study["trials"]
        if trial["intermediate_values"] and trial["state"] not in ("Running", "Waiting")
    ]
    drawn = {trial["number"] for trial in finished[-(CURVES_MAX - _CURVES_BEST) :]}
    drawn |= {trial["number"] for trial in _best(finished, study["directions"][0])[:_CURVES_BEST]}
    for trial in finished:
        if trial["number"] not in drawn:
            trial["intermediate_values"] = []
    return json.dumps(study, separators=(",", ":")).encode()


def _best(trials: list[dict[str, Any]], direction: str) -> list[dict[str, Any]]:
    """Complete trials with a numeric value, best first."""
    valued = [
        trial
        for trial in trials
        if trial["state"] == "Complete" and isinstance(trial.get("values", [None])[0], float)
    ]
    return sorted(valued, key=lambda trial: cost(trial["values"][0], direction))
