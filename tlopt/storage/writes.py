"""SQL for writing attributes, parameters and reports in few statements."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.trial import TrialState

from tlopt.storage.leases import Executor, LeaseLost
from tlopt.storage.schema import (
    insert,
    leases,
    params,
    reports,
    stored_report,
    studies,
    study_attrs,
    system_attrs,
    trials,
    user_attrs,
)


def lock_study(executor: Executor, study_id: int) -> None:
    """Lock the study's row until the transaction ends, so that nobody else creates or takes a trial."""
    executor.execute(sa.select(studies.c.study_id).where(studies.c.study_id == study_id).with_for_update())


def study_attributes(executor: Executor, study_id: int) -> dict[str, Any]:
    """The user attributes of a study, by key."""
    rows = executor.execute(
        sa.select(study_attrs.c.key, study_attrs.c.value_json).where(study_attrs.c.study_id == study_id)
    )
    return {row.key: json.loads(row.value_json) for row in rows}


def set_study_attributes(
    executor: Executor, engine: sa.Engine, study_id: int, values: Mapping[str, Any]
) -> None:
    """Store user attributes of a study, replacing existing values."""
    rows = [{"study_id": study_id, "key": k, "value_json": json.dumps(v)} for k, v in values.items()]
    statement = insert(engine, study_attrs).values(rows)
    executor.execute(
        statement.on_conflict_do_update(
            index_elements=["study_id", "key"], set_={"value_json": statement.excluded.value_json}
        )
    )


class AlreadyAdded(Exception):
    """The study has the trial that was to be added."""


def refuse_second(executor: Executor, study_id: int, key: str, value: Any) -> None:
    """Raise if two trials of the study have the user attribute `key` = `value`; the study's row is locked.

    Raises:
        AlreadyAdded: they have.
    """
    rows = executor.execute(
        sa.select(user_attrs.c.value_json)
        .join(trials, trials.c.trial_id == user_attrs.c.trial_id)
        .where(trials.c.study_id == study_id, user_attrs.c.key == key)
    )
    if sum(json.loads(row.value_json) == value for row in rows) > 1:
        raise AlreadyAdded


@dataclass
class Draft:
    """Parameters and attributes of one trial that are not written yet."""

    params: dict[str, tuple[float, BaseDistribution]] = field(default_factory=dict)
    user_attrs: dict[str, Any] = field(default_factory=dict)
    system_attrs: dict[str, Any] = field(default_factory=dict)


def write_draft(executor: Executor, engine: sa.Engine, trial_id: int, what: Draft) -> None:
    """Write a draft; as in Optuna, a parameter that has a value keeps it."""
    if what.params:
        rows = [
            {
                "trial_id": trial_id,
                "param_name": name,
                "param_value": value,
                "distribution_json": distribution_to_json(distribution),
            }
            for name, (value, distribution) in what.params.items()
        ]
        statement = insert(engine, params).values(rows)
        executor.execute(statement.on_conflict_do_nothing(index_elements=["trial_id", "param_name"]))
    for table, attrs in ((user_attrs, what.user_attrs), (system_attrs, what.system_attrs)):
        if attrs:
            statement = insert(engine, table).values(
                [{"trial_id": trial_id, "key": k, "value_json": json.dumps(v)} for k, v in attrs.items()]
            )
            executor.execute(
                statement.on_conflict_do_update(
                    index_elements=["trial_id", "key"], set_={"value_json": statement.excluded.value_json}
                )
            )


def write_late_reports(
    executor: Executor, engine: sa.Engine, trial_id: int, values: Mapping[int, float]
) -> None:
    """Write reports by step in a transaction that has locked the lease."""
    for step, value in sorted(values.items()):
        stored, kind = stored_report(value)
        statement = insert(engine, reports).values(
            trial_id=trial_id, step=step, intermediate_value=stored, intermediate_value_type=kind
        )
        executor.execute(_or_replace(statement))


def write_intermediate_value(
    executor: Executor, engine: sa.Engine, trial_id: int, token: str, step: int, value: float
) -> None:
    """Write one report, checking lease and state in the same statement.

    Raises:
        LeaseLost: another worker holds the trial, or it no longer runs.
    """
    stored, kind = stored_report(value)
    columns = {"step": step, "intermediate_value": stored, "intermediate_value_type": kind}
    selected = [
        sa.cast(sa.literal(v, reports.c[name].type), reports.c[name].type) for name, v in columns.items()
    ]
    source = (
        sa.select(leases.c.trial_id, *selected)
        .join(trials, trials.c.trial_id == leases.c.trial_id)
        .where(
            leases.c.trial_id == trial_id,
            leases.c.token == token,
            trials.c.state == TrialState.RUNNING,
        )
        .with_for_update(of=leases)
    )
    statement = insert(engine, reports).from_select(["trial_id", *columns], source)
    if not executor.execute(_or_replace(statement)).rowcount:
        raise LeaseLost(f"the trial with id {trial_id} was given to another worker, or was ended")


def _or_replace(insert: Any) -> Any:
    return insert.on_conflict_do_update(
        index_elements=["trial_id", "step"],
        set_={
            "intermediate_value": insert.excluded.intermediate_value,
            "intermediate_value_type": insert.excluded.intermediate_value_type,
        },
    )
