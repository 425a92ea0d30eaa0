"""The history of a run is read back as written."""

from pathlib import Path

import numpy as np
import pytest

from tlopt.training.loop import Epoch
from tlopt.training.metrics import Metrics
from tlopt.trial.history import History, history_file

VAL = Metrics(accuracy=0.5, balanced_accuracy=0.25, macro_f1=0.125, log_loss=1.5)


def epoch(index: int, *, measured: bool) -> Epoch:
    return Epoch(
        index=index,
        train_loss=2.0 - index,
        train_accuracy=0.5,
        val=VAL if measured else None,
        confusion=np.full((2, 2), index) if measured else None,
        seconds=1.0,
    )


@pytest.mark.parametrize("measured", [True, False])
def test_a_history_survives_its_file(tmp_path: Path, measured: bool) -> None:
    history = History.of([epoch(0, measured=measured), epoch(1, measured=measured)])
    file = history_file(tmp_path / "weights.safetensors")
    history.write(file)
    read = History.read(file)
    assert read.train_loss == history.train_loss == (2.0, 1.0)
    assert read.val == history.val
    assert (read.confusion is None) is not measured
    np.testing.assert_array_equal(read.confusion, history.confusion)


def test_the_confusion_is_the_last_epochs() -> None:
    assert History.of([epoch(0, measured=True), epoch(3, measured=True)]).confusion.tolist() == [
        [3, 3],
        [3, 3],
    ]


def test_curves_are_each_metric_by_epoch() -> None:
    history = History.of([epoch(0, measured=True), epoch(1, measured=True)])
    assert history.curves()["log_loss"] == [1.5, 1.5]


def test_without_validation_there_are_no_curves() -> None:
    assert History.of([epoch(0, measured=False)]).curves() == {}
