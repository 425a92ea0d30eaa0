"""Trials that pause and go on, whatever rule lets them: by workers here, by others, and after a kill."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import tiny
from optuna.trial import FrozenTrial, TrialState
from pausing import FRONT, PROMOTION, Pausing
from service import FINISHED, WAIT_SECONDS, Service, wait
from service import make_service as make_service

from tlopt.storage import attributes
from tlopt.training.checkpoint_store import CheckpointStore
from tlopt.trial.execution import train_to_end

Place = Callable[..., tiny.Place]
BOTH = pytest.mark.parametrize("kind", [PROMOTION, FRONT], ids=["promotion", "front"])


@BOTH
def test_a_raised_budget_is_gone_on_with(
    pausing_place: Place, monkeypatch: pytest.MonkeyPatch, kind: Pausing
) -> None:
    tiny.plant(monkeypatch, kind.curve)
    assert pausing_place(kind, trials=6).work() == 6

    more = pausing_place(kind, trials=12)

    assert more.work() == 6
    assert all(trial.state in FINISHED for trial in more.trials)


@BOTH
def test_trials_that_were_paused_have_the_values_of_those_that_never_were(
    pausing_place: Place, tmp_path: Path, kind: Pausing
) -> None:
    here = pausing_place(kind, trials=8)
    store = CheckpointStore(str(tmp_path / "checkpoints"))

    assert here.work(checkpoints=store) == 8

    resumed = [t for t in here.trials if "resumed at epoch" in " ".join(attributes.notes_of(t))]
    assert any(len(attributes.curve_of(trial)) > 1 for trial in resumed)
    assert_undisturbed(here, resumed)
    assert not store.trials()


@BOTH
def test_a_lost_checkpoint_costs_epochs_and_changes_nothing(pausing_place: Place, kind: Pausing) -> None:
    here = pausing_place(kind, trials=8)

    assert here.work(checkpoints=None) == 8

    assert_undisturbed(here, here.trials)


def assert_undisturbed(here: tiny.Place, trials: Sequence[FrozenTrial]) -> None:
    """Check that the trials' values are those of trials that train without a pause."""
    for trial in trials:
        whole = train_to_end(here.plan.draw(trial), here.workspace)
        values = [epoch.val.accuracy for epoch in whole if epoch.val is not None]
        reported = list(attributes.curve_of(trial).values())
        assert reported == values[: len(reported)]


@BOTH
def test_somebody_who_asks_for_a_trial_takes_a_paused_one_and_nothing_is_lost(
    pausing_place: Place, monkeypatch: pytest.MonkeyPatch, kind: Pausing
) -> None:
    tiny.plant(monkeypatch, kind.curve)
    here = pausing_place(kind, trials=8)
    first = here.claim()
    assert first is not None
    here.requeue(first)
    here.opened.enqueue_trial({"lr": 0.001})

    asked = here.opened.ask()
    here.opened.tell(asked, kind.told)

    assert asked.number == first.number
    here.work()
    assert all(trial.state in FINISHED for trial in here.trials)


@pytest.mark.slow
@BOTH
def test_workers_that_are_killed_lose_no_paused_trial(service: Callable[..., Service], kind: Pausing) -> None:
    here = service(head=kind.head, search=kind.search, trials=10, epochs=4, tables=kind.tables)
    first = here.worker()
    wait(lambda: any(map(attributes.paused_at, here.frozen())), "paused trial", 2 * WAIT_SECONDS)
    first.process.kill()
    first.process.wait()

    two = here.worker(), here.worker()

    for status, _, errors in (worker.end() for worker in two):
        assert status == 0, errors
    trials = here.frozen()
    assert len(trials) == 10
    assert all(trial.state in FINISHED for trial in trials)
    assert any(trial.state == TrialState.COMPLETE for trial in trials)
    assert all(1 <= len(attributes.curve_of(trial)) <= 4 for trial in trials)
