"""The tables below a study: Optuna's, which have no public names, and the two of ours beside them.

The one module that knows Optuna's schema; tests/test_optuna_facts.py fails when it changes.

`tlopt_leases` has one row for each trial that a worker holds or was lost with: `token` is the holder's, NULL
while nobody has it; `beat` is counted up by the holder. `tlopt_workers` has one row for each worker.
"""

from typing import Any

import sqlalchemy as sa
from optuna.storages._rdb import models
from optuna.trial import TrialState
from sqlalchemy.dialects import postgresql, sqlite

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

_ours = sa.MetaData()

leases = sa.Table(
    "tlopt_leases",
    _ours,
    sa.Column("trial_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("study_id", sa.Integer, nullable=False, index=True),
    sa.Column("token", sa.String(32), unique=True),
    sa.Column("worker_id", sa.String(32)),
    sa.Column("beat", sa.BigInteger, nullable=False),
    sa.Column("crashes", sa.Integer, nullable=False),  # in a row without a new report
    sa.Column("crash_reports", sa.Integer, nullable=False),  # the trial had at the last of them
    sa.Column("cause", sa.Text, nullable=False),  # of the last crash
)

workers = sa.Table(
    "tlopt_workers",
    _ours,
    sa.Column("worker_id", sa.String(32), primary_key=True),
    sa.Column("name", sa.String(300), nullable=False),  # host:process
    sa.Column("machine", sa.String(100), nullable=False),  # where process numbers mean the same
    sa.Column("pid", sa.BigInteger, nullable=False),
    sa.Column("born", sa.BigInteger, nullable=False),  # the process's start, in the machine's ticks
    sa.Column("device", sa.String(100), nullable=False),
    sa.Column("studies", sa.Text, nullable=False),  # their names, comma between
    sa.Column("doing", sa.Text, nullable=False),
    sa.Column("beat", sa.BigInteger, nullable=False),
    sa.Column("seen", sa.DateTime, nullable=False),  # UTC by the database's clock; for people only
)


def are_there(connection: sa.Connection) -> bool:
    """Whether Optuna's tables and ours are there, of whatever version."""
    inspector = sa.inspect(connection)
    names = (*_ours.tables, models.VersionInfoModel.__tablename__, "alembic_version")
    return all(inspector.has_table(name) for name in names)


def create_ours(engine: sa.Engine) -> None:
    """Make our tables where they are missing."""
    _ours.create_all(engine)


def stored_report(value: float) -> tuple[float | None, Any]:
    """A reported value as the table `reports` holds it: number and kind."""
    stored, kind = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr(value)
    return stored, kind


def insert(engine: sa.Engine, table: Any) -> Any:
    """An insertion that knows conflicts, which SQL has in dialects only."""
    return (sqlite if engine.dialect.name == "sqlite" else postgresql).insert(table)


def utc_now(engine: sa.Engine) -> Any:
    """The database's clock as an SQL expression, without a zone."""
    if engine.dialect.name == "sqlite":
        return sa.func.datetime("now")
    return sa.func.timezone("UTC", sa.func.now())


def epoch_seconds(executor: Any, engine: sa.Engine) -> float:
    """The database's clock in seconds since 1970."""
    if engine.dialect.name == "sqlite":
        return float(executor.execute(sa.select(sa.func.julianday("now"))).scalar() - 2440587.5) * 86400
    return float(executor.execute(sa.select(sa.extract("epoch", sa.func.clock_timestamp()))).scalar())
