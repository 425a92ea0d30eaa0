"""Database tables: Optuna's, whose models are private, and tlopt's two.

This is the only module that depends on Optuna's schema; tests/test_optuna_facts.py fails if that changes.

`tlopt_leases` has one row per trial that is held by a worker or was lost with one: `token` is the holder's,
NULL without a holder; `beat` counts the holder's heartbeats. `tlopt_workers` has one row per worker.
"""

from pathlib import Path
from typing import Any

import optuna
import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from optuna.storages._rdb import models
from optuna.trial import TrialState
from sqlalchemy.dialects import postgresql, sqlite

from tlopt.errors import StorageError
from tlopt.storage.failures import TablesMissing

studies: Any = models.StudyModel.__table__
study_attrs: Any = models.StudyUserAttributeModel.__table__
trials: Any = models.TrialModel.__table__
params: Any = models.TrialParamModel.__table__
values: Any = models.TrialValueModel.__table__
user_attrs: Any = models.TrialUserAttributeModel.__table__
system_attrs: Any = models.TrialSystemAttributeModel.__table__
reports: Any = models.TrialIntermediateValueModel.__table__

COUNTED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING, TrialState.WAITING)
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)

_OPTUNA: tuple[Any, ...] = tuple(models.BaseModel.metadata.tables.values())
_version: Any = models.VersionInfoModel.__table__
_VERSION_TABLE: str = _version.name
_ALEMBIC_TABLE = "alembic_version"
_SHOWN = 5  # table names per message

_ours = sa.MetaData()

