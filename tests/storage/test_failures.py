"""Classification of database errors by their codes: outage, lasting fault with a cure, or bug."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest
import sqlalchemy as sa
from postgres import USER, Server
from psycopg2 import errors
from psycopg2.errorcodes import __dict__ as codes
from study_workers import no_pauses, start_worker

from tlopt.errors import StorageError
from tlopt.storage import studies
from tlopt.storage.failures import failure, outage
from tlopt.storage.retry import Retry
from tlopt.worker.heartbeat import Heartbeat


def planted(state: str) -> sa.exc.DBAPIError:
    """A server's error as SQLAlchemy raises it, with psycopg2's class for that code."""
    driver = errors.lookup(state)
    error = type("Coded", (driver,), {"pgcode": state})("planted")
    return sa.exc.DBAPIError.instance("SELECT 1", {}, error, psycopg2.Error)  # type: ignore[return-value]


@pytest.mark.parametrize(
    "name",
    [
        "READ_ONLY_SQL_TRANSACTION",
        "IDLE_IN_TRANSACTION_SESSION_TIMEOUT",
        "SERIALIZATION_FAILURE",
        "DEADLOCK_DETECTED",
        "LOCK_NOT_AVAILABLE",
        "QUERY_CANCELED",
        "ADMIN_SHUTDOWN",
        "CRASH_SHUTDOWN",
        "CANNOT_CONNECT_NOW",
        "IDLE_SESSION_TIMEOUT",
        "DATABASE_DROPPED",
        "TOO_MANY_CONNECTIONS",
        "DISK_FULL",
        "OUT_OF_MEMORY",
        "CONNECTION_EXCEPTION",
        "CONNECTION_FAILURE",
        "IO_ERROR",
        "UNDEFINED_TABLE",
        "INVALID_CATALOG_NAME",
        "INVALID_PASSWORD",
    ],
)
def test_what_may_end_by_itself_is_waited_for(name: str) -> None:
    assert outage(planted(codes[name])) == "planted"


@pytest.mark.parametrize(
    "said",
    [
        "database or disk is full",
        "disk I/O error",
        'could not extend file "base/5/1": No space left on device',
    ],
)
def test_a_full_disk_is_told_with_its_cure(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    no_pauses(monkeypatch)
    driver = sqlite3.OperationalError(said)
    error = sa.exc.DBAPIError.instance("SELECT 1", {}, driver, sqlite3.Error)

    with pytest.raises(
        StorageError, match=f"unavailable: {re.escape(said)}\nfree space on the database's disk"
    ):
        Retry(0.0).call(_raising(error))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["INSUFFICIENT_PRIVILEGE", "DATA_CORRUPTED", "INDEX_CORRUPTED"])
def test_what_does_not_end_by_itself_is_one_error(name: str) -> None:
    found = failure(planted(codes[name]))

    assert found is not None
    assert found.lasts
    with pytest.raises(StorageError, match="the database refuses: planted"):
        Retry().call(_raising(planted(codes[name])))


@pytest.mark.parametrize(
    "name", ["SYNTAX_ERROR", "UNDEFINED_COLUMN", "UNIQUE_VIOLATION", "NOT_NULL_VIOLATION", "DIVISION_BY_ZERO"]
)
def test_wrong_sql_and_wrong_data_keep_their_traceback(name: str) -> None:
    assert failure(planted(codes[name])) is None


def _raising(error: Exception) -> object:
    def attempt() -> None:
        raise error

    return attempt


# On a server


@pytest.fixture
def stranger(postgres_server: Server, postgres_url: str) -> Iterator[str]:
    """The database by the URL of a role that may read it and nothing else."""
    studies.engine_of(studies.open_storage(postgres_url)).dispose()
    name = f"reader_{sa.make_url(postgres_url).database}"
    postgres_server.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'planted'")
    with closing(postgres_server.connect(str(sa.make_url(postgres_url).database))) as owner:
        owner.autocommit = True
        owner.cursor().execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {name}")
    yield postgres_url.replace(f"{USER}:{postgres_server.password}@", f"{name}:planted@")
    with closing(postgres_server.connect(str(sa.make_url(postgres_url).database))) as owner:
        owner.autocommit = True
        owner.cursor().execute(f"DROP OWNED BY {name}")
    postgres_server.execute(f"DROP ROLE {name}")


@pytest.mark.postgres
def test_who_may_only_read_is_told_which_right_is_missing(
    postgres_url: str, stranger: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_pauses(monkeypatch)
    start_worker(postgres_url).service.engine.dispose()
    reader = studies.open_storage(stranger)
    service = studies.service_of(reader)

    with pytest.raises(StorageError) as caught:
        service.set_study_user_attr(1, "key", "value")

    assert str(caught.value).startswith("the database refuses: permission denied for table")
    assert "GRANT ALL ON ALL TABLES" in str(caught.value)
    service.engine.dispose()


@pytest.mark.postgres
def test_a_report_and_a_heartbeat_without_the_right_to_write_are_one_error(
    postgres_server: Server, postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    worker = start_worker(postgres_url)
    trial = worker.claim()
    heartbeat = Heartbeat(worker.service, worker.me, [worker.study_id])
    heartbeat.hold(trial._trial_id, worker.seen(trial).token, 0.0)
    role = "reader_of_tables"
    with closing(postgres_server.connect(str(sa.make_url(postgres_url).database))) as admin:
        admin.autocommit = True
        admin.cursor().execute(
            "CREATE ROLE reader_of_tables; GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader_of_tables"
        )
        try:
            with worker.service.engine.connect() as connection:
                connection.execute(sa.text(f"SET SESSION AUTHORIZATION {role}"))
                connection.commit()
            heartbeat.beat_once()
            with pytest.raises(StorageError, match="permission denied"):
                trial.report(0.5, 0)
            worker.service.engine.dispose()
        finally:
            admin.cursor().execute(f"DROP OWNED BY {role}; DROP ROLE {role}")

    assert isinstance(heartbeat.failure, StorageError)
    assert "permission denied" in str(heartbeat.failure)
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.postgres
def test_a_server_that_is_read_only_for_a_while_is_waited_for(
    postgres_server: Server, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the session has begun with the read-only default, and would keep it."""
    no_pauses(monkeypatch)
    worker = start_worker(postgres_url)
    trial = worker.claim()
    database = str(sa.make_url(postgres_url).database)
    postgres_server.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    worker.service.engine.dispose()  # as the server's restart does
    trial.report(0.5, 0)
    away = worker.service.retry.in_outage

    postgres_server.execute(f"ALTER DATABASE {database} RESET default_transaction_read_only")
    worker.study.tell(trial, 0.75)

    assert away
    (stored,) = worker.trials
    assert stored.value == 0.75
    worker.service.engine.dispose()


