"""Planted studies for reports: Optuna trials with our records, in memory."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import optuna
from finished import make_point
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from tlopt import spec
from tlopt.analysis.snapshot import Snapshot
from tlopt.confirmation.verdict import Verdict
from tlopt.reports.data import Report, collect_report
from tlopt.storage import attributes as study_attributes
from tlopt.storage.attributes import TrialRecord
from tlopt.storage.commands import Command

BLOCKS = 9
START = datetime(2026, 11, 20, 8, 0)
CREATED = datetime(2026, 11, 25, 12, 30, tzinfo=UTC)
IMAGES = {
    "class_names": ["rose", "tulip"],
    "n_classes": 2,
    "n_train": 1234,
    "n_val": 321,
    "n_splits": 1,
    "n_test": 456,
}
DISTRIBUTIONS: dict[str, Any] = {
    "transfer_depth": IntDistribution(0, BLOCKS),
    "freeze_depth": IntDistribution(0, BLOCKS),
    "lr": FloatDistribution(1e-5, 1.0, log=True),
    "l2_sp": FloatDistribution(1e-6, 1.0, log=True),
}


def text(*, objective: str = "accuracy", backbone: str = '"resnet18"', source: str = "photos") -> str:
    """A study file on depths, a rate and a pull that may be off."""
    return f"""
name = "flowers"
seed = 7
objective = "{objective}"
[data]
source = "{source}"
[model]
backbone = {backbone}
[budget]
trials = 60
epochs = 5
[search]
transfer_depth = {{ uniform = [0.0, 1.0] }}
freeze_depth = {{ uniform = [0.0, 1.0] }}
lr = {{ log = [1e-4, 1.0] }}
l2_sp = {{ log = [1e-4, 1.0], zero = true }}
"""


def trial(
    value: float | None,
    *,
    outcome: str = "complete",
    curve: Sequence[float] = (),
    seconds: float = 60.0,
    cause: str = "",
    minute: int = 0,
    label: str = "",
    **point: Any,
) -> FrozenTrial:
    """A trial that has ended, `minute` minutes after the first.

    Args:
        value: the objective, or None where there is none.
        curve: the objective after each epoch; default: `value` once.
        point: what its point differs in from a usual one.
    """
    full = make_point(**point).as_dict()
    drawn = {**{key: full[key] for key in DISTRIBUTIONS}, "l2_sp": full["l2_sp"] or 3e-5}
    reports = dict(enumerate(curve or ([] if value is None else [value])))
    result = {
        "outcome": outcome,
        "best_epoch": 0,
        "best_value": value,
        "metrics": {"log_loss": 0.5},
        "train_loss": 0.4,
        "seconds": seconds,
        "cause": cause,
    }
    attributes = {
        study_attributes.POINT: full,
        study_attributes.TRIAL_RESULT: result,
        study_attributes.LABEL: label,
    }
    planted = create_trial(
        state=TrialState.COMPLETE if outcome == "complete" else TrialState.PRUNED,
        value=value,
        params=drawn,
        distributions=DISTRIBUTIONS,
        intermediate_values=reports,
        user_attrs={key: value for key, value in attributes.items() if value},
    )
    planted.datetime_start = START
    planted.datetime_complete = START + timedelta(minutes=minute)
    return planted


def report(
    trials: Sequence[FrozenTrial],
    *,
    file_text: str = "",
    verdict: Verdict | None = None,
    images: Mapping[str, Any] = IMAGES,
    order: Command | None = None,
) -> Report:
    """The report on a study with these trials."""
    file_text = file_text or text()
    study = spec.loads(file_text, "flowers.toml")
    opened = optuna.create_study(study_name=study.name, direction=study.direction)
    fingerprints = {
        study_attributes.STUDY_FILE: file_text,
        study_attributes.IMAGES: dict(images),
        study_attributes.PREFIX + "data": "0123456789abcdef",
    }
    for name, value in fingerprints.items():
        opened.set_user_attr(name, value)
    opened.add_trials(trials)
    rows = tuple(map(TrialRecord.from_frozen, opened.get_trials(deepcopy=False)))
    seen = Snapshot(study=study, command=order or Command(), trials=rows, workers=())
    return collect_report(seen, opened, None, verdict, created=CREATED)