leases = sa.Table(
    "tlopt_leases",
    _ours,
    sa.Column("trial_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("study_id", sa.Integer, nullable=False, index=True),
    sa.Column("token", sa.String(32), unique=True),
    sa.Column("worker_id", sa.String(32)),
    sa.Column("beat", sa.BigInteger, nullable=False),
    sa.Column("crashes", sa.Integer, nullable=False),  # consecutive, without a new report
    sa.Column("crash_reports", sa.Integer, nullable=False),  # number of reports at the last crash
    sa.Column("cause", sa.Text, nullable=False),  # cause of the last crash
)

workers = sa.Table(
    "tlopt_workers",
    _ours,
    sa.Column("worker_id", sa.String(32), primary_key=True),
    sa.Column("name", sa.String(300), nullable=False),  # host:process
    sa.Column("machine", sa.String(100), nullable=False),  # scope of process ids; see `workers.Identity`
    sa.Column("pid", sa.BigInteger, nullable=False),
    sa.Column("born", sa.BigInteger, nullable=False),  # start of the process in ticks since boot
    sa.Column("device", sa.String(100), nullable=False),
    sa.Column("studies", sa.Text, nullable=False),  # comma-separated names
    sa.Column("doing", sa.Text, nullable=False),
    sa.Column("beat", sa.BigInteger, nullable=False),
    sa.Column("seen", sa.DateTime, nullable=False),  # UTC by the database's clock, for people only
)


def has_optuna_tables(connection: sa.Connection) -> bool:
    """Return whether Optuna's tables exist in the version of the installed Optuna.

    Raises:
        StorageError: they have another version, or the tables are another application's.
        TablesMissing: they are being restored (first tables, then rows, then keys).
    """
    inspector = sa.inspect(connection)
    names = set(inspector.get_table_names())
    _refuse_strangers(names, connection.dialect.name)
    if _VERSION_TABLE in names and not inspector.get_pk_constraint(_VERSION_TABLE)["constrained_columns"]:
        raise TablesMissing
    if not {_VERSION_TABLE, _ALEMBIC_TABLE} <= names:
        return False
    made = connection.execute(sa.select(_version.c.schema_version, _version.c.library_version)).first()
    revision = _migrations(connection).get_current_revision()
    if made is None or revision is None:
        return False
    _refuse_version(revision, made.schema_version, made.library_version)
    return {table.name for table in _OPTUNA} <= names


def has_tables(connection: sa.Connection) -> bool:
    """Like `has_optuna_tables`, but including tlopt's own tables."""
    return has_optuna_tables(connection) and set(_ours.tables) <= set(
        sa.inspect(connection).get_table_names()
    )


def create_tables(connection: sa.Connection) -> None:
    """Create missing tables, Optuna's and tlopt's, in the transaction of `connection`.

    Equivalent to `RDBStorage`, which needs two connections and several transactions.
    """
    models.BaseModel.metadata.create_all(connection)
    if connection.execute(sa.select(_version.c.schema_version)).first() is None:
        made = {"schema_version": models.SCHEMA_VERSION, "library_version": optuna.__version__}
        connection.execute(sa.insert(_version).values(version_info_id=1, **made))
    migrations = _migrations(connection)
    if migrations.get_current_revision() is None:
        migrations.stamp(_scripts(), "head")
    _ours.create_all(connection)


def restore_is_complete(connection: sa.Connection) -> bool:
    """Return whether no restore of the tables is under way, judged by their primary keys.

    `pg_restore` and SQL dumps create tables first, then rows, then keys.
    """
    inspector = sa.inspect(connection)
    names = set(inspector.get_table_names())
    wanted = [table.name for table in (*_OPTUNA, *_ours.tables.values())]
    return names.issuperset(wanted) and all(
        inspector.get_pk_constraint(name)["constrained_columns"] for name in wanted
    )


def _refuse_strangers(names: set[str], dialect: str) -> None:
    """Raise if the tables are another application's, which may share a server's database but not a file."""
    names = names - set(_ours.tables)
    if not names or _VERSION_TABLE in names:
        return
    in_our_place = names & {*(table.name for table in _OPTUNA), _ALEMBIC_TABLE}
    if dialect == "sqlite" or in_our_place:
        shown = sorted(in_our_place or names)
        more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
        raise StorageError(
            "the database belongs to another application: it has the tables"
            f" {', '.join(shown[:_SHOWN])}{more} and none of Optuna's; name another one with --storage"
        )


def _refuse_version(revision: str, schema_version: int, library_version: str) -> None:
    """Raise if the tables were made for another version of Optuna."""
    scripts = _scripts()
    if revision == scripts.get_current_head():
        return
    if revision in {script.revision for script in scripts.walk_revisions()}:
        raise StorageError(
            f"the database was made by Optuna {library_version} and has an older schema; with a copy of it at"
            " hand and no worker running: optuna storage upgrade --storage URL"
        )
    if schema_version == models.SCHEMA_VERSION and library_version == optuna.__version__:
        raise StorageError(
            f"another application keeps its table {_ALEMBIC_TABLE} in this database (revision {revision});"
            " name a database of its own with --storage or TLOPT_STORAGE"
        )
    raise StorageError(
        f"the database was made by Optuna {library_version}, which is later than the {optuna.__version__}"
        " installed here: pip install -U optuna"
    )


def _migrations(connection: sa.Connection) -> MigrationContext:
    return MigrationContext.configure(connection)


def _scripts() -> ScriptDirectory:
    return ScriptDirectory(str(Path(models.__file__).with_name("alembic")))


def stored_report(value: float) -> tuple[float | None, Any]:
    """A reported value as stored in the table `reports`: number and kind."""
    stored, kind = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr(value)
    return stored, kind


def insert(engine: sa.Engine, table: Any) -> Any:
    """An INSERT with ON CONFLICT support, which is specific to the dialect."""
    return (sqlite if engine.dialect.name == "sqlite" else postgresql).insert(table)


def utc_now(engine: sa.Engine) -> Any:
    """SQL expression for the database's clock in UTC, without time zone."""
    if engine.dialect.name == "sqlite":
        return sa.func.datetime("now")
    return sa.func.timezone("UTC", sa.func.now())


def whole(value: Any, default: int = 0) -> int:
    """`value` if it is a whole number, else `default`: an SQLite column takes anything from anybody."""
    return value if type(value) is int else default


def epoch_seconds(executor: Any, engine: sa.Engine) -> float:
    """Time by the database's clock in seconds since 1970."""
    if engine.dialect.name == "sqlite":
        return float(executor.execute(sa.select(sa.func.julianday("now"))).scalar() - 2440587.5) * 86400
    return float(executor.execute(sa.select(sa.extract("epoch", sa.func.clock_timestamp()))).scalar())
