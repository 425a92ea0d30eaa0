"""A bound on how long psycopg2 waits for the server: libpq itself waits for ever for one that is paused.

psycopg2 has one hook for all connections of a process (https://www.psycopg.org/docs/extensions.html,
`set_wait_callback`). Between two looks Python runs its signal handlers, which a wait inside libpq puts off.
"""

import select
import time
from typing import Any

import psycopg2
from psycopg2 import extensions

ANSWER_SECONDS = 20.0  # without a byte from the server
CONNECT_SECONDS = 8.0  # the same, before there is a connection; libpq's connect_timeout is for its own waits
HURRIED_SECONDS = 3.0  # in all, once the process is to end
_LEAST_SECONDS = 1.0  # for each answer even then
_LOOK_SECONDS = 0.25

_until = float("inf")  # monotonic; beyond it answers get the least


def bound_waits() -> None:
    """Bound every wait of this process from now on."""
    extensions.set_wait_callback(_wait)


def hurry() -> None:
    """Wait for answers no longer than the end of this process allows."""
    global _until
    _until = time.monotonic() + HURRIED_SECONDS


def _wait(connection: Any) -> None:
    """Return once `connection` has its answer.

    Raises:
        OperationalError: the server was silent for too long; the connection is closed.
    """
    while True:
        state = connection.poll()
        if state == extensions.POLL_OK:
            return
        readers = [connection] if state == extensions.POLL_READ else []
        writers = [connection] if state == extensions.POLL_WRITE else []
        _look(connection, readers, writers)


def _look(connection: Any, readers: list[Any], writers: list[Any]) -> None:
    silent_since = time.monotonic()
    patient = CONNECT_SECONDS if connection.status == extensions.STATUS_SETUP else ANSWER_SECONDS
    while not any(select.select(readers, writers, [], _LOOK_SECONDS)):
        now = time.monotonic()
        if now > min(silent_since + patient, max(_until, silent_since + _LEAST_SECONDS)):
            # psycopg2 closes the connection then; close() would wait for ever for the lock that execute holds
            raise psycopg2.OperationalError(f"the server has not answered for {now - silent_since:.0f} s")
