"""The time that `check` states, from planted costs."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import tiny

from tlopt.app import estimate
from tlopt.propose.budget import SEEDS, ImageCounts, Size, Terms, minutes
from tlopt.training import timing
from tlopt.training.timing import Machine, TrainingCost

COST = TrainingCost(full=0.02, half=0.01, frozen=0.005, build=1.0)


def terms(resolution: int, *, n_test: int, n_trained_defaults: int) -> Terms:
    """100 training images of three classes at one resolution, and two workers."""
    return Terms(
        costs={resolution: COST},
        counts=ImageCounts(train=100, val=20, test=n_test),
        n_workers=2,
        n_classes=3,
        n_trained_defaults=n_trained_defaults,
        minutes_max=float("inf"),
    )


def test_the_time_is_that_of_the_proposals_own_reckoning(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def costs(weights: Any, resolutions: list[int], **settings: Any) -> dict[int, TrainingCost]:
        asked.append((resolutions, settings["batch_size"]))
        return {resolutions[0]: COST}

    machine = Machine(device="cpu", device_name="a CPU", n_devices=1, n_cores=2)
    monkeypatch.setattr(timing, "measure_costs", costs)
    monkeypatch.setattr(timing, "detect_machine", lambda: machine)
    study = tiny.study(
        "resolution = { choice = [64, 96] }\nbatch_size = 16",
        more=f"[confirm]\npoints = 2\nseeds = {2 * SEEDS}",
    )
    split = SimpleNamespace(train=range(100), val=range(20))
    data = SimpleNamespace(splits=[split, split], n_trial_splits=2, n_test=30)
    workspace: Any = SimpleNamespace(
        data=data, weights={"large": SimpleNamespace(resolution=224)}, n_classes=3, facts=tiny.facts()
    )

    size = Size(resolution=96, repeats=2, trials=60, epochs=30, points=2, seeds=2 * SEEDS)
    expected = minutes(size, terms(96, n_test=30, n_trained_defaults=2))
    assert estimate.expected_minutes(study, workspace) == (expected, 1.0)
    assert asked == [([96], 16)]
    (line,) = estimate.duration_lines(study, workspace)
    assert "with 2 workers on this machine, confirmation included" in line


def test_prunings_take_the_time_of_full_fine_tuning_each_on_one_worker() -> None:
    two_workers = terms(64, n_test=0, n_trained_defaults=1)
    one_stage = Size(resolution=64, repeats=1, trials=20, epochs=5, points=2)

    def seconds(*epochs: int) -> float:
        with_prunings = replace(one_stage, pruning_epochs=epochs)
        return 60 * (minutes(with_prunings, two_workers) - minutes(one_stage, two_workers))

    start, epoch, build = 8, 100 * 0.02 + 20 * 0.005, 1
    assert seconds() == 0
    assert seconds(8) == pytest.approx(start + build + 8 * epoch)
    assert seconds(8, 8, 8) == pytest.approx(start + 1.5 * (build + 8 * epoch))


def test_the_time_of_a_run_has_its_prunings_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "expected_minutes", lambda *_: (10.0, 1.0))
    table = '[prune]\nparameters = [0.5, 0.3]\ncriterion = ["history"]\nrounds = 3'
    study = tiny.study("", more=table)

    (line,) = estimate.duration_lines(study, SimpleNamespace())  # type: ignore[arg-type]

    assert line.endswith("on this machine, confirmation and prunings included")
    assert estimate.pruning_epochs(study) == (120, 120), "a history of 30 epochs and 3 rounds of as many"
    assert estimate.pruning_epochs(tiny.study("", more=f"{table}\nepochs = 2")) == (8, 8)


def test_a_busy_machine_is_named_beside_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "expected_minutes", lambda *_: (10.0, 2.5))

    time, note = estimate.duration_lines(tiny.study(""), SimpleNamespace())  # type: ignore[arg-type]

    assert "about 10.0 minutes" in time
    assert note == (
        "  note: the machine is busy with other programs: training took 2.5 times as long as it needs by"
        " itself; if it stays so, the study takes about 25 minutes"
    )


@pytest.mark.parametrize(
    ("classifier", "n"),
    [('"svm"', 60), ('{ choice = ["network", "logistic", "svm"] }', 2), ('"network"', 0)],
)
def test_linear_classifiers_among_the_trials_are_counted(classifier: str, n: int) -> None:
    study = tiny.study(f"classifier = {classifier}")

    assert study.budget.trials == 60
    assert estimate._n_linear(study, tiny.facts()) == n


def test_a_grid_is_neither_confirmed_nor_pruned_in_the_time_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "expected_minutes", lambda *_: (10.0, 1.0))
    grid = tiny.study(
        "freeze_depth = { choice = [0, 17] }", trials=6, more='[sampler]\nkind = "grid"\nrepeats = 3'
    )
    (line,) = estimate.duration_lines(grid, SimpleNamespace())  # type: ignore[arg-type]

    assert line.endswith("on this machine, without a confirmation")
    assert not estimate.prunes(grid)
    assert not estimate.prunes(tiny.study("", more='[pruner]\nkind = "none"'))
    assert estimate.prunes(tiny.study(""))
