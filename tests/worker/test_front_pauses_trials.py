"""Trials with several objectives that pause and go on: by workers here, by others, and after a kill."""

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

from tlopt.search.front import front_trials
from tlopt.spec.objectives import front_of
from tlopt.spec.outcome import Outcome
from tlopt.spec.point import Point
from tlopt.storage import attributes
from tlopt.storage.attributes import TrialRecord
from tlopt.training.checkpoint_store import CheckpointStore
from tlopt.trial.execution import train_to_end

EPOCHS = 8
SIDES = "resolution = { choice = [32, 48, 64] }\nlr = { log = [1e-4, 1e-2] }\n"
HEAD = 'objectives = ["accuracy", "multiply_adds"]'
Place = Callable[..., tiny.Place]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def larger_is_better(point: Point) -> Sequence[float]:
    """Three points more at each resolution, and less for a rate further from 0.001; all gain equally."""
    last = 0.6 + point.resolution / 500 - 0.1 * abs(torch.tensor(point.lr).log10().item() + 3)
    return [last - 0.05 * (point.epochs - 1 - epoch) for epoch in range(point.epochs)]


@pytest.fixture
def place(tmp_path: Path, study_text: Callable[..., str], workshop: tiny.Workshop) -> Place:
    """A place for a worker on a study with several objectives, whose trials pause."""

    def make(*, sampler: str = "random", head: str = HEAD, more: str = "", **changes: Any) -> tiny.Place:
        tables = f'[sampler]\nkind = "{sampler}"\n{more}'
        text = study_text(name=tmp_path.name, search=SIDES, epochs=EPOCHS, tables=tables, **changes)
        return tiny.place(tiny.lighter(text, head=head), workshop, tmp_path / "runs")

    return make


def records(here: tiny.Place) -> list[TrialRecord]:
    return [TrialRecord.from_frozen(trial) for trial in here.trials]


def n_epochs(here: tiny.Place) -> list[int]:
    return [len(attributes.curve_of(trial)) for trial in here.trials]


