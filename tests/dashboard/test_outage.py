"""While the database is unavailable, the dashboard responds with 503 at once and names a cure."""

import json
from typing import Any

import psycopg2
import pytest
import sqlalchemy

from tlopt.dashboard.outage import PAUSE_SECONDS, OutageResponder
from tlopt.errors import StorageError

AWAY = StorageError("the database is away: connection refused")
REFUSED = sqlalchemy.exc.OperationalError("SELECT", {}, psycopg2.OperationalError("Connection refused"))


class Database:
    """An application that raises a given error and counts its requests."""

    def __init__(self, error: Exception | None) -> None:
        self.error, self.asked = error, 0

    def __call__(self, environ: Any, start_response: Any) -> list[bytes]:
        self.asked += 1
        if self.error is not None and environ["PATH_INFO"].startswith("/api"):
            raise self.error
        start_response("200 OK", [])
        return [b"{}"]


def ask(responder: OutageResponder, path: str = "/api/studies") -> tuple[str, bytes]:
    said: list[str] = []
    body = responder({"PATH_INFO": path, "REQUEST_METHOD": "GET"}, lambda status, *rest: said.append(status))
    return said[0], b"".join(body)


@pytest.mark.parametrize("error", [AWAY, REFUSED])
def test_the_response_in_an_outage_is_503_with_a_cure(error: Exception) -> None:
    status, body = ask(OutageResponder(Database(error)))

    assert status == "503 Service Unavailable"
    assert "Check that its server runs" in json.loads(body)["reason"]


def test_after_an_outage_no_request_waits_for_the_database_until_the_pause_ends() -> None:
    now, database = [0.0], Database(AWAY)
    responder = OutageResponder(database, clock=lambda: now[0])
    ask(responder)

    assert ask(responder)[0].startswith("503")
    assert database.asked == 1
    assert ask(responder, "/static/bundle.js")[0] == "200 OK"

    database.error, now[0] = None, PAUSE_SECONDS
    assert ask(responder)[0] == "200 OK"


def test_other_errors_are_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        ask(OutageResponder(Database(ZeroDivisionError())))
