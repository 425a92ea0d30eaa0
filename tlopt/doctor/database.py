"""Check a study's database without writing to it."""

import os
from collections.abc import Generator
from pathlib import Path

import sqlalchemy
from optuna.storages import BaseStorage, RDBStorage

from tlopt.doctor import postgres
from tlopt.doctor.connection import connected, options, translated
from tlopt.doctor.disks import write_obstacle
from tlopt.doctor.finding import Ended, Finding
from tlopt.spec.study import CONFIRM_SUFFIX
from tlopt.storage import attributes, schema
from tlopt.storage.failures import DAMAGED
from tlopt.storage.url import find_url, hide_password, refuse_network_file

_STUDIES_SHOWN = 5


def database(storage_url: str | None) -> Generator[Finding, None, BaseStorage | None]:
    """Findings on the database; returns a storage that reads its studies, None where there are none."""
    url = sqlalchemy.make_url(find_url(storage_url))
    text = url.render_as_string(hide_password=False)
    yield Finding("ok", "storage", f"{hide_password(text)}, from {_origin(storage_url)}")
    with translated(url):
        if not (yield from (_sqlite(url) if url.get_backend_name() == "sqlite" else _postgres(url))):
            yield Finding("ok", "studies", "none yet")
            return None
        store = RDBStorage(text, options(url), skip_compatibility_check=True, skip_table_creation=True)
        names = [
            study.study_name for study in store.get_all_studies() if attributes.DIGEST in study.user_attrs
        ]
    yield _studies(sorted(name for name in names if not name.endswith(CONFIRM_SUFFIX)))
    return store


def _origin(storage_url: str | None) -> str:
    """The option or variable that named the database, in the order of `find_url`."""
    if storage_url:
        return "--storage"
    return next((n for n in ("TLOPT_STORAGE", "TLOPT_STORAGE_FILE") if os.environ.get(n)), "the default")


def _studies(names: list[str]) -> Finding:
    shown = names[:_STUDIES_SHOWN]
    if len(names) > len(shown):
        shown = [*shown, f"and {len(names) - len(shown)} more"]
    return Finding("ok", "studies", ", ".join(shown) or "none yet")


def _sqlite(url: sqlalchemy.URL) -> Generator[Finding, None, bool]:
    """Findings on an SQLite file; returns whether it holds Optuna's tables."""
    file = Path(url.database or "")
    refuse_network_file(file)
    _check_writable(file)
    if not file.exists():
        yield Finding("ok", "database", "SQLite; there is no file yet, tlopt run makes it")
        return False
    with connected(url) as connection:
        filled = schema.has_optuna_tables(connection)
        damage = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
        version = connection.exec_driver_sql("SELECT sqlite_version()").scalar_one()
    if damage != "ok":
        raise Ended(Finding("problem", "database", f"{file} is damaged: {damage}", DAMAGED))
    yield Finding("ok", "database", f"SQLite {version} on a local file, {file.stat().st_size / 1e6:,.1f} MB")
    return filled


def _check_writable(file: Path) -> None:
    if not file.parent.is_dir():
        cure = f"mkdir -p '{file.parent}', or correct the path"
        raise Ended(Finding("problem", "database", f"there is no folder {file.parent}", cure))
    # The folder too: SQLite makes other files beside its own. The file is not opened: closing it would
    # release this process's locks on it (sqlite.org/howtocorrupt.html).
    obstacles = {file.parent: write_obstacle(file.parent), file: _access_obstacle(file)}
    for place, obstacle in obstacles.items():
        if obstacle:
            cure = "change its owner or rights, make room, or name another file"
            raise Ended(Finding("problem", "database", f"{place} cannot be written: {obstacle}", cure))


def _access_obstacle(file: Path) -> str:
    ours = os.access in os.supports_effective_ids
    denied = file.exists() and not os.access(file, os.W_OK, effective_ids=ours)
    return "Permission denied" if denied else ""


def _postgres(url: sqlalchemy.URL) -> Generator[Finding, None, bool]:
    """Findings on a PostgreSQL server; returns whether the database holds Optuna's tables."""
    with connected(url) as connection:
        tables = sqlalchemy.inspect(connection).get_table_names()
        filled = schema.has_optuna_tables(connection)
        yield from postgres.server(connection, tables=tables, filled=filled)
    return filled
