"""A search with several objectives: values, reports, resuming, pruning, the front, and its confirmation."""

from collections.abc import Callable, Sequence
from pathlib import Path

import optuna
import pytest
import tiny
from optuna.trial import TrialState
from pausing import SIDES, larger_is_better, records

from tlopt.analysis.front import front_sentence
from tlopt.confirmation.candidates import find_candidates
from tlopt.search.front import front_trials
from tlopt.spec.outcome import Outcome
from tlopt.spec.point import Point
from tlopt.storage import attributes

Curve = Callable[[Point], Sequence[float]]


@pytest.fixture
def place(
    tmp_path: Path,
    study_text: Callable[..., str],
    workshop: tiny.Workshop,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., tiny.Place]:
    def make(
        *,
        curve: Curve = larger_is_better,
        objectives: str = '["accuracy", "multiply_adds"]',
        sampler: str = "tpe",
        pruner: str = 'kind = "none"',
        more: str = "",
        trials: int = 12,
    ) -> tiny.Place:
        tiny.plant(monkeypatch, curve)
        head = f"objectives = {objectives}"
        text = tiny.lighter(study_text(name=tmp_path.name, trials=trials, epochs=6), head=head)
        before, _, _ = text.partition("[search]")
        tables = f'[sampler]\nkind = "{sampler}"\n[pruner]\n{pruner}\n{more}'
        return tiny.place(f"{before}[search]\n{SIDES}\n{tables}", workshop, tmp_path / "runs")

    return make


@pytest.mark.parametrize("sampler", ["tpe", "gp", "nsga2", "random"])
def test_every_sampler_spends_exactly_the_budget(place: Callable[..., tiny.Place], sampler: str) -> None:
    trials = 22 if sampler == "nsga2" else 14  # more than a population
    here = place(sampler=sampler, trials=trials)

    assert here.work() == trials
    assert here.work() == 0
    assert [direction.name for direction in here.opened.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert here.opened.metric_names == ["accuracy", "multiply_adds"]
    for trial, record in zip(here.trials, records(here), strict=True):
        assert trial.values == [record.metrics["accuracy"], record.inference_cost["multiply_adds"]]
        assert record.values == tuple(trial.values)
        assert (
            len(attributes.curve_of(trial)) == record.last_epoch + 1 == len(trial.user_attrs["tlopt:values"])
        )


def test_three_objectives_are_stored_in_order(place: Callable[..., tiny.Place]) -> None:
    here = place(objectives='["log_loss", "parameters", "bytes"]', trials=3)
    here.work()

    assert [direction.name for direction in here.opened.directions] == ["MINIMIZE"] * 3
    for trial, record in zip(here.trials, records(here), strict=True):
        costs = record.inference_cost
        assert trial.values == [record.metrics["log_loss"], costs["parameters"], costs["bytes"]]


def test_the_front_is_that_of_optuna(place: Callable[..., tiny.Place]) -> None:
    here = place(trials=16)
    here.work()

    front = front_trials(records(here), here.study)

    assert {row.number for row in front} == {trial.number for trial in here.opened.best_trials}
    values = [row.value or 0.0 for row in front]
    assert values == sorted(values, reverse=True)
    assert "accuracy and multiply-adds at once" in front_sentence(here.study, records(here))


def test_a_dominated_trial_is_stopped_and_tells_the_sampler_its_last_values(
    place: Callable[..., tiny.Place],
) -> None:
    def two_levels(point: Point) -> list[float]:
        level = 0.8 if point.lr < 0.002 else 0.3
        return [level + 0.01 * epoch for epoch in range(point.epochs)]

    here = place(
        curve=two_levels,
        sampler="random",
        pruner='kind = "front"\npauses = false\nmin_epochs = 2\nn_startup_trials = 4',
        trials=30,
    )
    here.work()

    found = records(here)
    pruned = [row for row in found if row.outcome == Outcome.PRUNED]
    assert pruned
    assert {row.last_epoch for row in pruned} == {1}
    for row in pruned:
        assert row.values == (0.31, row.inference_cost["multiply_adds"])
        cheaper = [
            other
            for other in found
            if other.has_value and other.values[1] <= row.values[1] and (other.value or 0) > 0.8
        ]
        assert cheaper
    assert not {row.number for row in pruned} & {row.number for row in front_trials(found, here.study)}


def test_a_requeued_trial_goes_on_with_its_reports(place: Callable[..., tiny.Place]) -> None:
    here = place(trials=1)
    trial = here.claim()
    assert trial is not None
    trial.set_user_attr(attributes.VALUES, [0.11, 0.12])  # reported by the worker that was lost
    here.requeue(trial)

    assert here.work() == 1

    (frozen,) = here.trials
    curve = attributes.curve_of(frozen)
    assert [curve[0], curve[1]] == [0.11, 0.12]
    assert len(curve) == 6
    assert frozen.state == TrialState.COMPLETE


def test_constraints_hold_for_several_objectives(place: Callable[..., tiny.Place]) -> None:
    here = place(more="[constraints]\nmultiply_adds = 4e6", trials=20)
    here.work()

    found = records(here)
    assert {row.outcome for row in found} == {Outcome.COMPLETE, Outcome.INFEASIBLE}
    assert all(row.inference_cost["multiply_adds"] <= 4e6 for row in front_trials(found, here.study))


def test_the_confirmation_takes_points_of_the_front(place: Callable[..., tiny.Place]) -> None:
    here = place(trials=16, more="[confirm]\npoints = 2")
    here.work()
    front = {trial.number for trial in here.opened.best_trials}

    found = [row for row in find_candidates(here.study, here.opened, here.workspace.facts) if row.number >= 0]

    assert 1 <= len(found) <= 2
    assert {row.number for row in found} <= front


def test_optuna_still_refuses_reports_and_pruning_with_several_objectives() -> None:
    trial = optuna.create_study(directions=["maximize", "minimize"]).ask()

    with pytest.raises(NotImplementedError):
        trial.report(0.5, 0)
    with pytest.raises(NotImplementedError):
        trial.should_prune()
