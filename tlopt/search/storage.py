"""The study's database: opened safely by many processes at once, and the study in it.

SQLite serves the processes of one machine, PostgreSQL those of many. Optuna's storage is used as it is; set
here are the connections, and one lock for everything that must happen once: the schema and the study.
"""

import sqlite3
import warnings
import weakref
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import filelock
import optuna
import sqlalchemy
from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy import event

from tlopt import spec
from tlopt.errors import NotReady, SpecError, StorageError, StudyChanged
from tlopt.search import records
from tlopt.search.changes import differences
from tlopt.search.urls import find_url, hide_password, normalise

__all__ = [
    "create_or_open",
    "engine_of",
    "find_url",
    "hide_password",
    "normalise",
    "open_existing",
    "open_storage",
    "stored_spec",
]

LOCK_SECONDS = 100  # SQLite as measured: the slowest of 200 trials waited 5.6 s; PostgreSQL likewise
LOCK_KEY = 0x746C6F7074  # "tlopt"; advisory locks are per database

# tcp_user_timeout: a cut network blocks a write for a quarter of an hour without it, 20 s with it.
_POSTGRES_CONNECTION = {
    "connect_timeout": 5,  # seconds
    "tcp_user_timeout": 20_000,  # milliseconds
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "application_name": "tlopt",
}

# One connection a process; Optuna opens a second inside a session when it checks the schema.
_POOL = {"pool_size": 1, "max_overflow": 2}


def open_storage(url: str) -> BaseStorage:
    """Optuna's cached storage on the database `url`, with its schema; many processes may open it at once.

    SQLite runs with a write-ahead log and takes its lock at the beginning of a transaction; as Optuna ships
    it, two workers may be given the same trial (optuna issue 4002).

    Raises:
        StorageError: the database cannot be reached, or was made by an incompatible Optuna.
    """
    parsed = sqlalchemy.make_url(normalise(url))
    with _translated(parsed), _only_one(parsed):
        storage = _construct(parsed)
        # Not sooner: the constructor reads the schema's version on a second connection inside a session, and
        # would wait for its own lock.
        event.listen(storage.engine, "connect", _prepare_sqlite if _is_sqlite(parsed) else _prepare_postgres)
        if _is_sqlite(parsed):
            event.listen(storage.engine, "begin", _begin_immediate)
        storage.engine.dispose()
    weakref.finalize(storage, storage.engine.dispose)  # the server's connections are few
    return optuna.storages.get_storage(storage)


def engine_of(storage: BaseStorage) -> sqlalchemy.Engine:
    """The engine below a storage that `open_storage` returned."""
    backend = getattr(storage, "_backend", storage)  # the cache has no public name for what it caches
    if not isinstance(backend, RDBStorage):
        raise StorageError(f"{type(storage).__name__} is not a database; open it by its URL")
    return backend.engine


def create_or_open(
    storage: BaseStorage,
    study: spec.Study,
    *,
    file_text: str,
    facts: dict[str, str | int],
    sampler: optuna.samplers.BaseSampler | None = None,
    pruner: optuna.pruners.BasePruner | None = None,
) -> optuna.Study:
    """The Optuna study of `study`, made if there is none; the stored file follows the newest.

    Args:
        storage: as `open_storage` returned it.
        study: decoded from `file_text`.
        file_text: the study file, stored with the study; one with fewer trials than are stored is not.
        facts: what every worker has to share (say, the images' fingerprint), by name without prefix.
        sampler: handed to Optuna, which does not store it.
        pruner: handed to Optuna, which does not store it.

    Raises:
        StudyChanged: the study exists with another digest, semantics version or fact.
        StorageError: the name belongs to a study that tlopt did not make.
    """
    engine = engine_of(storage)
    with _translated(engine.url), _only_one(engine.url):
        opened = optuna.create_study(
            storage=storage,
            study_name=study.name,
            direction=study.direction,
            load_if_exists=True,
            sampler=sampler,
            pruner=pruner,
        )
        if records.DIGEST not in opened.user_attrs:
            _fill(opened, study, file_text, facts)
        else:
            _refuse_changes(opened, study, facts)
            if study.budget.trials >= stored_spec(opened).budget.trials:
                opened.set_user_attr(records.FILE, file_text)
    return opened


def open_existing(storage: BaseStorage, name: str) -> optuna.Study:
    """The Optuna study `name`, which tlopt made before.

    Raises:
        NotReady: there is no study of this name.
        StorageError: tlopt did not make it.
    """
    try:
        opened = optuna.load_study(study_name=name, storage=storage)
    except KeyError:
        names = ", ".join(sorted(optuna.get_all_study_names(storage))) or "none yet"
        raise NotReady(
            f"there is no study {name!r} in this storage (there are: {names}); start it with tlopt run FILE"
        ) from None
    if records.DIGEST not in opened.user_attrs:
        raise _not_ours(name)
    return opened


def stored_spec(optuna_study: optuna.Study) -> spec.Study:
    """The study file that is stored with `optuna_study`, decoded.

    Raises:
        SpecError: this version of tlopt reads the stored file no longer.
    """
    name = optuna_study.study_name
    return spec.loads(optuna_study.user_attrs[records.FILE], f"study {name}")


