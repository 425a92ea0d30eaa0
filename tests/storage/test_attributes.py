"""A trial is read back as one record."""

from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from tlopt.storage import attributes as study_attributes
from tlopt.storage.attributes import TrialRecord

RESULT = {
    "outcome": "complete",
    "best_epoch": 1,
    "best_value": 0.75,
    "metrics": {"accuracy": 0.5, "log_loss": 0.7},
    "train_loss": 0.25,
    "seconds": 12.5,
    "cause": "",
}


def frozen(state: TrialState, user_attrs: dict[str, Any], value: float | None = None) -> FrozenTrial:
    steps = {0: 0.25, 2: 0.5, 1: 0.75} if state != TrialState.WAITING else {}
    return optuna.create_trial(state=state, value=value, user_attrs=user_attrs, intermediate_values=steps)


def test_a_finished_trial_is_read_whole() -> None:
    attributes = {
        study_attributes.TRIAL_RESULT: RESULT,
        study_attributes.POINT: {"lr": 0.1},
        study_attributes.LABEL: "linear probe",
        study_attributes.WORKER: {"worker": "node-1", "device": "cpu"},
    }

    record = TrialRecord.from_frozen(frozen(TrialState.COMPLETE, attributes, value=0.5))

    assert (record.value, record.best_epoch, record.best_value) == (0.5, 1, 0.75)
    assert (record.metrics["log_loss"], record.train_loss, record.seconds) == (0.7, 0.25, 12.5)
    assert (record.point, record.label) == (
        {
            "classifier": "network",
            "backbone_depth": 0,
            "neck_layers": 0,
            "neck_width": 256,
            "neck_kernel": 3,
            "neck_convolution": "plain",
            "activation": "relu",
            "norm_depth": 0,
            "norm_affine": "train",
            "train_images": 0,
            "label_noise": 0.0,
            "lr": 0.1,
        },
        "linear probe",
    )
    assert (record.worker, record.device, record.last_epoch) == ("node-1", "cpu", 2)


@pytest.mark.parametrize(
    ("state", "value", "outcome"),
    [
        (TrialState.WAITING, None, "waiting"),
        (TrialState.RUNNING, None, "running"),
        (TrialState.COMPLETE, 0.5, "added"),
        (TrialState.PRUNED, 0.5, "added"),
        (TrialState.FAIL, None, "failed"),
    ],
)
def test_a_trial_that_no_worker_ran_is_called_by_its_state_or_added(
    state: TrialState, value: float | None, outcome: str
) -> None:
    record = TrialRecord.from_frozen(frozen(state, {}, value))

    assert (record.outcome, record.value, record.point, record.label) == (outcome, value, None, "")


def test_a_pruned_trial_is_called_by_what_ended_it() -> None:
    result = {"outcome": "out_of_memory", "cause": "batch_size 512 at 224 px"}

    record = TrialRecord.from_frozen(frozen(TrialState.PRUNED, {study_attributes.TRIAL_RESULT: result}))

    assert (record.outcome, record.cause) == ("out_of_memory", "batch_size 512 at 224 px")


def test_a_trial_under_way_has_no_outcome_yet() -> None:
    record = TrialRecord.from_frozen(frozen(TrialState.RUNNING, {study_attributes.TRIAL_RESULT: RESULT}))

    assert record.outcome == "running"


@pytest.mark.parametrize("value", ["x", 5, None, ["a"], {"metrics": 5, "point": 5}])
@pytest.mark.parametrize(
    "key",
    [
        study_attributes.POINT,
        study_attributes.TRIAL_RESULT,
        study_attributes.WORKER,
        study_attributes.NOTES,
        study_attributes.CARRIED,
        study_attributes.ORIGIN,
    ],
)
def test_values_that_other_software_set_count_as_absent(key: str, value: object) -> None:
    record = TrialRecord.from_frozen(frozen(TrialState.PRUNED, {key: value}))
    assert (record.metrics, record.worker, record.best_epoch) == ({}, "", None)
    assert record.notes == (("a",) if key == study_attributes.NOTES and value == ["a"] else ())
