"""Every wait for the server is bounded: for a connection, for a response, at the end of the process."""

import socket
from collections.abc import Iterator

import psycopg2
import pytest
from psycopg2 import extensions

from tlopt.storage import connections

pytestmark = pytest.mark.postgres


@pytest.fixture
def bounded(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    before = extensions.get_wait_callback()
    connections.set_socket_timeout()
    yield monkeypatch
    extensions.set_wait_callback(before)


def test_an_answer_that_comes_is_waited_for(postgres_url: str, bounded: pytest.MonkeyPatch) -> None:
    with psycopg2.connect(postgres_url) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(0.6), 7")

        assert cursor.fetchone() == ("", 7)


def test_a_statement_without_an_answer_is_given_up_and_its_connection_closed(
    postgres_url: str, bounded: pytest.MonkeyPatch
) -> None:
    connection = psycopg2.connect(postgres_url)
    bounded.setattr(connections, "SOCKET_TIMEOUT_SECONDS", 0.3)
    cursor = connection.cursor()

    with pytest.raises(psycopg2.OperationalError, match="has not answered"):
        cursor.execute("SELECT pg_sleep(60)")

    assert connection.closed


def test_in_a_hurry_an_answer_gets_a_second(postgres_url: str, bounded: pytest.MonkeyPatch) -> None:
    connection = psycopg2.connect(postgres_url)
    bounded.setattr(connections, "_shutdown_deadline", 0.0)
    cursor = connection.cursor()

    cursor.execute("SELECT pg_sleep(0.3)")  # within it
    with pytest.raises(psycopg2.OperationalError, match="has not answered for 1 s"):
        cursor.execute("SELECT pg_sleep(60)")


def test_a_server_that_takes_connections_and_says_nothing_is_given_up(bounded: pytest.MonkeyPatch) -> None:
    bounded.setattr(connections, "CONNECT_TIMEOUT_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        port = deaf.getsockname()[1]

        with pytest.raises(psycopg2.OperationalError, match="has not answered"):
            psycopg2.connect(host="127.0.0.1", port=port, user="u", password="p", dbname="d")
