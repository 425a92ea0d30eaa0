"""A worker meets the budget exactly, records every trial that it ends, and requeues the others."""

import errno
import json
import math
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import optuna_dashboard
import pytest
import tiny
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState

from tlopt.dashboard import note, study_figure
from tlopt.errors import DataError, Diverged, OutOfMemory, StorageError, Unwritable
from tlopt.plots import confusion, training
from tlopt.spec import SEMANTICS_VERSION
from tlopt.spec.point import Point
from tlopt.storage import attributes, commands, workers
from tlopt.storage.attributes import TrialRecord
from tlopt.storage.studies import open_storage
from tlopt.training.checkpoint_store import CheckpointStore
from tlopt.training.loop import Epoch, Step, steps
from tlopt.trial import execution
from tlopt.worker import claim, objective
from tlopt.worker.shutdown import Interrupt

Curve = Callable[[Point], Sequence[float]]
PROBE_LR, PLAIN_LR = 0.01, 0.001


@pytest.fixture
def place(
    tmp_path: Path, study_text: Callable[..., str], workshop: tiny.Workshop
) -> Callable[..., tiny.Place]:
    """A place for a worker; keywords as for `study_text`, and `head` for lines at the file's top."""

    def make(*, head: str = "", name: str = tmp_path.name, **changes: Any) -> tiny.Place:
        return tiny.place(
            tiny.lighter(study_text(name=name, **changes), head=head), workshop, tmp_path / "runs"
        )

    return make


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> Callable[[Curve], None]:
    """Trials train nothing from here on: their validation values are those of a curve."""

    def plant(curve: Curve) -> None:
        tiny.plant(monkeypatch, curve)

    return plant


def flat(value: float) -> Curve:
    return lambda point: [value] * point.epochs


def states(of: tiny.Place) -> list[TrialState]:
    return [trial.state for trial in of.trials]


def record(trial: FrozenTrial) -> TrialRecord:
    return TrialRecord.from_frozen(trial)


# The budget


def test_a_worker_trains_exactly_the_budget(place: Callable[..., tiny.Place]) -> None:
    here = place(trials=2, epochs=1)

    assert here.work() == 2
    assert states(here) == [TrialState.COMPLETE] * 2
    assert here.work() == 0


def test_pruned_and_untrainable_trials_count(
    place: Callable[..., tiny.Place], planted: Callable[[Curve], None]
) -> None:
    def curve(point: Point) -> Sequence[float]:
        if point.lr in (PROBE_LR, PLAIN_LR):
            return [0.9, 0.9]
        raise Diverged("epoch 0: the mean training loss is nan")

    here = place(trials=7)
    planted(curve)

    assert here.work() == 7
    assert states(here) == [TrialState.COMPLETE] * 2 + [TrialState.PRUNED] * 5


def test_a_raised_budget_is_gone_on_with(
    place: Callable[..., tiny.Place], planted: Callable[[Curve], None]
) -> None:
    planted(flat(0.5))
    place(trials=3).work()

    more = place(trials=5)

    assert more.work() == 2
    assert states(more) == [TrialState.COMPLETE] * 5


