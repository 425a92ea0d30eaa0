"""Trials with several objectives that pause and go on: the front that they find, and every sampler."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import tiny
from optuna.trial import TrialState
from pausing import EPOCHS, FRONT, RANDOM, Pausing, larger_is_better, let_time_pass, n_epochs, records
from service import FINISHED

from tlopt.search.front import front_trials
from tlopt.spec.objectives import front_of
from tlopt.spec.outcome import Outcome
from tlopt.spec.point import Point
from tlopt.storage import attributes
from tlopt.storage.attributes import TrialRecord
from tlopt.worker import claim

Place = Callable[..., tiny.Place]


def sampled(kind: str, more: str = "") -> Pausing:
    """The study with another sampler, and further tables."""
    return replace(FRONT, tables=RANDOM.replace("random", kind) + more)


def test_the_front_of_all_points_is_found_with_far_fewer_of_their_epochs(
    pausing_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.plant(monkeypatch, FRONT.curve)
    here = pausing_place(FRONT, trials=24)

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
    pausing_place: Place, monkeypatch: pytest.MonkeyPatch, sampler: str
) -> None:
    tiny.plant(monkeypatch, FRONT.curve)
    here = pausing_place(sampled(sampler), trials=22)

    assert here.work() == 22
    assert all(trial.state in FINISHED for trial in here.trials)
    assert sum(n_epochs(here)) < 22 * EPOCHS


def test_nsga2_counts_paused_and_stopped_trials_in_its_generations(
    pausing_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.plant(monkeypatch, FRONT.curve)
    here = pausing_place(sampled("nsga2"), trials=24)
    here.work()

    generations = [trial.system_attrs.get("NSGAIISampler:generation") for trial in here.trials]
    assert 1 in generations  # its population of 16 is full, though fewer trials are complete
    assert sum(trial.state == TrialState.COMPLETE for trial in here.trials) < 16


def test_three_objectives_pause_too(pausing_place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.plant(monkeypatch, FRONT.curve)
    three = replace(FRONT, head='objectives = ["accuracy", "parameters", "multiply_adds"]')
    here = pausing_place(three, trials=12)

    assert here.work() == 12
    assert {row.number for row in front_trials(records(here), here.study)} == {
        trial.number for trial in here.opened.best_trials
    }
    assert sum(n_epochs(here)) < 12 * EPOCHS


def test_networks_beyond_a_limit_are_not_trained_and_do_not_pause(
    pausing_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.plant(monkeypatch, FRONT.curve)
    here = pausing_place(sampled("tpe", "[constraints]\nmultiply_adds = 4e6\n"), trials=20)

    assert here.work() == 20
    found = records(here)
    infeasible = [row for row in found if row.outcome == Outcome.INFEASIBLE]
    assert infeasible
    assert all(row.last_epoch is None for row in infeasible)
    assert all(row.inference_cost["multiply_adds"] <= 4e6 for row in front_trials(found, here.study))


def test_a_paused_trial_is_waiting_under_its_number_and_never_pruned_meanwhile(
    pausing_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.plant(monkeypatch, FRONT.curve)
    here, seen = pausing_place(FRONT, trials=8), set[tuple[int, str]]()
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


def test_trials_of_a_study_with_hours_do_not_pause(
    pausing_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that pause would go on once all have begun, and the hours may end before."""
    tiny.plant(monkeypatch, FRONT.curve)
    here = pausing_place(FRONT, trials=50, budget="hours = 2")
    let_time_pass(monkeypatch, here)

    assert 4 <= here.work() <= 24
    assert n_epochs(here)[0] == EPOCHS
    assert not any(attributes.PROMOTION in trial.user_attrs for trial in here.trials)
