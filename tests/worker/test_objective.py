"""The bridge: each epoch is reported once, the pruner is asked, and several splits count as one trial."""

import json
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import tiny
import torch
from safetensors.torch import load_file

from tlopt.errors import Diverged, OutOfMemory, TrialError
from tlopt.search.defaults import defaults
from tlopt.spec.point import Point
from tlopt.spec.trial_spec import TrialSpec
from tlopt.training.loop import Epoch, Step, steps
from tlopt.training.run import Run
from tlopt.trial import execution, feature_policy
from tlopt.trial.execution import begin_training, find_mistakes
from tlopt.trial.history import History, history_file
from tlopt.trial.workspace import Workspace
from tlopt.worker.objective import TrialContext, TrialResult, run_trial


class Always(optuna.pruners.BasePruner):
    """Prunes whenever it is asked, and counts that."""

    def __init__(self) -> None:
        self.asked = 0

    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        self.asked += 1
        return True


@pytest.fixture
def task(workshop: tiny.Workshop) -> TrialSpec:
    """Plain fine-tuning for two epochs on the only split, prunable."""
    point = defaults(workshop.workspace.study, workshop.facts)[1].point
    return TrialSpec(point=point, seeds=(3,), splits=(0,), label="", prunable=True)


@pytest.fixture
def run(workshop: tiny.Workshop, tmp_path: Path) -> Callable[..., TrialResult]:
    def run_task(
        task: TrialSpec,
        trial: optuna.Trial | None = None,
        objective: str = "accuracy",
        context: TrialContext | None = None,
    ) -> TrialResult:
        study = workshop.workspace.study.model_copy(update={"objective": objective})
        workspace = replace(workshop.workspace, study=study)
        asked = trial or optuna.create_study(pruner=optuna.pruners.NopPruner()).ask()
        log = tmp_path / "log.jsonl"
        return run_trial(asked, task, workspace, context=context or tiny.context(log=log))

    return run_task


