"""While the database is away the dashboard answers 503 with a cure, and nobody waits behind another."""

import json
from typing import Any

import psycopg2
import pytest
import sqlalchemy

from tlopt.dashboard.outage import PAUSE_SECONDS, Available
from tlopt.errors import StorageError

AWAY = StorageError("the database is away: connection refused")
REFUSED = sqlalchemy.exc.OperationalError("SELECT", {}, psycopg2.OperationalError("Connection refused"))


class Database:
    """An application that raises what it is told to, and counts who asks."""

    def __init__(self, error: Exception | None) -> None:
        self.error, self.asked = error, 0

    def __call__(self, environ: Any, start_response: Any) -> list[bytes]:
        self.asked += 1
        if self.error is not None and environ["PATH_INFO"].startswith("/api"):
            raise self.error
        start_response("200 OK", [])
        return [b"{}"]


def ask(shown: Available, path: str = "/api/studies") -> tuple[str, bytes]:
    said: list[str] = []
    body = shown({"PATH_INFO": path, "REQUEST_METHOD": "GET"}, lambda status, *rest: said.append(status))
    return said[0], b"".join(body)


@pytest.mark.parametrize("error", [AWAY, REFUSED])
def test_an_outage_is_answered_with_503_and_a_cure(error: Exception) -> None:
    status, body = ask(Available(Database(error)))

    assert status == "503 Service Unavailable"
    assert "Check that its server runs" in json.loads(body)["reason"]


def test_after_an_outage_nobody_waits_for_the_database_until_the_pause_is_over() -> None:
    now, database = [0.0], Database(AWAY)
    shown = Available(database, clock=lambda: now[0])
    ask(shown)

    assert ask(shown)[0].startswith("503")
    assert database.asked == 1
    assert ask(shown, "/static/bundle.js")[0] == "200 OK"

    database.error, now[0] = None, PAUSE_SECONDS
    assert ask(shown)[0] == "200 OK"


def test_what_is_no_outage_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        ask(Available(Database(ZeroDivisionError())))
