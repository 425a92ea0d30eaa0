"""Tables are created as by Optuna, in one transaction, and never among another application's."""

import sqlite3
from contextlib import closing
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa
from optuna.storages import RDBStorage
from postgres import Server

from tlopt.errors import StorageError
from tlopt.storage import connect, schema, studies
from tlopt.storage.retry import Retry


def tables(url: str) -> dict[str, list[tuple[object, ...]]]:
    """Each table's columns, keys and indexes as text; and the rows that tell the version."""
    engine = sa.create_engine(url)
    inspector = sa.inspect(engine)
    found: dict[str, list[tuple[object, ...]]] = {
        name: [
            *(
                (column["name"], str(column["type"]), column["nullable"])
                for column in inspector.get_columns(name)
            ),
            tuple(inspector.get_pk_constraint(name)["constrained_columns"]),
            *sorted((str(key["column_names"]),) for key in inspector.get_unique_constraints(name)),
            *sorted((str(index["column_names"]), index["unique"]) for index in inspector.get_indexes(name)),
            *sorted((str(key["constrained_columns"]),) for key in inspector.get_foreign_keys(name)),
        ]
        for name in sorted(inspector.get_table_names())
        if not name.startswith("tlopt_")
    }
    with engine.connect() as connection:
        for name in ("version_info", "alembic_version"):
            found[f"rows of {name}"] = [
                tuple(row) for row in connection.execute(sa.text(f"SELECT * FROM {name}"))
            ]
    engine.dispose()
    return found


def test_the_tables_are_those_that_optuna_makes(storage_url: str, tmp_path: Path) -> None:
    plain = f"sqlite:///{tmp_path}/plain.db"
    RDBStorage(plain).engine.dispose()
    here = studies.normalise(storage_url)
    studies.engine_of(studies.open_storage(here)).dispose()

    made = tables(here)

    assert set(made) == set(tables(plain))
    for name in ("rows of version_info", "rows of alembic_version"):
        assert made[name] == tables(plain)[name]
    if here.startswith("sqlite"):
        assert made == tables(plain)


def test_a_database_of_plain_optuna_gets_our_tables(storage_url: str) -> None:
    here = studies.normalise(storage_url)
    plain = RDBStorage(here)
    optuna.create_study(storage=plain, study_name="plain")
    plain.engine.dispose()

    opened = studies.open_storage(here)

    assert optuna.get_all_study_names(opened) == ["plain"]
    with studies.engine_of(opened).connect() as connection:
        assert schema.has_tables(connection)
    studies.engine_of(opened).dispose()