def test_each_epoch_is_reported_from_step_zero(
    task: TrialSpec, run: Callable[..., TrialResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.plant(monkeypatch, lambda point: [0.25, 0.75])
    study = optuna.create_study()

    run(task, study.ask())

    assert study.trials[0].intermediate_values == {0: 0.25, 1: 0.75}


@pytest.mark.parametrize(("objective", "value"), [("accuracy", 0.75), ("macro_f1", 0.75), ("log_loss", 0.25)])
def test_the_objective_is_what_is_reported(
    objective: str,
    value: float,
    task: TrialSpec,
    run: Callable[..., TrialResult],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tiny.plant(monkeypatch, lambda point: [0.5, 0.75])
    study = optuna.create_study()

    result = run(task, study.ask(), objective)

    assert (result.value, study.trials[0].intermediate_values[1]) == (value, value)


def test_a_pruner_stops_a_trial_after_the_epoch_it_saw(
    task: TrialSpec, run: Callable[..., TrialResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.plant(monkeypatch, lambda point: [0.25, 0.75])
    study = optuna.create_study(pruner=Always())

    result = run(task, study.ask())

    assert (result.outcome, result.value, result.cause) == ("pruned", None, "pruned after epoch 1")
    assert (result.best_value, len(result.epochs)) == (0.25, 1)


def test_a_trial_is_not_pruned_after_its_last_epoch(
    task: TrialSpec, run: Callable[..., TrialResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.plant(monkeypatch, lambda point: [0.25])
    pruner = Always()

    result = run(replace(task, point=replace(task.point, epochs=1)), optuna.create_study(pruner=pruner).ask())

    assert (result.outcome, pruner.asked) == ("complete", 0)


def test_the_pruner_is_not_asked_about_a_trial_that_is_not_prunable(
    task: TrialSpec, run: Callable[..., TrialResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.plant(monkeypatch, lambda point: [0.25, 0.75])
    pruner = Always()

    result = run(replace(task, prunable=False), optuna.create_study(pruner=pruner).ask())

    assert (result.outcome, pruner.asked) == ("complete", 0)


def test_epochs_that_were_reported_before_are_trained_and_not_reported_again(
    task: TrialSpec, run: Callable[..., TrialResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Optuna warns at a second report, and warnings are errors here."""
    tiny.plant(monkeypatch, lambda point: [0.25, 0.75])
    study = optuna.create_study()
    trial = study.ask()
    trial.report(0.25, 0)

    result = run(task, trial)

    assert len(result.epochs) == 2
    assert study.trials[0].intermediate_values == {0: 0.25, 1: 0.75}


# Several splits


def test_a_trial_on_several_splits_has_the_mean_of_its_runs(
    task: TrialSpec, run: Callable[..., TrialResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    curves = iter([[0.25, 0.5], [0.75, 1.0]])
    tiny.plant(monkeypatch, lambda point: next(curves))

    result = run(replace(task, seeds=(3, 4), splits=(0, 0)))

    assert [epoch.val for epoch in result.epochs] == [tiny.metrics(0.5), tiny.metrics(0.75)]
    assert result.epochs[0].seconds == 0.5
    assert result.epochs[0].confusion is not None
    assert result.epochs[0].confusion.tolist() == [[2, 0, 0], [0, 2, 0], [0, 0, 2]]


def test_each_run_trains_with_its_seed_on_its_split(
    task: TrialSpec, run: Callable[..., TrialResult], monkeypatch: pytest.MonkeyPatch, workshop: tiny.Workshop
) -> None:
    seen = []
    split = workshop.workspace.data.splits[0]

    def fit(seed: int, images: object, train: object, val: object, kept: object) -> Iterator[Epoch]:
        seen.append((seed, train is split.train, val is split.val))
        yield tiny.epoch(0, 0.5)

    def start(workspace: object, point: Point, *, seed: int, train: object, n_micro_batches: int) -> int:
        return seed

    monkeypatch.setattr(execution, "steps", fit)
    monkeypatch.setattr(Workspace, "start_run", start)
    monkeypatch.setattr(Workspace, "feature_store", lambda *_, **__: None)

    run(replace(task, seeds=(3, 4), splits=(0, 0)))

    assert seen == [(3, True, True), (4, True, True)]


# How it ends


def test_what_was_measured_before_a_trial_diverged_is_kept(
    task: TrialSpec, run: Callable[..., TrialResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks_off(point: Point) -> Iterator[float]:
        yield 0.5
        raise Diverged("epoch 2: the mean training loss is inf")

    tiny.plant(monkeypatch, breaks_off)

    result = run(task)

    assert (result.outcome, result.cause) == ("diverged", "epoch 2: the mean training loss is inf")
    assert (result.value, result.best_value, result.best_epoch) == (None, 0.5, 0)


def test_a_trial_that_does_not_fit_is_tried_in_smaller_pieces_before_it_is_given_up(
    task: TrialSpec, run: Callable[..., TrialResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def fits_from_four_pieces_on(n_micro_batches: int, *_: object) -> Iterator[Epoch]:
        tried.append(n_micro_batches)
        yield tiny.epoch(0, 0.5)
        if n_micro_batches < 4:
            raise OutOfMemory("2 GiB wanted")
        yield tiny.epoch(1, 0.75)

    def start(workspace: object, point: Point, *, seed: int, train: object, n_micro_batches: int) -> int:
        return n_micro_batches

    monkeypatch.setattr(execution, "steps", fits_from_four_pieces_on)
    monkeypatch.setattr(Workspace, "start_run", start)
    monkeypatch.setattr(Workspace, "feature_store", lambda *_, **__: None)
    notes: list[str] = []
    study = optuna.create_study(pruner=optuna.pruners.NopPruner())

    result = run(task, study.ask(), context=tiny.context(notes=notes))

    assert (tried, result.outcome, result.n_micro_batches, result.value) == ([1, 2, 4], "complete", 4, 0.75)
    assert [note.split(": ")[1] for note in notes] == [
        f"batches are split into {n} from now on (2 GiB wanted)" for n in (2, 4)
    ]


def test_what_is_kept_for_speed_leaves_the_device_before_a_batch_is_cut(
    task: TrialSpec, workshop: tiny.Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = workshop.workspace.on_device(torch.device("cpu"))
    frozen = replace(task, point=replace(task.point, freeze_depth=12))
    notes: list[str] = []
    residents: list[int] = []

    def ends(notes: list[str]) -> TrialResult:
        trial = optuna.create_study(pruner=optuna.pruners.NopPruner()).ask()
        log = tmp_path / "log.jsonl"
        return run_trial(trial, frozen, workspace, context=tiny.context(log=log, notes=notes))

    def fits_alone(run: Run, *arguments: Any) -> Iterator[Step | Epoch]:
        kept = arguments[-1]
        for event in steps(run, *arguments):
            residents.append(kept.resident_bytes)
            if kept.resident_bytes:
                raise OutOfMemory("2 GiB wanted")
            yield event

    undisturbed = ends([])
    with monkeypatch.context() as patch:
        patch.setattr(execution, "steps", fits_alone)
        crowded = ends(notes)
    again = ends([])

    assert residents[0] > 0
    assert not any(residents[1:])
    assert notes == ["out of memory: images and features are moved off the device (2 GiB wanted)"]
    assert (crowded.outcome, crowded.n_micro_batches, crowded.value) == ("complete", 1, undisturbed.value)
    assert again.value == undisturbed.value
    (store,) = workspace.feature_stores
    assert store is not None
    assert store.resident_bytes > 0


def test_features_for_which_there_is_no_memory_are_not_kept_and_end_no_trial(
    task: TrialSpec, workshop: tiny.Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    monkeypatch.setattr(feature_policy, "_measure", refuse)

    assert (
        begin_training(task, workshop.workspace.on_device(torch.device("cpu")), n_micro_batches=1).features
        is None
    )


def test_a_trial_that_fits_in_no_pieces_is_out_of_memory(
    task: TrialSpec, run: Callable[..., TrialResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def never(n_micro_batches: int, *_: object) -> Iterator[Epoch]:
        tried.append(n_micro_batches)
        raise OutOfMemory("2 GiB wanted")
        yield

    monkeypatch.setattr(execution, "steps", never)
    monkeypatch.setattr(
        Workspace, "start_run", lambda workspace, point, *, seed, train, n_micro_batches: n_micro_batches
    )
    monkeypatch.setattr(Workspace, "feature_store", lambda *_, **__: None)

    result = run(replace(task, point=replace(task.point, batch_size=8)))

    assert (result.outcome, result.cause, tried) == ("out_of_memory", "2 GiB wanted", [1, 2, 4])


def test_nothing_of_an_attempt_without_memory_is_kept_for_the_next(
    task: TrialSpec, run: Callable[..., TrialResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    networks: list[weakref.ref[torch.nn.Module]] = []
    kept: list[int] = []

    sound = Workspace.start_run

    def start(*arguments: Any, **keywords: Any) -> Run:
        kept.append(sum(network() is not None for network in networks))
        made = sound(*arguments, **keywords)
        networks.append(weakref.ref(made.network))
        return made

    def never(run: Run, *_: object) -> Iterator[Epoch]:
        raise OutOfMemory("2 GiB wanted")
        yield

    monkeypatch.setattr(Workspace, "start_run", start)
    monkeypatch.setattr(Workspace, "feature_store", lambda *_, **__: None)
    monkeypatch.setattr(execution, "steps", never)

    run(task)

    assert kept == [0, 0, 0, 0]
    assert [network() for network in networks] == [None] * 4


def test_a_trial_that_works_for_too_long_is_timed_out(
    task: TrialSpec, run: Callable[..., TrialResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.plant(monkeypatch, lambda point: [0.5, 0.75])

    result = run(task, context=tiny.context(trial_seconds_max=1e-9))

    assert (result.outcome, result.value, len(result.epochs)) == ("timed_out", None, 1)
    assert result.cause == "more than 1e-09 s of work, after 1 epoch"


def test_an_outcome_nobody_knows_is_a_programming_error(
    task: TrialSpec, run: Callable[..., TrialResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks_off(point: Point) -> Sequence[float]:
        raise TrialError("something new")

    tiny.plant(monkeypatch, breaks_off)

    with pytest.raises(TrialError, match="something new"):
        run(task)


def test_the_generators_are_closed_when_a_trial_is_pruned(
    task: TrialSpec, run: Callable[..., TrialResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = []

    def watched(point: Point) -> Iterator[float]:
        try:
            yield 0.5
            yield 0.5
        finally:
            closed.append(True)

    tiny.plant(monkeypatch, watched)

    run(task, optuna.create_study(pruner=Always()).ask())

    assert closed == [True]


def test_the_record_of_a_result_is_json(
    task: TrialSpec, run: Callable[..., TrialResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.plant(monkeypatch, lambda point: [0.25, 0.75])

    result = run(task)

    values: dict[str, Any] = json.loads(json.dumps(result.as_dict()))
    assert values == result.as_dict()


# On real images


def test_a_complete_trial_leaves_its_weights_and_its_history(
    task: TrialSpec, run: Callable[..., TrialResult], workshop: tiny.Workshop, tmp_path: Path
) -> None:
    file = tmp_path / "folder" / "weights.safetensors"

    result = run(replace(task, weights_file=file, prunable=False))

    fresh = workshop.workspace.start_run(task.point, seed=3, train=workshop.workspace.data.splits[0].train)
    assert load_file(file).keys() == fresh.network.net.state_dict().keys()
    assert History.read(history_file(file)).train_loss == tuple(e.train_loss for e in result.epochs)
    assert len(list(file.parent.iterdir())) == 2  # no unfinished file stays


def test_the_surest_mistakes_come_first_with_their_pictures(
    task: TrialSpec, workshop: tiny.Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = begin_training(task, workshop.workspace, n_micro_batches=1)
    val = workshop.workspace.data.splits[0].val
    labels = at.images.labels[val]
    logits = np.zeros((len(val), 3), dtype=np.float32)
    logits[np.arange(len(val)), labels] = 9.0  # right, and surer than the mistakes
    for place, sureness in ((1, 2.0), (3, 4.0), (4, 1.0)):
        logits[place] = 0.0
        logits[place, (labels[place] + 1) % 3] = sureness
    monkeypatch.setattr(execution, "predict_logits", lambda *_: logits)

    found, two = find_mistakes(at, 12), find_mistakes(at, 2)

    assert found.labels.tolist() == labels[[3, 1, 4]].tolist()
    assert found.predicted.tolist() == ((labels[[3, 1, 4]] + 1) % 3).tolist()
    assert found.probability.tolist() == pytest.approx([np.exp(s) / (np.exp(s) + 2) for s in (4.0, 2.0, 1.0)])
    assert np.array_equal(found.pictures, at.images.eval_pixels[val[[3, 1, 4]]])
    assert two.labels.tolist() == labels[[3, 1]].tolist()


def test_processor_time_is_recorded_beside_wall_time(
    task: TrialSpec, run: Callable[..., TrialResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution.TrialRun, "processor_seconds", property(lambda at: 12.5))
    tiny.plant(monkeypatch, lambda point: [0.5, 0.75])

    assert run(task).as_dict()["processor_seconds"] == 12.5
