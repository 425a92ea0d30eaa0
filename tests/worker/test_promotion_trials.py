"""Trials that pause and go on, by a worker with a real network, and by workers that are killed."""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from optuna.trial import FrozenTrial, TrialState
from service import FINISHED, WAIT_SECONDS, Service, wait
from service import make_service as make_service

from tlopt.spec.point import Point
from tlopt.storage import attributes
from tlopt.training.checkpoint_store import CheckpointStore
from tlopt.trial.execution import train_to_end

EPOCHS = 8
PAUSES = '[pruner]\nkind = "promotion"\n[sampler]\nkind = "random"\n'
LR = "lr = { log = [1e-4, 1e-2] }\n"
Place = Callable[..., tiny.Place]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def place(tmp_path: Path, study_text: Callable[..., str], workshop: tiny.Workshop) -> Place:
    """A place for a worker on a study whose trials pause; keywords as for `study_text`."""

    def make(**changes: Any) -> tiny.Place:
        text = study_text(name=tmp_path.name, search=LR, epochs=EPOCHS, tables=PAUSES, **changes)
        return tiny.place(tiny.lighter(text), workshop, tmp_path / "runs")

    return make


def reports(here: tiny.Place) -> list[int]:
    return [len(trial.intermediate_values) for trial in here.trials]


def flat_by_rate(point: Point) -> Sequence[float]:
    """The lower the rate, the better, from the first epoch on."""
    return [1 - point.lr * 50] * point.epochs


def test_exactly_the_budget_ends_and_only_the_best_are_trained_to_the_end(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.plant(monkeypatch, flat_by_rate)
    here = place(trials=24)

    assert here.work() == 24
    assert here.work() == 0
    assert all(trial.state in FINISHED for trial in here.trials)
    assert set(reports(here)) <= {1, 2, 4, 8}
    assert sum(reports(here)) < 0.75 * 24 * EPOCHS
    sampled = [trial for trial in here.trials if not trial.user_attrs.get(attributes.LABEL)]
    best = min(sampled, key=lambda trial: trial.params["lr"])
    assert best.state == TrialState.COMPLETE
    assert all(
        t.user_attrs[attributes.TRIAL_RESULT]["cause"] for t in here.trials if t.state.name == "PRUNED"
    )


def test_a_raised_budget_is_gone_on_with(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.plant(monkeypatch, flat_by_rate)
    assert place(trials=6).work() == 6

    more = place(trials=12)

    assert more.work() == 6
    assert all(trial.state in FINISHED for trial in more.trials)


def test_paused_trials_end_when_the_hours_are_over(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from tlopt.worker import claim

    tiny.plant(monkeypatch, flat_by_rate)
    here = place(trials=50, budget="hours = 2")
    began, clock = here.opened.user_attrs[attributes.BEGAN], itertools.count(step=360.0)
    monkeypatch.setattr(claim, "epoch_seconds", lambda *_: began + next(clock))

    n_ended = here.work()

    assert 4 <= n_ended <= 20
    assert all(trial.state in FINISHED for trial in here.trials)


def test_trials_that_were_paused_have_the_values_of_those_that_never_were(
    place: Place, tmp_path: Path
) -> None:
    here = place(trials=8)
    store = CheckpointStore(str(tmp_path / "checkpoints"))

    assert here.work(checkpoints=store) == 8

    resumed = [t for t in here.trials if "resumed at epoch" in " ".join(attributes.notes_of(t))]
    assert any(len(trial.intermediate_values) > 1 for trial in resumed)
    assert_undisturbed(here, resumed)
    assert not store.trials()


def test_a_lost_checkpoint_costs_epochs_and_changes_nothing(place: Place, tmp_path: Path) -> None:
    here = place(trials=8)

    assert here.work(checkpoints=None) == 8

    assert_undisturbed(here, here.trials)


def assert_undisturbed(here: tiny.Place, trials: Sequence[FrozenTrial]) -> None:
    """Check that the trials' values are those of trials that train without a pause."""
    for trial in trials:
        whole = train_to_end(here.plan.draw(trial), here.workspace)
        values = [epoch.val.accuracy for epoch in whole if epoch.val is not None]
        assert list(trial.intermediate_values.values()) == values[: len(trial.intermediate_values)]


def test_somebody_who_asks_for_a_trial_takes_a_paused_one_and_nothing_is_lost(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.plant(monkeypatch, flat_by_rate)
    here = place(trials=8)
    first = here.claim()
    assert first is not None
    here.requeue(first)

    asked = here.opened.ask()
    here.opened.tell(asked, 0.5)

    assert asked.number == first.number
    here.work()
    assert all(trial.state in FINISHED for trial in here.trials)


@pytest.mark.slow
def test_workers_that_are_killed_lose_no_paused_trial(service: Callable[..., Service]) -> None:
    here = service(search=LR, trials=10, epochs=4, tables=PAUSES)
    first = here.worker()
    wait(lambda: any(map(attributes.paused_at, here.frozen())), "paused trial", 2 * WAIT_SECONDS)
    first.process.kill()
    first.process.wait()

    status, _, errors = here.worker().end()

    assert status == 0, errors
    trials = here.frozen()
    assert len(trials) == 10
    assert all(trial.state in FINISHED for trial in trials)
    assert {len(trial.intermediate_values) for trial in trials} <= {1, 2, 4}