def _is_sqlite(url: sqlalchemy.URL) -> bool:
    return url.get_backend_name() == "sqlite"


def _connect_options(url: sqlalchemy.URL) -> dict[str, Any]:
    if _is_sqlite(url):
        return {"timeout": LOCK_SECONDS}
    return {name: value for name, value in _POSTGRES_CONNECTION.items() if name not in url.query}


def _construct(url: sqlalchemy.URL) -> RDBStorage:
    options = {**_POOL, "pool_pre_ping": not _is_sqlite(url), "connect_args": _connect_options(url)}
    try:
        return RDBStorage(url.render_as_string(hide_password=False), options)
    except RuntimeError as error:  # the schema is an older or newer Optuna's; the message says what to run
        raise StorageError(f"{hide_password(str(url))}: {error}") from None


@contextmanager
def _only_one(url: sqlalchemy.URL) -> Iterator[None]:
    """Held by one process at a time over all that use the database."""
    if _is_sqlite(url):
        with _only_one_of_machine(Path(url.database or "")):
            yield
        return
    engine = sqlalchemy.create_engine(
        url, poolclass=sqlalchemy.pool.NullPool, connect_args=_connect_options(url)
    )
    # The transaction's lock, not the session's: behind PgBouncer a session outlives its client.
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'"))
        connection.execute(sqlalchemy.select(sqlalchemy.func.pg_advisory_xact_lock(LOCK_KEY)))
        yield


@contextmanager
def _only_one_of_machine(file: Path) -> Iterator[None]:
    if not file.parent.is_dir():  # the lock would create it, and hide a mistyped path
        raise FileNotFoundError(f"there is no folder {file.parent}")
    with filelock.FileLock(f"{file}.lock", timeout=LOCK_SECONDS):
        with closing(sqlite3.connect(file, timeout=LOCK_SECONDS)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
        yield


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # otherwise Python begins transactions, and only before the first write
    connection.execute("PRAGMA synchronous=NORMAL")


def _begin_immediate(connection: sqlalchemy.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _prepare_postgres(connection: Any, _record: object) -> None:
    # By SET, because PgBouncer refuses unknown start-up parameters. Without the second, a worker that is
    # stopped while it holds the study's row stops all the others.
    with connection.cursor() as cursor:
        cursor.execute("SET TIME ZONE 'UTC'; SET idle_in_transaction_session_timeout = '60s'")
    connection.commit()


@contextmanager
def _translated(url: sqlalchemy.URL) -> Iterator[None]:
    """Turns what databases and locks raise into a StorageError without passwords.

    The cause is dropped: SQLAlchemy's and Optuna's messages may quote the URL.
    """
    try:
        yield
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        raise _unusable(url, getattr(error, "orig", None) or error.__cause__ or error) from None
    except (sqlite3.Error, OSError) as error:
        raise _unusable(url, error) from None


def _unusable(url: sqlalchemy.URL, error: BaseException) -> StorageError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if url.password:
        reason = reason.replace(url.password, "***")
    advice = (
        "check that its folder exists and can be written, and that the file is an SQLite database"
        if _is_sqlite(url)
        else "check that the server runs, and host, port, user, password and database in the URL"
    )
    hidden = hide_password(url.render_as_string(hide_password=False))
    return StorageError(f"{hidden}: {reason}\n{advice}")


def _not_ours(name: str) -> StorageError:
    return StorageError(f"the study {name!r} in this storage was not made by tlopt; take another name")


def _fill(opened: optuna.Study, study: spec.Study, file_text: str, facts: dict[str, str | int]) -> None:
    """Make a new study tlopt's; also one whose maker was killed at it."""
    directions = [direction.name.lower() for direction in opened.directions]
    if directions != [study.direction] or opened.get_trials(deepcopy=False):
        raise _not_ours(opened.study_name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        opened.set_metric_names([study.objective])
    opened.set_user_attr(records.FILE, file_text)
    opened.set_user_attr(records.SEMANTICS, spec.SEMANTICS_VERSION)
    for name, value in facts.items():
        opened.set_user_attr(records.PREFIX + name, value)
    opened.set_user_attr(records.DIGEST, study.digest)  # last: it says that the others are there


def _refuse_changes(opened: optuna.Study, study: spec.Study, facts: dict[str, str | int]) -> None:
    stored = opened.user_attrs
    here = {records.SEMANTICS: spec.SEMANTICS_VERSION, **{records.PREFIX + key: facts[key] for key in facts}}
    differing = differences({key: stored.get(key, "none") for key in here}, here)
    if stored[records.DIGEST] != study.digest:
        digests = differences({"digest": stored[records.DIGEST]}, {"digest": study.digest})
        differing = [*(_differing_keys(opened, study) or digests), *differing]
    if differing:
        raise StudyChanged(
            f"the study {opened.study_name!r} means something else: {'; '.join(differing)};"
            " give this search another name, or restore what changed"
        )


def _differing_keys(opened: optuna.Study, study: spec.Study) -> list[str]:
    try:
        stored = stored_spec(opened)
    except SpecError:  # written by another version of tlopt
        return []
    return differences(spec.meaning(stored), spec.meaning(study))
