"""A study of many trials as a browser can draw it: learning curves of some, everything else of all; WSGI.

The dashboard's page draws a line for every trial that has reports, and works minutes for ten thousand.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tlopt.dashboard.access import Application, Environ, StartResponse
from tlopt.spec.objectives import cost

CURVES_MAX = 500  # more lines than this no eye tells apart
_CURVES_BEST = 100
_PATH = re.compile(r"/api/studies/\d+")


@dataclass(frozen=True)
class Thinned:
    """A WSGI application that leaves learning curves out of answers that have more than `CURVES_MAX`.

    Kept are those of trials under way, of the best, and of the newest. All values stay, and so does the
    database, which has every curve.
    """

    inner: Application

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] != "GET" or not _PATH.fullmatch(str(environ.get("PATH_INFO", ""))):
            return self.inner(environ, start_response)
        given: list[Any] = []

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> None:
            given[:] = status, headers, rest

        body = b"".join(self.inner(environ, start))
        status, headers, rest = given
        if status.startswith("200"):
            body = thinned(body)
            headers = [(name, value) for name, value in headers if name.lower() != "content-length"]
            headers.append(("Content-Length", str(len(body))))
        start_response(status, headers, *rest)
        return [body]


def thinned(body: bytes) -> bytes:
    """The dashboard's answer about a study with at most `CURVES_MAX` curves of finished trials."""
    if body.count(b'"intermediate_values"') <= CURVES_MAX:
        return body
    study = json.loads(body)
    finished = [
        trial
        for trial in study["trials"]
        if trial["intermediate_values"] and trial["state"] not in ("Running", "Waiting")
    ]
    kept = {trial["number"] for trial in finished[-(CURVES_MAX - _CURVES_BEST) :]}
    kept |= {trial["number"] for trial in _best(finished, study["directions"][0])[:_CURVES_BEST]}
    for trial in finished:
        if trial["number"] not in kept:
            trial["intermediate_values"] = []
    return json.dumps(study, separators=(",", ":")).encode()


def _best(trials: list[dict[str, Any]], direction: str) -> list[dict[str, Any]]:
    """Complete trials with a number for a value, best first."""
    valued = [
        trial
        for trial in trials
        if trial["state"] == "Complete" and isinstance(trial.get("values", [None])[0], float)
    ]
    return sorted(valued, key=lambda trial: cost(trial["values"][0], direction))
