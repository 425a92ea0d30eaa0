"""Check a study's database without writing to it."""

import os
from collections.abc import Generator
from pathlib import Path

import sqlalchemy
from optuna.storages import BaseStorage, RDBStorage

from tlopt.doctor import postgres
from tlopt.doctor.connection import connected, read_only_engine_options, translated
from tlopt.doctor.disks import write_obstacle
from tlopt.doctor.finding import CheckFailed, Finding
from tlopt.spec.study import is_companion
from tlopt.storage import attributes, schema
from tlopt.storage.failures import DAMAGED
from tlopt.storage.url import find_url, hide_password, refuse_network_file

_STUDIES_LISTED = 5


def database(storage_url: str | None) -> Generator[Finding, None, BaseStorage | None]:
    """Yield findings on the database; return a read-only storage of its studies, None if there are none."""
    url = sqlalchemy.make_url(find_url(storage_url))
    text = url.render_as_string(hide_password=False)
    yield Finding("ok", "storage", f"{hide_password(text)}, from {_origin(storage_url)}")
    with translated(url):
        if not (yield from (_sqlite(url) if url.get_backend_name() == "sqlite" else _postgres(url))):
            yield Finding("ok", "studies", "none yet")
            return None
        store = RDBStorage(
            text, read_only_engine_options(url), skip_compatibility_check=True, skip_table_creation=True
        )
        names = [
            study.study_name for study in store.get_all_studies() if attributes.DIGEST in study.user_attrs
        ]
    yield _studies(sorted(name for name in names if not is_companion(name, names)))
    return store


def _origin(storage_url: str | None) -> str:
    """The option or variable that gave the database, in the order of `find_url`."""
    if storage_url:
        return "--storage"
    return next((n for n in ("TLOPT_STORAGE", "TLOPT_STORAGE_FILE") if os.environ.get(n)), "the default")


def _studies(names: list[str]) -> Finding:
    listed = names[:_STUDIES_LISTED]
    if len(names) > len(listed):
        listed = [*listed, f"and {len(names) - len(listed)} more"]
    return Finding("ok", "studies", ", ".join(listed) or "none yet")


def _sqlite(url: sqlalchemy.URL) -> Generator[Finding, None, bool]:
    """Yield findings on an SQLite file; return whether it has Optuna's tables."""
    file = Path(url.database or "")
    refuse_network_file(file)
    _check_writable(file)
    if not file.exists():
        yield Finding("ok", "database", "SQLite; the file does not exist yet, tlopt run creates it")
        return False
    with connected(url) as connection:
        has_tables = schema.has_optuna_tables(connection)
        damage = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
        version = connection.exec_driver_sql("SELECT sqlite_version()").scalar_one()
    if damage != "ok":
        raise CheckFailed(Finding("problem", "database", f"{file} is damaged: {damage}", DAMAGED))
    yield Finding("ok", "database", f"SQLite {version} on a local file, {file.stat().st_size / 1e6:,.1f} MB")
    return has_tables


def _check_writable(file: Path) -> None:
    if not file.parent.is_dir():
        cure = f"create it (mkdir -p '{file.parent}') or correct the path"
        raise CheckFailed(Finding("problem", "database", f"there is no folder {file.parent}", cure))
    # The folder, too: SQLite creates other files next to the database. The file itself is not opened: closing
    # it would release this process's locks on it (sqlite.org/howtocorrupt.html).
    obstacles = {file.parent: write_obstacle(file.parent), file: _access_obstacle(file)}
    for place, obstacle in obstacles.items():
        if obstacle:
            cure = "change its owner or permissions, free disk space, or choose another file"
            raise CheckFailed(Finding("problem", "database", f"{place} cannot be written: {obstacle}", cure))


def _access_obstacle(file: Path) -> str:
    ours = os.access in os.supports_effective_ids
    denied = file.exists() and not os.access(file, os.W_OK, effective_ids=ours)
    return "Permission denied" if denied else ""


def _postgres(url: sqlalchemy.URL) -> Generator[Finding, None, bool]:
    """Yield findings on a PostgreSQL server; return whether the database has Optuna's tables."""
    with connected(url) as connection:
        tables = sqlalchemy.inspect(connection).get_table_names()
        has_tables = schema.has_optuna_tables(connection)
        yield from postgres.server(connection, tables=tables, has_tables=has_tables)
    return has_tables