@pytest.mark.postgres
def test_a_claim_waits_for_tables_that_come_back(
    postgres_server: Server, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_pauses(monkeypatch)
    worker = start_worker(postgres_url)
    with closing(postgres_server.connect(str(sa.make_url(postgres_url).database))) as admin:
        admin.autocommit = True
        cursor = admin.cursor()
        cursor.execute("ALTER TABLE trials RENAME TO elsewhere")
        sound, tries = worker.service.retry.note_outage, []

        def away(reason: str) -> None:
            tries.append(reason)
            if len(tries) == 3:
                cursor.execute("ALTER TABLE elsewhere RENAME TO trials")
            sound(reason)

        monkeypatch.setattr(worker.service.retry, "note_outage", away)

        assert worker.claim().number == 0

    assert tries[0] == 'relation "trials" does not exist'
    worker.service.engine.dispose()


def test_a_file_that_may_not_be_written_is_refused_at_once(tmp_path: Path) -> None:
    url = f"file:{tmp_path}/x.db?mode=ro"
    with closing(sqlite3.connect(tmp_path / "x.db")) as made:
        made.execute("CREATE TABLE x (y)")
    with closing(sqlite3.connect(url, uri=True)) as reader, pytest.raises(sqlite3.Error) as caught:
        reader.execute("INSERT INTO x VALUES (1)")

    found = failure(sa.exc.OperationalError("INSERT", {}, caught.value))

    assert found is not None
    assert (found.lasts, found.reason) == (True, "attempt to write a readonly database")