def test_the_front_of_all_points_is_found_with_far_fewer_of_their_epochs(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.plant(monkeypatch, larger_is_better)
    here = place(trials=24)

    assert here.work() == 24
    assert here.work() == 0

    assert all(trial.state in FINISHED for trial in here.trials)
    assert sum(n_epochs(here)) < 0.6 * 24 * EPOCHS
    found = records(here)
    ends = [(-last_of(row), row.inference_cost["multiply_adds"]) for row in found]
    assert {row.number for row in front_trials(found, here.study)} == set(front_of(ends))
    for row in found:
        if row.outcome == Outcome.PRUNED:
            assert row.cause.startswith("pruned after epoch")


def last_of(row: TrialRecord) -> float:
    """The planted value at the end of the trial, which it may not have come to."""
    assert row.point is not None
    return larger_is_better(Point.from_dict(row.point))[-1]


@pytest.mark.parametrize("sampler", ["tpe", "gp", "nsga2"])
def test_every_sampler_spends_exactly_the_budget(
    place: Place, monkeypatch: pytest.MonkeyPatch, sampler: str
) -> None:
    tiny.plant(monkeypatch, larger_is_better)
    here = place(sampler=sampler, trials=22)

    assert here.work() == 22
    assert all(trial.state in FINISHED for trial in here.trials)
    assert sum(n_epochs(here)) < 22 * EPOCHS


def test_nsga2_counts_paused_and_stopped_trials_in_its_generations(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.plant(monkeypatch, larger_is_better)
    here = place(sampler="nsga2", trials=24)
    here.work()

    generations = [trial.system_attrs.get("NSGAIISampler:generation") for trial in here.trials]
    assert 1 in generations  # its population of 16 is full, though fewer trials are complete
    assert sum(trial.state == TrialState.COMPLETE for trial in here.trials) < 16


def test_three_objectives_pause_too(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.plant(monkeypatch, larger_is_better)
    here = place(head='objectives = ["accuracy", "parameters", "multiply_adds"]', trials=12)

    assert here.work() == 12
    assert {row.number for row in front_trials(records(here), here.study)} == {
        trial.number for trial in here.opened.best_trials
    }
    assert sum(n_epochs(here)) < 12 * EPOCHS


def test_networks_beyond_a_limit_are_not_trained_and_do_not_pause(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.plant(monkeypatch, larger_is_better)
    here = place(more="[constraints]\nmultiply_adds = 4e6\n", sampler="tpe", trials=20)

    assert here.work() == 20
    found = records(here)
    infeasible = [row for row in found if row.outcome == Outcome.INFEASIBLE]
    assert infeasible
    assert all(row.last_epoch is None for row in infeasible)
    assert all(row.inference_cost["multiply_adds"] <= 4e6 for row in front_trials(found, here.study))


def test_a_paused_trial_is_waiting_under_its_number_and_never_pruned_meanwhile(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.plant(monkeypatch, larger_is_better)
    here, seen = place(trials=8), set[tuple[int, str]]()
    from tlopt.worker import claim

    following = claim._following

    def watched(*given: Any) -> Any:
        found = following(*given)
        seen.update((row.number, row.outcome) for row in records(here))
        return found

    monkeypatch.setattr(claim, "_following", watched)
    here.work()

    paused = {number for number, outcome in seen if outcome == Outcome.PAUSED}
    complete = {row.number for row in records(here) if row.outcome == Outcome.COMPLETE}
    assert paused & complete
    assert not {number for number, outcome in seen if outcome == Outcome.PRUNED} & complete
    assert [trial.number for trial in here.trials] == list(range(8))


def test_a_raised_budget_is_gone_on_with(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.plant(monkeypatch, larger_is_better)
    assert place(trials=6).work() == 6

    more = place(trials=12)

    assert more.work() == 6
    assert all(trial.state in FINISHED for trial in more.trials)


def test_trials_of_a_study_with_hours_do_not_pause(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that pause would go on once all have begun, and the hours may end before."""
    from tlopt.worker import claim

    tiny.plant(monkeypatch, larger_is_better)
    here = place(trials=50, budget="hours = 2")
    began, clock = here.opened.user_attrs[attributes.BEGAN], itertools.count(step=360.0)
    monkeypatch.setattr(claim, "epoch_seconds", lambda *_: began + next(clock))

    assert 4 <= here.work() <= 24
    assert n_epochs(here)[0] == EPOCHS
    assert not any(attributes.PROMOTION in trial.user_attrs for trial in here.trials)


def test_trials_that_were_paused_have_the_values_of_those_that_never_were(
    place: Place, tmp_path: Path
) -> None:
    here = place(trials=6)
    store = CheckpointStore(str(tmp_path / "checkpoints"))

    assert here.work(checkpoints=store) == 6

    resumed = [t for t in here.trials if "resumed at epoch" in " ".join(attributes.notes_of(t))]
    assert any(len(attributes.curve_of(trial)) > 1 for trial in resumed)
    assert_undisturbed(here, resumed)
    assert not store.trials()


def test_a_lost_checkpoint_costs_epochs_and_changes_nothing(place: Place) -> None:
    here = place(trials=6)

    assert here.work(checkpoints=None) == 6

    assert_undisturbed(here, here.trials)


def assert_undisturbed(here: tiny.Place, trials: Sequence[FrozenTrial]) -> None:
    """Check that the trials' values are those of trials that train without a pause."""
    for trial in trials:
        whole = train_to_end(here.plan.draw(trial), here.workspace)
        values = [epoch.val.accuracy for epoch in whole if epoch.val is not None]
        reported = list(attributes.curve_of(trial).values())
        assert reported == values[: len(reported)]


def test_somebody_who_asks_for_a_trial_takes_a_paused_one_and_nothing_is_lost(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.plant(monkeypatch, larger_is_better)
    here = place(trials=8)
    first = here.claim()
    assert first is not None
    here.requeue(first)
    here.opened.enqueue_trial({"resolution": 64, "lr": 0.001})

    asked = here.opened.ask()
    here.opened.tell(asked, [0.5, 1e6])

    assert asked.number == first.number
    here.work()
    assert all(trial.state in FINISHED for trial in here.trials)


@pytest.mark.slow
def test_workers_that_are_killed_lose_no_paused_trial(service: Callable[..., Service]) -> None:
    here = service(head=HEAD, search=SIDES, trials=10, epochs=4, tables='[sampler]\nkind = "random"\n')
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
    assert {len(attributes.curve_of(trial)) for trial in trials} <= {1, 2, 3, 4}
    assert any(trial.state == TrialState.COMPLETE for trial in trials)
