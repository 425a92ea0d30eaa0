"""The PostgreSQL roles in docker/: a worker's can do its work and no more, a viewer's can only read."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from wsgiref.util import setup_testing_defaults

import psycopg2
import pytest
import tiny
import torch
from optuna.trial import TrialState
from postgres import Server
from psycopg2 import sql
from typer.testing import CliRunner

from tlopt.cli.main import app
from tlopt.dashboard import server
from tlopt.dashboard.access import Application
from tlopt.storage import studies

pytestmark = pytest.mark.postgres
ROLES = (Path(__file__).parents[1] / "docker" / "postgres" / "roles.sql").read_text(encoding="utf-8")
NAMES = ("tlopt_worker", "tlopt_viewer")
PASSWORD = "a password of these tests"


@dataclass(frozen=True)
class Urls:
    """One database, as three roles see it."""

    owner: str
    worker: str
    viewer: str


@pytest.fixture(scope="module")
def urls(postgres_server: Server) -> Iterator[Urls]:
    """A database with tables and the shipped roles."""
    with postgres_server.database() as name:
        owner = postgres_server.url(name)
        studies.open_storage(owner)
        for _ in range(2):  # a second time changes nothing
            with postgres_server.connect(name) as connection, connection.cursor() as cursor:
                cursor.execute(ROLES)
        connection.close()
        for role in NAMES:
            postgres_server.execute(
                sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), sql.Literal(PASSWORD))
            )
        password = PASSWORD.replace(" ", "%20")
        worker, viewer = (
            postgres_server.url(name, role, password) for role in ("tlopt_worker", "tlopt_viewer")
        )
        yield Urls(owner, worker, viewer)


@pytest.fixture
def place(urls: Urls, tmp_path: Path, study_text: Callable[..., str], workshop: tiny.Workshop) -> tiny.Place:
    """A study of three trials, named for the test, as a worker's role opens it."""
    torch.set_num_threads(1)
    shop = replace(workshop, store=studies.open_storage(urls.worker))
    return tiny.place(tiny.lighter(study_text(name=tmp_path.name, trials=3)), shop, tmp_path / "runs")


def refused(url: str, statement: str) -> bool:
    connection = psycopg2.connect(url)
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
    except (psycopg2.errors.InsufficientPrivilege, psycopg2.errors.ReadOnlySqlTransaction):
        return True
    finally:
        connection.close()
    return False


def test_a_workers_role_suffices_to_work(place: tiny.Place, urls: Urls) -> None:
    held = place.claim()
    assert held is not None
    place.requeue(held)

    place.work()

    assert [trial.state for trial in place.trials] == [TrialState.COMPLETE] * 3
    pause = CliRunner().invoke(app, ["pause", place.study.name], env={"TLOPT_STORAGE": urls.worker})
    assert pause.exit_code == 0, pause.output


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM trials",
        "DELETE FROM studies",
        "TRUNCATE tlopt_leases",
        "DROP TABLE trials",
        "ALTER TABLE trials ADD COLUMN x int",
        "CREATE TABLE mine (x int)",
        "UPDATE alembic_version SET version_num = 'x'",
        "CREATE ROLE another",
        "ALTER ROLE tlopt_viewer SET default_transaction_read_only = off",
    ],
)
def test_a_workers_role_deletes_no_result_and_changes_no_table(urls: Urls, statement: str) -> None:
    assert refused(urls.worker, statement)


def test_a_viewers_role_suffices_to_look(place: tiny.Place, urls: Urls, tmp_path: Path) -> None:
    place.work()
    name, environment = place.study.name, {"TLOPT_STORAGE": urls.viewer}

    shown = CliRunner().invoke(app, ["status", name, "--json"], env=environment)
    listed = CliRunner().invoke(app, ["status"], env=environment)
    best = CliRunner().invoke(app, ["export", name, "--top", "1", "--format", "json"], env=environment)

    assert json.loads(shown.stdout)["trials_finished"] == 3
    assert "planned" in listed.stdout
    assert json.loads(best.stdout)["study"] == name
    application = server.application(urls.viewer, tmp_path, edits=True, logins={})
    own = f"/api/studies/{place.opened._study_id}"
    assert [get(application, path) for path in ("/api/studies", own)] == ["200 OK"] * 2


def get(application: Application, path: str) -> str:
    """The status of an answer to GET."""
    said: list[str] = []
    environ = {"PATH_INFO": path, "QUERY_STRING": "after=0", "HTTP_HOST": "localhost"}
    setup_testing_defaults(environ)
    list(application(environ, lambda status, headers, *_: said.append(status)))
    return said[0]


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM trials",
        "INSERT INTO studies (study_name) VALUES ('mine')",
        "UPDATE trials SET number = 7",
        "SET default_transaction_read_only = off; UPDATE trials SET number = 7",
        "CREATE TABLE mine (x int)",
        "SELECT nextval('studies_study_id_seq')",
    ],
)
def test_a_viewers_role_changes_nothing(urls: Urls, statement: str) -> None:
    assert refused(urls.viewer, statement)
