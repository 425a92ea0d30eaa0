"""A real PostgreSQL server: privileges of roles, free connections and failed connections."""

import contextlib
import re
import secrets
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace

import optuna
import pytest
from looked import problem, problems, titled
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from postgres import Server
from psycopg2 import extensions, sql

from tlopt.doctor import connection, postgres
from tlopt.doctor.database import database
from tlopt.doctor.finding import Finding, guarded
from tlopt.storage import attributes, schema
from tlopt.storage.url import normalise

pytestmark = pytest.mark.postgres


def look(url: str) -> list[Finding]:
    return list(guarded("database", database(url)))


def plant(url: str) -> None:
    """Optuna's tables and ours, with one study."""
    storage = RDBStorage(normalise(url))
    with storage.engine.begin() as connection:
        schema.create_tables(connection)
    optuna.create_study(storage=storage, study_name="flowers").set_user_attr(attributes.DIGEST, "0a1b")
    storage.engine.dispose()


def contents(server: Server, name: str) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table of the database `name`."""
    with server.connect(name) as opened, opened.cursor() as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        names = [row[0] for row in cursor.fetchall()]
        found = {}
        for table in names:
            cursor.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(table)))
            found[table] = cursor.fetchall()
    opened.close()
    return found


@dataclass(frozen=True)
class Place:
    """An empty database and a role that owns nothing, with a password."""

    server: Server
    name: str
    role: str
    password: str

    @property
    def url(self) -> str:
        return self.server.url(self.name, user=self.role, password=self.password)

    def execute(self, statement: str) -> None:
        """Run in the database as its superuser, {role} and {name} filled in."""
        with self.server.connect(self.name) as opened, opened.cursor() as cursor:
            cursor.execute(statement.format(role=f'"{self.role}"', name=f'"{self.name}"'))
        opened.close()


@pytest.fixture(autouse=True)
def _libpq_waits() -> Iterator[None]:
    """The doctor's own process has no socket timeout of a worker's; earlier tests may have set one."""
    before = extensions.get_wait_callback()
    extensions.set_wait_callback(None)
    yield
    extensions.set_wait_callback(before)


@pytest.fixture
def place(postgres_server: Server) -> Iterator[Place]:
    role, password = f"role-{secrets.token_hex(4)}", secrets.token_hex(8)
    postgres_server.execute(
        sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(role), sql.Literal(password))
    )
    with postgres_server.database() as name:
        yield Place(postgres_server, name, role, password)
    postgres_server.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


@pytest.fixture
def owned(place: Place) -> Place:
    """The role owns the database, as it should."""
    place.execute("ALTER DATABASE {name} OWNER TO {role}")
    return place


# What is well


def test_a_role_that_owns_its_database_has_no_problem(owned: Place) -> None:
    found = look(owned.url)

    assert [finding for finding in found if finding.level != "ok"] == []
    assert titled(found, "database")[0].detail.endswith(f"{owned.name} as {owned.role}")
    assert titled(found, "studies") == [Finding("ok", "studies", "none yet")]


def test_studies_are_listed_and_no_row_is_changed(owned: Place) -> None:
    plant(owned.url)
    before = contents(owned.server, owned.name)

    found = look(owned.url)

    assert titled(found, "studies") == [Finding("ok", "studies", "flowers")]
    assert before["studies"]
    assert contents(owned.server, owned.name) == before


def test_nothing_is_created_in_an_empty_database(owned: Place) -> None:
    look(owned.url)

    assert contents(owned.server, owned.name) == {}


def test_the_returned_storage_cannot_write(owned: Place) -> None:
    plant(owned.url)
    check = database(owned.url)
    while True:
        try:
            next(check)
        except StopIteration as end:
            store = end.value
            break

    with pytest.raises(StorageInternalError) as caught:
        optuna.create_study(storage=store, study_name="new")
    assert "read-only transaction" in str(caught.value.__cause__)
    assert optuna.get_all_study_names(store) == ["flowers"]


def test_no_connection_is_left_open(owned: Place) -> None:
    plant(owned.url)
    look(owned.url)

    # A database that somebody is in cannot be renamed; for those who are leaving the server waits.
    old, new = sql.Identifier(owned.name), sql.Identifier(f"{owned.name}-renamed")
    owned.server.execute(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(old, new))
    owned.server.execute(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(new, old))


# Rights


def test_a_superuser_is_a_note(postgres_url: str) -> None:
    found = look(postgres_url)

    assert problems(found) == []
    assert ["superuser" in finding.detail for finding in found if finding.level == "note"] == [True]


def test_a_role_that_may_not_create_tables_is_a_problem_and_the_cure_works(place: Place) -> None:
    found = problem(look(place.url))
    assert found.detail == f"{place.role} has no permission to create tables in {place.name}"

    place.execute(found.cure)

    assert problems(look(place.url)) == []


def test_a_role_that_may_not_write_the_tables_is_a_problem_and_the_cure_works(place: Place) -> None:
    plant(place.server.url(place.name))
    place.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")

    found = problem(look(place.url))
    assert found.detail == f"{place.role} has no permission to write the tables of {place.name}"
    place.execute(found.cure.removeprefix("as their owner: "))

    assert problems(look(place.url)) == []
    optuna.create_study(storage=normalise(place.url), study_name="second")


def test_a_role_without_the_sequences_is_a_problem(place: Place) -> None:
    plant(place.server.url(place.name))
    place.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}")

    assert "GRANT ALL ON ALL SEQUENCES" in problem(look(place.url)).cure


def test_creating_tables_must_be_allowed_while_some_are_missing(place: Place) -> None:
    RDBStorage(normalise(place.server.url(place.name))).engine.dispose()
    place.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}")
    place.execute("GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role}")

    assert "no permission to create tables" in problem(look(place.url)).detail


def test_the_cure_for_a_role_that_may_not_read_says_what_to_grant(place: Place) -> None:
    plant(place.server.url(place.name))

    last = look(place.url)[-1]

    assert "permission denied for table" in last.detail
    assert "GRANT ALL ON ALL TABLES" in last.cure


# Who is kept out


def test_a_wrong_password_is_a_problem_and_neither_is_shown(place: Place) -> None:
    found = look(place.server.url(place.name, user=place.role, password="topsecret"))

    assert "password authentication failed" in problem(found).detail
    assert "user and password" in problem(found).cure
    assert "topsecret" not in repr(found)
    assert place.password not in repr(found)


def test_a_missing_password_is_a_problem(place: Place) -> None:
    url = place.server.url(place.name, user=place.role).replace(f":{place.server.password}@", "@")

    assert "add the password" in problem(look(url)).cure


@pytest.mark.parametrize("what", ["user", "database"])
def test_an_unknown_user_or_database_is_a_problem(what: str, place: Place) -> None:
    user = "nobody-known" if what == "user" else place.role
    name = "nowhere" if what == "database" else place.name

    found = problem(look(place.server.url(name, user=user, password=place.password)))

    # a server does not tell whether it knows a user
    sign = "password authentication failed" if what == "user" else "CREATE DATABASE"
    assert sign in found.detail + found.cure


def test_a_closed_port_is_a_problem() -> None:
    with socket.socket() as bound:  # to it nobody listens
        bound.bind(("127.0.0.1", 0))
        found = look(f"postgresql://me:topsecret@127.0.0.1:{bound.getsockname()[1]}/x")

    assert "Connection refused" in problem(found).detail
    assert problem(found).cure == "start the server, or correct host and port in the URL"
    assert "topsecret" not in repr(found)


def test_a_port_that_does_not_respond_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 2)  # libpq's least
    with socket.create_server(("127.0.0.1", 0)) as silent:
        found = look(f"postgresql://me:topsecret@127.0.0.1:{silent.getsockname()[1]}/x")

    assert "timeout expired" in problem(found).detail
    assert "topsecret" not in repr(found)


def test_passwords_with_odd_characters_are_not_shown_either() -> None:
    found = look("postgresql://me:top%40sec%2Fret%3A@127.0.0.1:1/x")

    assert [sign for sign in ("top%40sec", "top@sec") if sign in repr(found)] == []


# Room


def connections(url: str) -> Finding:
    (found,) = titled(look(url), "connections")
    return found


def test_a_server_with_free_connections_is_ok(owned: Place) -> None:
    found = connections(owned.url)

    assert found.level == "ok"
    # 100 is PostgreSQL's default; 3 are kept for superusers
    assert " of 97 connections of the server in use" in found.detail


def test_connections_of_others_are_counted(owned: Place) -> None:
    with contextlib.ExitStack() as held:
        for _ in range(5):
            held.enter_context(contextlib.closing(owned.server.connect("postgres")))

        # one more is our own
        assert int(connections(owned.url).detail.split()[0]) >= 6


def test_a_server_without_free_connections_is_a_note(owned: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "CONNECTIONS_LOW", 98)

    found = connections(owned.url)

    assert found.level == "note"
    assert "max_connections" in found.cure


@pytest.mark.parametrize(
    ("whose", "kind", "name"), [("user", "ROLE", "{role}"), ("database", "DATABASE", "{name}")]
)
def test_the_tightest_limit_of_connections_decides(whose: str, kind: str, name: str, owned: Place) -> None:
    owned.execute(f"ALTER {kind} {name} CONNECTION LIMIT 6")

    found = connections(owned.url)

    assert found.level == "note"
    # our own, and perhaps one that is leaving
    assert re.match(rf"[12] of 6 connections of the {whose} in use", found.detail)
    assert found.cure == f"raise it: ALTER {kind} ... CONNECTION LIMIT"


def test_a_role_at_its_limit_is_a_problem(owned: Place) -> None:
    owned.execute("ALTER ROLE {role} CONNECTION LIMIT 0")

    assert "CONNECTION LIMIT" in problem(look(owned.url)).cure


# Planted: what this server is not


def test_a_replica_is_a_problem(owned: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "_SERVER", postgres._SERVER.replace("pg_is_in_recovery()", "true"))

    found = problem(look(owned.url))

    assert (found.detail, found.cure) == (
        "the server is a read-only replica",
        "use the URL of the primary server",
    )


@pytest.mark.parametrize(
    ("ahead_seconds", "level", "side"),
    [(0.0, "ok", ""), (100.0, "note", "behind"), (-100.0, "note", "ahead of")],
)
def test_a_clock_that_is_off_is_a_note(
    ahead_seconds: float, level: str, side: str, owned: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = SimpleNamespace(time=lambda: time.time() + ahead_seconds)
    monkeypatch.setattr(postgres, "time", planted)

    (found,) = titled(look(owned.url), "clock")

    assert found.level == level
    assert side in found.detail