def test_hours_end_the_search(
    place: Callable[..., tiny.Place], planted: Callable[[Curve], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    planted(flat(0.5))
    here = place(trials=50, budget="hours = 2")
    began = here.opened.user_attrs[attributes.BEGAN]
    clock = iter([began + 3600 * hours + 1 for hours in range(4)])
    monkeypatch.setattr(claim, "epoch_seconds", lambda *_: next(clock))

    assert here.work() == 2


def test_a_trial_that_was_requeued_is_finished_after_hours(
    place: Callable[..., tiny.Place], planted: Callable[[Curve], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    planted(flat(0.5))
    here = place(trials=50, budget="hours = 2")
    trial = here.claim()
    assert trial is not None
    here.requeue(trial)
    late = here.opened.user_attrs[attributes.BEGAN] + 3 * 3600
    monkeypatch.setattr(claim, "epoch_seconds", lambda *_: late)

    assert here.work() == 1
    assert states(here) == [TrialState.COMPLETE]


def test_no_trial_is_claimed_past_the_budget(place: Callable[..., tiny.Place]) -> None:
    here = place(trials=2)

    claimed = [here.claim() for _ in range(3)]

    assert [None if trial is None else trial.number for trial in claimed] == [0, 1, None]
    assert states(here) == [TrialState.RUNNING] * 2


def test_enqueued_trials_are_taken_up_to_the_budget(
    place: Callable[..., tiny.Place], planted: Callable[[Curve], None]
) -> None:
    planted(flat(0.5))
    here = place(trials=2)
    for lr in (0.001, 0.002, 0.003):
        here.opened.enqueue_trial({"lr": lr})

    assert here.work() == 2
    assert states(here) == [TrialState.COMPLETE, TrialState.COMPLETE, TrialState.WAITING]
    assert [trial.params["lr"] for trial in here.trials[:2]] == [0.001, 0.002]


def test_a_withdrawn_trial_costs_no_budget(
    place: Callable[..., tiny.Place], planted: Callable[[Curve], None]
) -> None:
    planted(flat(0.5))
    here = place(trials=2)
    running = here.opened.ask()
    here.opened.tell(here.opened.ask(), state=TrialState.FAIL)
    here.opened.tell(running, state=TrialState.FAIL)

    assert here.work() == 2


# Other calls to Optuna beside a worker


@pytest.mark.parametrize(
    "given", [{"lr": "abc"}, {"lr": None}, {"lr": 7.0}, {"lrr": 0.01}, {"freeze_depth": math.nan}]
)
def test_an_enqueued_trial_that_cannot_be_ends_with_its_cause_and_costs_no_budget(
    given: dict[str, Any], place: Callable[..., tiny.Place], planted: Callable[[Curve], None]
) -> None:
    planted(flat(0.5))
    here = place(trials=2)
    here.opened.enqueue_trial(given)

    assert here.work() == 3
    assert states(here) == [TrialState.FAIL, TrialState.COMPLETE, TrialState.COMPLETE]
    refused = record(here.trials[0])
    (key,) = given
    assert (refused.outcome, refused.cause.split(" = ")[0], refused.counts) == ("refused", key, False)
    assert [record(trial).label for trial in here.trials[1:]] == ["linear probe", "plain fine-tuning"]


def test_enqueued_parameters_that_are_no_table_are_refused(
    place: Callable[..., tiny.Place], planted: Callable[[Curve], None]
) -> None:
    planted(flat(0.5))
    here = place(trials=1)
    stored = {"fixed_params": 7}
    here.opened.add_trial(optuna.create_trial(state=TrialState.WAITING, system_attrs=stored))

    assert here.work() == 2
    assert states(here) == [TrialState.FAIL, TrialState.COMPLETE]
    assert record(here.trials[0]).cause == "fixed_params = 7: expected are parameters by name"


def test_refused_trials_stop_no_study(
    place: Callable[..., tiny.Place], planted: Callable[[Curve], None]
) -> None:
    planted(flat(0.5))
    here = place(trials=2, tables="[service]\nfailures_max = 2")
    for _ in range(5):
        here.opened.enqueue_trial({"lr": "abc"})

    assert here.work() == 7
    assert commands.command_of(here.opened).runs_trials


def test_an_enqueued_zero_is_off(place: Callable[..., tiny.Place], planted: Callable[[Curve], None]) -> None:
    planted(flat(0.5))
    here = place(trials=1, search="l2_sp = { log = [1e-3, 1.0], zero = true }")
    here.opened.enqueue_trial({"l2_sp": 0.0})

    assert here.work() == 1
    point = record(here.trials[0]).point
    assert point is not None
    assert point["l2_sp"] == 0.0


def added(
    value: float | None = 0.75, state: TrialState = TrialState.COMPLETE, **params: float
) -> FrozenTrial:
    """A trial that tlopt did not run, drawn from distributions of its own."""
    space = {name: FloatDistribution(-9.0, 9.0) for name in params}
    return optuna.create_trial(value=value, state=state, params=params, distributions=space)


def test_trials_that_tlopt_did_not_run_cost_no_budget_and_take_no_default(
    place: Callable[..., tiny.Place], planted: Callable[[Curve], None]
) -> None:
    planted(flat(0.5))
    here = place(trials=2)
    for trial in (
        added(lr=PROBE_LR, freeze_depth=1.0),
        added(),
        added(lr=5.0),
        added(None, TrialState.PRUNED),
        added(None, TrialState.FAIL),
    ):
        here.opened.add_trial(trial)

    assert here.work() == 2
    assert [record(trial).label for trial in here.trials[5:]] == ["linear probe", "plain fine-tuning"]
    assert [record(trial).counts for trial in here.trials] == [False] * 5 + [True] * 2


def test_trials_of_another_study_cost_no_budget_and_take_no_default(
    place: Callable[..., tiny.Place], planted: Callable[[Curve], None], tmp_path: Path
) -> None:
    planted(flat(0.5))
    other = place(name=f"{tmp_path.name}-other", trials=3)
    other.work()
    here = place(trials=2)
    here.opened.add_trials(other.trials)

    assert here.work() == 2
    records = attributes.records_of(here.opened)
    assert [record.outcome for record in records] == ["added"] * 3 + ["complete"] * 2
    assert [record.label for record in records] == ["", "", "", "linear probe", "plain fine-tuning"]
    assert [record.counts for record in records] == [False] * 3 + [True] * 2
    assert [record.point is None for record in records] == [True] * 3 + [False] * 2
    assert here.work() == 0


def test_trials_of_a_copied_study_count(
    place: Callable[..., tiny.Place], planted: Callable[[Curve], None], tmp_path: Path
) -> None:
    planted(flat(0.5))
    original = place(trials=2)
    original.work()
    name = f"{tmp_path.name}-copy"
    optuna.copy_study(
        from_study_name=original.study.name,
        from_storage=original.store,
        to_storage=original.store,
        to_study_name=name,
    )
    copy = place(name=name, trials=3)

    assert copy.work() == 1
    assert [record.counts for record in attributes.records_of(copy.opened)] == [True] * 3


def test_trials_without_a_stamp_count_as_they_did(
    place: Callable[..., tiny.Place], planted: Callable[[Curve], None], tmp_path: Path
) -> None:
    planted(flat(0.5))
    other = place(name=f"{tmp_path.name}-other", trials=1)
    other.work()
    (old,) = other.trials
    old.user_attrs = {key: value for key, value in old.user_attrs.items() if key != attributes.STUDY}
    here = place(trials=2)
    here.opened.add_trial(old)

    assert here.work() == 1
    assert [record.counts for record in attributes.records_of(here.opened)] == [True, True]


@pytest.mark.parametrize("budget", ["", "hours = 2"])
def test_a_start_that_other_software_changed_ends_the_worker_with_its_name(
    budget: str, place: Callable[..., tiny.Place]
) -> None:
    here = place(trials=2, budget=budget)
    here.opened.set_user_attr(attributes.BEGAN, "yesterday")

    with pytest.raises(StorageError, match=r"has set tlopt:began = 'yesterday'; restore"):
        here.work()
    assert here.trials == []


@pytest.mark.parametrize("kind", ["tpe", "random", "gp"])
def test_every_sampler_goes_on_beside_trials_that_tlopt_did_not_run(
    kind: str, place: Callable[..., tiny.Place], planted: Callable[[Curve], None]
) -> None:
    planted(lambda point: [point.lr])
    startup = "" if kind == "random" else "\nn_startup_trials = 2"
    here = place(trials=5, epochs=1, tables=f'[sampler]\nkind = "{kind}"{startup}')
    here.opened.add_trial(added(lr=0.01, freeze_depth=0.5))
    here.opened.add_trial(added(lr=-5.0, freeze_depth=0.5))
    here.opened.add_trial(added(width=3.0))
    here.opened.add_trial(added())

    assert here.work() == 5


def test_a_study_that_is_deleted_ends_its_worker(
    place: Callable[..., tiny.Place], planted: Callable[[Curve], None], caplog: pytest.LogCaptureFixture
) -> None:
    here = place(trials=4)

    def deleted_at_the_second_trial(point: Point) -> Iterator[float]:
        yield 0.5
        if point.lr == PLAIN_LR:
            optuna.delete_study(study_name=here.opened.study_name, storage=here.store)
        yield 0.5

    planted(deleted_at_the_second_trial)  # type: ignore[arg-type]

    assert here.work() == 1
    assert "was deleted" in caplog.text


# The defaults


def test_the_defaults_come_first_with_their_labels(
    place: Callable[..., tiny.Place], planted: Callable[[Curve], None]
) -> None:
    planted(flat(0.5))
    here = place(trials=3)

    here.work()

    assert [record(trial).label for trial in here.trials] == ["linear probe", "plain fine-tuning", ""]
    assert [trial.params["lr"] for trial in here.trials[:2]] == [PROBE_LR, PLAIN_LR]


def test_hopeless_defaults_are_not_pruned_and_others_are(
    place: Callable[..., tiny.Place], planted: Callable[[Curve], None]
) -> None:
    def hopeless_but_the_probe(point: Point) -> Sequence[float]:
        return [0.9 if point.lr == PROBE_LR else 0.1] * point.epochs

    planted(hopeless_but_the_probe)
    here = place(trials=4, epochs=3, tables='[pruner]\nkind = "median"\nn_startup_trials = 1\nmin_epochs = 1')

    here.work()

    assert states(here) == [TrialState.COMPLETE] * 2 + [TrialState.PRUNED] * 2
    assert [len(trial.intermediate_values) for trial in here.trials] == [3, 3, 1, 1]


# How a trial ends


def test_the_value_is_the_last_epochs_and_the_best_is_kept_beside_it(
    place: Callable[..., tiny.Place], planted: Callable[[Curve], None]
) -> None:
    planted(lambda point: [0.25, 0.75, 0.5])
    here = place(trials=1, epochs=3)

    here.work()

    trial = record(here.trials[0])
    assert (trial.value, trial.best_epoch, trial.best_value) == (0.5, 1, 0.75)
    assert trial.metrics == tiny.metrics(0.5).as_dict()


def test_the_best_epoch_of_a_log_loss_is_the_lowest(
    place: Callable[..., tiny.Place], planted: Callable[[Curve], None]
) -> None:
    planted(lambda point: [0.25, 0.75, 0.5])
    here = place(trials=1, epochs=3, head='objective = "log_loss"')

    here.work()

    trial = record(here.trials[0])
    assert (trial.value, trial.best_epoch, trial.best_value) == (0.5, 1, 0.25)


def test_a_trial_carries_its_point_and_its_worker(
    place: Callable[..., tiny.Place], planted: Callable[[Curve], None]
) -> None:
    planted(flat(0.5))
    here = place(trials=1)

    here.work()

    trial = record(here.trials[0])
    assert trial.point is not None
    assert (trial.point["lr"], trial.point["backbone"]) == (PROBE_LR, "mobilenet_v3_small")
    assert (trial.worker, trial.device) == (workers.this_process().name, "cpu")


@pytest.mark.parametrize(
    ("error", "outcome"),
    [(Diverged("epoch 1: loss is nan"), "diverged"), (OutOfMemory("2 GiB wanted"), "out_of_memory")],
)
def test_a_point_that_cannot_be_trained_is_pruned_with_its_cause_and_breaks_a_constraint(
    error: Exception, outcome: str, place: Callable[..., tiny.Place], planted: Callable[[Curve], None]
) -> None:
    def breaks_off(point: Point) -> Iterator[float]:
        yield 0.5
        raise error

    planted(breaks_off)  # type: ignore[arg-type]
    here = place(trials=1)

    assert here.work() == 1

    (trial,) = here.trials
    assert trial.state == TrialState.PRUNED
    assert (record(trial).outcome, record(trial).cause) == (outcome, str(error))
    assert trial.constraints["outcome"] > 0


def test_a_point_that_was_trained_breaks_no_constraint(
    place: Callable[..., tiny.Place], planted: Callable[[Curve], None]
) -> None:
    planted(flat(0.5))
    here = place(trials=1)

    here.work()

    assert here.trials[0].constraints["outcome"] <= 0


def test_a_rate_that_blows_the_network_up_diverges(place: Callable[..., tiny.Place]) -> None:
    here = place(trials=1, epochs=3, search='lr = 100\noptimizer = "sgd"\nl2 = 1.0\nwarmup_fraction = 0.0')

    here.work()

    assert record(here.trials[0]).outcome == "diverged"
    assert record(here.trials[0]).cause.startswith("epoch ")


def test_a_programming_error_fails_its_trial_with_the_cause_and_is_raised(
    place: Callable[..., tiny.Place], planted: Callable[[Curve], None]
) -> None:
    planted(lambda point: [1 // 0])
    here = place(trials=2)

    with pytest.raises(ZeroDivisionError):
        here.work()

    assert states(here) == [TrialState.FAIL]
    assert record(here.trials[0]).cause == "ZeroDivisionError: integer division or modulo by zero"


def test_a_failed_trial_costs_no_budget_and_its_default_comes_again(
    place: Callable[..., tiny.Place], planted: Callable[[Curve], None]
) -> None:
    here = place(trials=2)
    planted(lambda point: [1 // 0])
    with pytest.raises(ZeroDivisionError):
        here.work()

    planted(flat(0.5))

    assert here.work() == 2
    assert [record(trial).label for trial in here.trials[1:]] == ["linear probe", "plain fine-tuning"]


@pytest.mark.parametrize(
    "error",
    [DataError("a.png is gone"), Unwritable("the disk is full"), OSError(errno.ENOSPC, "the disk is full")],
    ids=["images", "weights", "disk"],
)
def test_what_the_user_has_to_mend_hands_the_trial_back(
    error: Exception, place: Callable[..., tiny.Place], planted: Callable[[Curve], None]
) -> None:
    def fail(point: Point) -> Sequence[float]:
        raise error

    planted(fail)
    here = place(trials=2)

    with pytest.raises(type(error)):
        here.work()

    assert states(here) == [TrialState.WAITING]


# Handing back


def test_a_trial_that_was_requeued_is_the_next_one_with_the_same_parameters(
    storage_url: str, study_text: Callable[..., str], workshop: tiny.Workshop, tmp_path: Path
) -> None:
    there = replace(workshop, store=open_storage(storage_url))
    here = tiny.place(tiny.lighter(study_text(trials=4)), there, tmp_path)
    asked = [here.claim() for _ in range(3)]
    assert asked[1] is not None
    task = here.plan.draw(asked[1])

    here.requeue(asked[1])
    again = here.claim()

    assert again is not None
    assert again.number == 1
    assert here.plan.draw(again) == task


def test_a_stop_ends_the_worker_and_its_trial_waits(
    place: Callable[..., tiny.Place], planted: Callable[[Curve], None]
) -> None:
    interrupt = Interrupt()

    def stops_at_the_second_trial(point: Point) -> Iterator[float]:
        yield 0.5
        if point.lr == PLAIN_LR:
            interrupt._on_signal(signal.SIGTERM, None)
        yield 0.5

    planted(stops_at_the_second_trial)  # type: ignore[arg-type]
    here = place(trials=4)

    assert here.work(interrupt) == 1
    assert states(here) == [TrialState.COMPLETE, TrialState.WAITING]


def test_a_stop_before_the_first_trial_takes_none(place: Callable[..., tiny.Place]) -> None:
    interrupt = Interrupt()
    interrupt._on_signal(signal.SIGTERM, None)
    here = place(trials=4)

    assert here.work(interrupt) == 0
    assert states(here) == []


def work_to_the_second_epoch(
    here: tiny.Place, checkpoints: CheckpointStore | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker on the first trial that is told to stop in the middle of its second epoch."""
    interrupt, real_steps = Interrupt(), steps

    def stopped_steps(*arguments: Any) -> Iterator[Step | Epoch]:
        for event in real_steps(*arguments):
            if isinstance(event, Step) and event.epoch == 1:
                interrupt._on_signal(signal.SIGTERM, None)
            yield event

    with monkeypatch.context() as patch:
        patch.setattr(execution, "steps", stopped_steps)
        assert here.work(interrupt, checkpoints) == 0
    assert list(here.trials[0].intermediate_values) == [0]


@pytest.mark.parametrize("kept", [True, False], ids=["checkpoint", "no checkpoint"])
def test_a_trial_that_was_stopped_and_taken_up_again_ends_as_if_undisturbed(
    kept: bool, place: Callable[..., tiny.Place], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tiny.draw_nothing(monkeypatch)
    undisturbed, stopped = (
        place(name=tmp_path.name + kind, trials=1, epochs=2, head='objective = "log_loss"')
        for kind in ("undisturbed", "stopped")
    )
    checkpoints = CheckpointStore(str(tmp_path / "checkpoints")) if kept else None
    work_to_the_second_epoch(stopped, checkpoints, monkeypatch)

    assert (undisturbed.work(), stopped.work(checkpoints=checkpoints)) == (1, 1)
    assert stopped.trials[0].intermediate_values == undisturbed.trials[0].intermediate_values
    assert stopped.trials[0].value == undisturbed.trials[0].value
    notes = record(stopped.trials[0]).notes
    assert notes[-1] == ("resumed at epoch 2, step 1" if kept else notes[0])


def test_a_checkpoint_from_before_an_upgrade_is_not_gone_on_with(
    place: Callable[..., tiny.Place], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tiny.draw_nothing(monkeypatch)
    here, checkpoints = place(trials=1, epochs=2), CheckpointStore(str(tmp_path / "checkpoints"))
    with monkeypatch.context() as patch:
        patch.setattr(execution, "SEMANTICS_VERSION", SEMANTICS_VERSION - 1)
        work_to_the_second_epoch(here, checkpoints, monkeypatch)

    assert here.work(checkpoints=checkpoints) == 1
    notes = record(here.trials[0]).notes
    assert any("is unreadable: it is of" in note for note in notes)
    assert not any("resumed" in note for note in notes)


# What it leaves behind


def test_the_log_of_a_trial_says_what_was_tried_each_epoch_and_how_it_ended(
    place: Callable[..., tiny.Place], planted: Callable[[Curve], None]
) -> None:
    planted(lambda point: [0.25, 0.5])
    here = place(trials=2)

    here.work()

    lines = [json.loads(line) for line in (here.folders.logs / "0001.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["start", "epoch", "epoch", "end"]
    assert (lines[0]["trial"], lines[0]["label"], lines[0]["point"]["lr"]) == (1, "plain fine-tuning", 0.001)
    assert [line["val"]["accuracy"] for line in lines[1:3]] == [0.25, 0.5]
    assert (lines[3]["outcome"], lines[3]["value"], lines[3]["best_epoch"]) == ("complete", 0.5, 1)


def test_the_log_of_a_failed_trial_has_the_cause(
    place: Callable[..., tiny.Place], planted: Callable[[Curve], None]
) -> None:
    planted(lambda point: [1 // 0])
    here = place(trials=1)
    with pytest.raises(ZeroDivisionError):
        here.work()

    last = json.loads((here.folders.logs / "0000.jsonl").read_text().splitlines()[-1])

    assert (last["outcome"], last["cause"].split(":")[0]) == ("failed", "ZeroDivisionError")


def test_labelled_and_leading_trials_have_pictures_in_the_dashboards_store(
    place: Callable[..., tiny.Place], planted: Callable[[Curve], None]
) -> None:
    rising = iter([0.5, 0.25, 0.75, 0.625, 0.875])
    planted(lambda point: [next(rising)])
    here = place(trials=5, epochs=1)

    here.work()

    pictures = {
        trial.number: sorted(
            artifact.filename
            for artifact in optuna.artifacts.get_all_artifact_meta(
                here.opened._storage.get_trial(trial._trial_id), storage=here.store
            )
        )
        for trial in here.trials
    }
    both = ["confusion.png", "learning_curves.png"]
    assert pictures == {0: both, 1: both, 2: both, 3: [], 4: both}
    assert len(list(here.folders.artifacts.iterdir())) == 8


def test_the_note_is_kept_by_who_ends_a_leading_trial(
    place: Callable[..., tiny.Place], planted: Callable[[Curve], None]
) -> None:
    rising = iter([0.5, 0.25, 0.75, 0.625])
    planted(lambda point: [next(rising)])
    here = place(trials=4, epochs=1)

    here.work()

    text = optuna_dashboard.get_note(here.opened).replace("&emsp;", "")
    assert "| 2 | 75.0 % |" in text
    assert "| 3 |" not in text
    assert f"{here.workspace.n_classes} classes" in text


def test_the_studys_picture_is_renewed_by_leaders_and_when_it_is_due(
    place: Callable[..., tiny.Place], planted: Callable[[Curve], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    renewed: list[int] = []
    monkeypatch.setattr(
        study_figure, "update_figure", lambda opened, study, folders: renewed.append(len(opened.get_trials()))
    )
    monkeypatch.setattr(study_figure, "is_due", lambda number: number == 3)
    falling = iter([0.5, 0.6, 0.4, 0.3, 0.2])
    planted(lambda point: [next(falling)])

    place(trials=5, epochs=1).work()

    assert renewed == [1, 2, 4]


def test_a_note_that_cannot_be_written_harms_no_trial(
    place: Callable[..., tiny.Place],
    planted: Callable[[Curve], None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no room for a note")

    planted(flat(0.5))
    monkeypatch.setattr(note, "update_note", fail)
    here = place(trials=2, epochs=1)

    here.work()

    assert [trial.state for trial in here.trials] == [TrialState.COMPLETE] * 2
    assert "no room for a note" in caplog.text


@pytest.mark.parametrize("broken", ["find_mistakes", "draw_confusion", "draw_learning_curves"])
def test_a_picture_that_cannot_be_drawn_harms_no_trial(
    broken: str,
    place: Callable[..., tiny.Place],
    planted: Callable[[Curve], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("no such colour")

    planted(flat(0.5))
    room = {"find_mistakes": objective, "draw_confusion": confusion}.get(broken, training)
    monkeypatch.setattr(room, broken, fail)
    here = place(trials=1)

    assert here.work() == 1
    (trial,) = here.trials
    assert trial.state == TrialState.COMPLETE
    assert [note for note in record(trial).notes if note.endswith("ValueError: no such colour")]
    artifacts = optuna.artifacts.get_all_artifact_meta(trial, storage=here.store)
    assert len(artifacts) == (2 if broken == "find_mistakes" else 1)


def test_a_trial_without_one_mistake_has_its_other_pictures(
    place: Callable[..., tiny.Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = execution.predict_logits

    def perfect(run: Any, images: Any, indices: Any, kept: Any) -> Any:
        logits = sound(run, images, indices, kept)
        logits[:] = np.eye(logits.shape[1])[images.labels[indices]] * 9
        return logits

    monkeypatch.setattr(execution, "predict_logits", perfect)
    here = place(trials=1, epochs=1)

    assert here.work() == 1
    assert record(here.trials[0]).notes == ()
    artifacts = optuna.artifacts.get_all_artifact_meta(here.trials[0], storage=here.store)
    assert sorted(each.filename for each in artifacts) == ["confusion.png", "learning_curves.png"]


def test_an_untrainable_default_has_no_pictures(
    place: Callable[..., tiny.Place], planted: Callable[[Curve], None]
) -> None:
    def diverges(point: Point) -> Sequence[float]:
        raise Diverged("epoch 0: nan")

    planted(diverges)
    here = place(trials=1)

    here.work()

    assert not here.folders.artifacts.exists()


def test_the_result_and_the_end_of_a_trial_are_written_together_or_not_at_all(
    place: Callable[..., tiny.Place], planted: Callable[[Curve], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    planted(flat(0.5))
    here = place(trials=1)

    def dies(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(here.opened, "tell", dies)
    with pytest.raises(KeyboardInterrupt):
        here.work()

    assert states(here) == [TrialState.RUNNING]
    assert attributes.TRIAL_RESULT not in here.trials[0].user_attrs
