"""Progress without a terminal: lines with the current work, its progress and the time so far."""

import io
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import tiny
from finished import make_point, make_row, make_verdict
from rich.console import Console

from tlopt.analysis.snapshot import Snapshot, WorkerRow
from tlopt.app import progress
from tlopt.storage import attributes
from tlopt.storage.attributes import TrialRecord
from tlopt.storage.commands import Command

STUDY = tiny.study("lr = 0.1", trials=2)


def record(number: int, value: float) -> TrialRecord:
    """A complete trial of 60 seconds."""
    given = {attributes.TRIAL_RESULT: {"seconds": 60.0}, attributes.POINT: make_point().as_dict()}
    return replace(TrialRecord.from_frozen(optuna.create_trial(value=value, user_attrs=given)), number=number)


def seen(**changes: Any) -> Snapshot:
    usual = {"study": STUDY, "command": Command(), "trials": (), "workers": ()}
    return Snapshot(**{**usual, **changes})


def worker() -> WorkerRow:
    return WorkerRow(
        name="here:1", device="cpu", study="planted", trial=1, epoch=0, epochs=5, step=0, steps=0,
        silent_seconds=0.0,
    )  # fmt: skip


def lines(*snapshots: Snapshot) -> list[str]:
    text = io.StringIO()
    progress.show_progress(snapshots, Console(file=text, width=200))
    return text.getvalue().splitlines()


@pytest.fixture(autouse=True)
def _every_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)


def test_the_time_before_the_first_trial_is_accounted_for() -> None:
    measuring, starting = seen(doing="measuring"), seen(doing="starting 2 workers")

    shown = lines(measuring, measuring, starting, starting, seen())

    assert shown[:2] == ["search: measuring", "search: starting 2 workers"]
    assert shown[2].startswith("search: 0/2 trials")


def test_a_line_has_the_best_trial_once_and_the_time_to_the_end() -> None:
    (shown,) = lines(seen(trials=(record(0, 0.79),), workers=(worker(),)))

    assert shown.startswith("search: 1/2 trials; best so far: 79.0 % (trial 0, keep")
    assert shown.endswith("about 14.0 minutes left, 13.0 minutes of it for the confirmation)")


def test_a_confirmation_counts_runs_and_numbers_candidates_only() -> None:
    rows = [make_row("trial 12", (0.99, 0.80), number=12), make_row("trial 7", (0.92, 0.94), number=7)]
    going = seen(
        trials=(record(12, 0.9), record(7, 0.9)),
        runs=(record(14, 0.99),),
        verdict=replace(make_verdict(rows), n_finished=4),
        stage="confirm",
    )

    (shown,) = lines(going)

    assert shown.startswith(
        "confirm: 4/9 runs; leading so far: trial 7, 93.0 % on validation over 2 of 3 seeds"
    )
    assert "14" not in shown


def test_a_final_training_tells_training_accuracy() -> None:
    text = io.StringIO()
    epoch: Any = SimpleNamespace(index=0, train_loss=0.5, train_accuracy=0.949, seconds=2.0)

    progress.follow_training([epoch], Console(file=text, width=200))

    assert text.getvalue() == "epoch 1: training loss 0.5000, training accuracy 94.9 %, 2.0 s\n"
