"""Duration of retries during an outage, and their messages, with a planted clock."""

import itertools
import logging
import sqlite3
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import psycopg2
import pytest
import sqlalchemy as sa
from optuna.exceptions import StorageInternalError

from tlopt.errors import StorageError
from tlopt.storage import retry
from tlopt.storage.failures import outage
from tlopt.storage.retry import Retry


class Clock:
    """Seconds pass only where somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(retry, "time", SimpleNamespace(monotonic=found.monotonic, sleep=found.sleep))
    return found


def away(text: str = "server closed the connection") -> sa.exc.OperationalError:
    return sa.exc.OperationalError("SELECT 1", {}, psycopg2.OperationalError(text))


def failing(times: float, error: Callable[[], Exception] = away) -> Callable[[], str]:
    """Fails so many times, then answers."""
    left = [times]

    def attempt() -> str:
        if left[0] <= 0:
            return "answer"
        left[0] -= 1
        raise error()

    return attempt


def test_a_call_is_tried_again_until_it_is_answered(clock: Clock) -> None:
    policy = Retry()

    assert policy.call(failing(7)) == "answer"
    assert (policy.n_outages, policy.in_outage) == (1, False)


def test_a_call_is_given_up_after_so_many_seconds(clock: Clock) -> None:
    policy = Retry(seconds_max=100.0)

    with pytest.raises(StorageError, match="the database is unavailable: server closed the connection"):
        policy.call(failing(float("inf")))

    assert 1100.0 < clock.now < 1110.0
    assert policy.in_outage


def test_a_call_is_given_up_also_where_others_are_answered(clock: Clock) -> None:
    policy = Retry(seconds_max=100.0)

    def attempt() -> None:
        policy.note_answer()  # as the heartbeat notes, whose own calls succeed
        raise away()

    with pytest.raises(StorageError):
        policy.call(attempt)
    assert clock.now < 1110.0


def test_attempts_are_never_further_apart_than_a_heartbeat_allows(clock: Clock) -> None:
    policy, times = Retry(seconds_max=300.0), []

    def attempt() -> None:
        times.append(clock.now)
        raise away()

    with pytest.raises(StorageError):
        policy.call(attempt)
    between = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert between[0] < 0.5
    assert 5.0 < max(between) < 8.0


def test_a_process_in_a_hurry_waits_no_longer(clock: Clock) -> None:
    policy, tries = Retry(), iter(range(100))

    def attempt() -> None:
        policy.shutting_down = next(tries) == 2  # asked to end at the third attempt
        raise away()

    with pytest.raises(StorageError):
        policy.call(attempt)
    assert next(tries) == 3


def test_an_error_that_is_no_outage_comes_at_once(clock: Clock) -> None:
    wrong = sa.exc.ProgrammingError("SELEC 1", {}, psycopg2.ProgrammingError("syntax error"))

    with pytest.raises(sa.exc.ProgrammingError):
        Retry().call(failing(1, lambda: wrong))
    assert clock.now == 1000.0


def test_a_short_outage_is_not_spoken_of_and_a_long_one_once(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "tlopt.storage")
    policy = Retry()
    policy.call(failing(2))
    short = list(caplog.messages)

    policy.call(failing(12))

    assert short == []
    first, second = caplog.messages
    assert first == "the database is unavailable (server closed the connection); retrying for 600 s"
    assert second.startswith("the database is available again after ")


# What an outage is


def chained(cause: Exception) -> Exception:
    error = StorageInternalError("An exception is raised during the commit.")
    error.__cause__ = cause
    return error


def sqlite_errors() -> Iterator[sqlite3.OperationalError]:
    """As SQLite raises them: no such column; locked."""
    with sqlite3.connect(":memory:") as connection, pytest.raises(sqlite3.OperationalError) as caught:
        connection.execute("SELECT nothing FROM sqlite_master")
    connection.close()
    yield caught.value
    locked = sqlite3.OperationalError("database is locked")
    locked.sqlite_errorcode = sqlite3.SQLITE_BUSY
    yield locked


def test_wrong_sql_is_no_outage_on_sqlite_and_a_lock_is() -> None:
    wrong, locked = [sa.exc.OperationalError("SELECT", {}, error) for error in sqlite_errors()]

    assert outage(wrong) is None
    assert outage(chained(wrong)) is None
    assert outage(chained(locked)) == "database is locked"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (away("a\nb"), "a"),
        (chained(away("gone")), "gone"),
        (psycopg2.OperationalError("bare"), "bare"),
        (psycopg2.InterfaceError("connection already closed"), "connection already closed"),
        (sa.exc.InterfaceError("SELECT", {}, psycopg2.InterfaceError("closed")), "closed"),
        (sa.exc.TimeoutError("QueuePool limit"), "no connection became free"),
        (chained(sa.exc.PendingRollbackError("rolled back")), "the connection was closed"),
        (
            sa.exc.DBAPIError("SELECT", {}, Exception("x"), connection_invalidated=True),
            "the connection was closed",
        ),
        (sa.exc.DBAPIError("SELECT", {}, Exception("x")), None),
        (chained(ValueError("x")), None),
        (KeyError("no such study"), None),
    ],
)
def test_an_outage_is_told_from_other_errors(error: Exception, reason: str | None) -> None:
    assert outage(error) == reason


def test_an_outage_has_no_password() -> None:
    error = away("could not translate postgresql://u:secret@h/d to an address")

    assert outage(error) == "could not translate postgresql://u:***@h/d to an address"
