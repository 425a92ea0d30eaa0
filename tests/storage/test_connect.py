"""Databases in practice: behind a pooler, with the password in a file, with and without encryption."""

import contextlib
import gc
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import optuna
import pgbouncer
import psycopg2
import pytest
import sqlalchemy
from optuna.trial import TrialState
from pgbouncer import Bouncer, Mode
from postgres import USER, Server

from tlopt import spec
from tlopt.errors import StorageError
from tlopt.storage import studies

pytestmark = pytest.mark.postgres

N_SERVERS = 3  # connections of the pooler to its server
SETTINGS = "SELECT current_setting('lock_timeout'), current_setting('idle_in_transaction_session_timeout')"


@contextlib.contextmanager
def pooled(server: Server, mode: Mode) -> Iterator[tuple[Bouncer, str]]:
    """A pooler before `server`, and the name of an empty database behind it."""
    binary = pgbouncer.find_binary()
    if binary is None:
        pytest.skip("no PgBouncer here")
    with (
        server.database() as name,
        pgbouncer.pooling(binary, server, mode, n_servers=N_SERVERS) as bouncer,
    ):
        yield bouncer, name


def settings_of_another_client(bouncer: Bouncer, database: str) -> set[tuple[str, str]]:
    """The settings that clients other than tlopt find in each of the pooler's sessions."""
    found = set()
    with contextlib.ExitStack() as stack:
        for _ in range(N_SERVERS):
            connection = stack.enter_context(contextlib.closing(bouncer.connect(database)))
            cursor = connection.cursor()  # its transaction stays open, so that each gets another session
            cursor.execute(SETTINGS)
            found.add(cursor.fetchone())
    return found


def run_a_trial(url: str, study_name: str) -> None:
    opened = studies.open_storage(url)
    study = optuna.create_study(study_name=study_name, storage=opened, load_if_exists=True)
    trial = study.ask()
    trial.suggest_float("lr", 0.0, 1.0)
    trial.report(0.5, 0)
    study.tell(trial, 0.5)
    studies.engine_of(opened).dispose()


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_the_settings_of_a_worker_hold_behind_a_pooler_and_reach_nobody_else(
    postgres_server: Server, mode: Mode
) -> None:
    with pooled(postgres_server, mode) as (bouncer, database):
        run_a_trial(bouncer.url(database), "x")
        engine = studies.engine_of(studies.open_storage(bouncer.url(database)))
        with engine.begin() as connection:
            own = connection.execute(sqlalchemy.text(SETTINGS)).one()
        engine.dispose()

        assert tuple(own) == ("10s", "20s")
        assert settings_of_another_client(bouncer, database) == {("0", "0")}


def test_without_a_pooler_the_settings_are_the_sessions(postgres_url: str) -> None:
    engine = studies.engine_of(studies.open_storage(postgres_url))
    with engine.connect() as connection:
        found = [tuple(connection.execute(sqlalchemy.text(SETTINGS)).one()) for _ in range(2)]
        connection.commit()
        found.append(tuple(connection.execute(sqlalchemy.text(SETTINGS)).one()))
    engine.dispose()

    assert found == [("10s", "20s")] * 3


def test_more_workers_than_a_pooler_has_connections_begin_at_once_on_an_empty_database(
    postgres_server: Server,
) -> None:
    with pooled(postgres_server, "transaction") as (bouncer, database):
        url = bouncer.url(database)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda index: run_a_trial(url, f"study{index % 2}"), range(8)))

        trials = [
            trial
            for name in ("study0", "study1")
            for trial in optuna.load_study(study_name=name, storage=studies.open_storage(url)).trials
        ]

    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 8
    assert [trial.intermediate_values for trial in trials] == [{0: 0.5}] * 8


def test_as_many_workers_as_connections_get_to_work(
    postgres_server: Server, study_text: Callable[..., str]
) -> None:
    """On an empty database, all at once: nobody waits for a second connection while it holds a first."""
    text, role = study_text(), f"r{secrets.token_hex(6)}"
    study = spec.loads(text, "x.toml")
    postgres_server.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'planted' CONNECTION LIMIT {N_SERVERS}")

    def begin(url: str) -> str:
        opened = studies.open_storage(url)
        made = studies.create_or_open(opened, study, file_text=text, fingerprints={"data": "0a1b"})
        made.tell(made.ask(), 0.5)
        return str(made.user_attrs["tlopt:digest"])

    with postgres_server.database() as name:
        postgres_server.execute(f"ALTER DATABASE {name} OWNER TO {role}")
        url = postgres_server.url(name, role, "planted")
        with ThreadPoolExecutor(N_SERVERS) as pool:
            digests = list(pool.map(begin, [url] * N_SERVERS))
        gc.collect()

    postgres_server.execute(f"DROP ROLE {role}")
    assert digests == [study.digest] * N_SERVERS


def test_the_password_may_lie_in_pgpass(
    postgres_server: Server, postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = sqlalchemy.make_url(postgres_url)
    bare = f"postgresql://{USER}@127.0.0.1:{postgres_server.port}/{right.database}"
    file = tmp_path / "pgpass"
    monkeypatch.setenv("PGPASSFILE", str(file))
    with pytest.raises(StorageError):
        studies.open_storage(bare)

    file.write_text(f"127.0.0.1:{postgres_server.port}:*:{USER}:{postgres_server.password}\n")
    file.chmod(0o600)

    assert optuna.get_all_study_names(studies.open_storage(bare)) == []


@pytest.mark.parametrize("mode", ["disable", "prefer"])
def test_sslmode_is_passed_on(postgres_url: str, mode: str) -> None:
    engine = studies.engine_of(studies.open_storage(f"{postgres_url}?sslmode={mode}"))

    with engine.connect() as connection:
        driver = connection.connection.dbapi_connection
        assert isinstance(driver, psycopg2.extensions.connection)
        assert driver.get_dsn_parameters()["sslmode"] == mode
    engine.dispose()


def test_a_server_without_encryption_is_refused_where_the_url_requires_it(postgres_url: str) -> None:
    with pytest.raises(StorageError, match="does not support SSL") as caught:
        studies.open_storage(f"{postgres_url}?sslmode=require")

    assert str(sqlalchemy.make_url(postgres_url).password) not in str(caught.value)