def test_tables_are_made_at_once_or_not_at_all(storage_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that dies in the middle leaves an empty database behind."""

    def die(_: object) -> object:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(schema._ours, "create_all", die)
        with pytest.raises(KeyboardInterrupt):
            studies.open_storage(storage_url)

    engine = sa.create_engine(studies.normalise(storage_url))
    assert sa.inspect(engine).get_table_names() == []
    engine.dispose()
    studies.engine_of(studies.open_storage(storage_url)).dispose()


# Another application's


def content(file: Path) -> list[tuple[str, ...]]:
    with closing(sqlite3.connect(file)) as connection:
        return connection.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()


@pytest.mark.parametrize(
    ("statements", "named"),
    [
        ("CREATE TABLE moz_places (id)", "moz_places"),
        ("CREATE TABLE studies (id); CREATE TABLE z (id)", "studies"),
        ("CREATE TABLE runs (id); CREATE TABLE alembic_version (version_num)", "alembic_version"),
        ("; ".join(f"CREATE TABLE t{index} (id)" for index in range(8)), "t0, t1, t2, t3, t4 and 3 more"),
    ],
)
def test_another_applications_file_is_refused_and_left_as_it_is(
    statements: str, named: str, tmp_path: Path
) -> None:
    file = tmp_path / "other.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(statements)
    before = content(file)

    with pytest.raises(StorageError, match="belongs to another application") as caught:
        studies.open_storage(str(file))

    assert f"tables {named} " in str(caught.value)
    assert "--storage" in str(caught.value)
    assert content(file) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.db"]


def test_an_application_that_keeps_a_revision_beside_optunas_tables_is_named(tmp_path: Path) -> None:
    """As where plain Optuna was once pointed at the file."""
    url = f"sqlite:///{tmp_path}/mixed.db"
    RDBStorage(url).engine.dispose()
    with closing(sqlite3.connect(tmp_path / "mixed.db")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'f7c0'")
        connection.commit()

    with pytest.raises(StorageError, match=r"another application keeps its table alembic_version .*f7c0"):
        studies.open_storage(url)


@pytest.mark.parametrize(
    ("version", "revision", "words"),
    [
        ("99.0.0", "v99.0.0.a", "made by Optuna 99.0.0, which is later than the"),
        ("2.6.0", "v2.6.0.a", "optuna storage upgrade"),
    ],
)
def test_tables_of_another_optuna_are_told_apart(
    version: str, revision: str, words: str, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/x.db"
    RDBStorage(url).engine.dispose()
    with closing(sqlite3.connect(tmp_path / "x.db")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (revision,))
        connection.execute("UPDATE version_info SET library_version = ?", (version,))
        connection.commit()

    with pytest.raises(StorageError) as caught:
        studies.open_storage(url)

    assert words in str(caught.value)
    assert "no longer compatible" not in str(caught.value)


@pytest.mark.postgres
def test_a_servers_database_may_be_shared_with_tables_of_other_names(
    postgres_server: Server, postgres_url: str
) -> None:
    engine = sa.create_engine(studies.normalise(postgres_url))
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE customers (id integer)"))
    engine.dispose()

    assert optuna.get_all_study_names(studies.open_storage(postgres_url)) == []


# Restored tables


@pytest.mark.postgres
def test_nobody_makes_tables_while_they_are_being_restored(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connect, "MOMENTARY_SECONDS", 0.0)
    engine = studies.engine_of(studies.open_storage(postgres_url))
    with engine.begin() as connection:
        connection.execute(sa.text("DROP TABLE tlopt_workers"))
        connection.execute(sa.text("ALTER TABLE version_info DROP CONSTRAINT version_info_pkey CASCADE"))
    engine.dispose()

    with pytest.raises(StorageError, match="not all there yet\nwait for the end of the restore"):
        studies.open_storage(postgres_url)

    engine = sa.create_engine(studies.normalise(postgres_url))
    assert "tlopt_workers" not in sa.inspect(engine).get_table_names()
    engine.dispose()


def test_tables_without_their_keys_are_being_restored(storage_url: str) -> None:
    """A dump makes the tables first, then their rows, then their keys."""
    engine = studies.engine_of(studies.open_storage(storage_url))
    with engine.begin() as connection:
        whole = schema.restore_is_complete(connection)
        connection.execute(sa.text("CREATE TABLE rows AS SELECT * FROM tlopt_workers"))
        connection.execute(sa.text("DROP TABLE tlopt_workers"))
        dropped = schema.restore_is_complete(connection)
        connection.execute(sa.text("ALTER TABLE rows RENAME TO tlopt_workers"))
        keyless = schema.restore_is_complete(connection)
    engine.dispose()

    assert (whole, dropped, keyless) == (True, False, False)


def test_reading_makes_no_tables_and_finds_those_that_come(storage_url: str) -> None:
    assert optuna.get_all_study_names(studies.open_to_read(storage_url)) == []
    assert not connect.is_initialised(storage_url, Retry(1.0))

    optuna.create_study(storage=studies.open_storage(storage_url), study_name="mine")

    assert connect.is_initialised(storage_url, Retry(1.0))
    assert optuna.get_all_study_names(studies.open_to_read(storage_url)) == ["mine"]


def test_a_folder_that_is_not_there_is_no_empty_database(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"there is no folder \S*/absent"):
        studies.open_to_read(f"sqlite:///{tmp_path}/absent/tlopt.db")
