"""A Gaussian process sees every measured trial of a study and no other."""

from collections.abc import Mapping
from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState

from tlopt.search.sampler_view import as_complete, in_space, view
from tlopt.storage import attributes
from tlopt.storage.attributes import OUTCOME_CONSTRAINT

SPACE = {"lr": FloatDistribution(0.0, 1.0)}


def add(
    study: optuna.Study, lr: float, state: TrialState, *, value: float | None = None, failed: bool = False
) -> None:
    """A trial; of a pruned one `value` is its only report."""
    study.add_trial(
        optuna.create_trial(
            state=state,
            value=value,
            params={"lr": lr},
            distributions=SPACE,
            intermediate_values={0: value} if state == TrialState.PRUNED and value is not None else {},
            constraints={"outcome": 1.0 if failed else -1.0},
        )
    )


def gp_view(study: optuna.Study) -> optuna.Study:
    return view(study, lambda trials: as_complete(trials, study.directions))


def shown(study: optuna.Study) -> list[tuple[float, str, float | None]]:
    trials = gp_view(study).get_trials()
    return [(trial.params["lr"], trial.state.name, trial.value) for trial in trials]


@pytest.mark.parametrize(("direction", "worst"), [("maximize", 0.25), ("minimize", 0.75)])
def test_failed_points_have_the_worst_value_and_pruned_ones_their_last_report(
    direction: str, worst: float
) -> None:
    study = optuna.create_study(direction=direction)
    add(study, 0.1, TrialState.COMPLETE, value=0.75)
    add(study, 0.2, TrialState.COMPLETE, value=0.25)
    add(study, 0.3, TrialState.PRUNED, value=0.5)
    add(study, 0.4, TrialState.PRUNED, failed=True)
    add(study, 0.5, TrialState.PRUNED, value=0.9, failed=True)

    assert shown(study)[2:] == [
        (0.3, "COMPLETE", 0.5),
        (0.4, "COMPLETE", worst),
        (0.5, "COMPLETE", worst),
    ]


def test_running_points_are_shown_and_failures_of_the_program_are_not() -> None:
    study = optuna.create_study()
    add(study, 0.1, TrialState.RUNNING)
    add(study, 0.2, TrialState.FAIL, failed=True)
    add(study, 0.3, TrialState.WAITING)

    seen = gp_view(study).get_trials(states=(TrialState.COMPLETE, TrialState.RUNNING))
    assert [(trial.params["lr"], trial.state.name) for trial in seen] == [(0.1, "RUNNING")]


def test_without_any_value_failed_points_teach_nothing_yet() -> None:
    study = optuna.create_study()
    add(study, 0.4, TrialState.PRUNED, failed=True)

    assert shown(study) == []


def test_the_study_itself_stays_as_it_is() -> None:
    study = optuna.create_study()
    add(study, 0.1, TrialState.COMPLETE, value=0.75)
    add(study, 0.4, TrialState.PRUNED, failed=True)

    gp_view(study)

    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "PRUNED"]


# Trials that tlopt did not run


def accept(params: Mapping[str, Any]) -> dict[str, Any] | None:
    return {"lr": float(params["lr"])} if 0 <= params.get("lr", -1) <= 1 else None


def test_a_foreign_trial_is_seen_in_the_searchs_own_space_or_not_at_all() -> None:
    study = optuna.create_study()
    add(study, 0.1, TrialState.COMPLETE, value=0.75)
    for params, space in (
        ({"lr": 0.5}, {"lr": FloatDistribution(0.0, 9.0)}),
        ({"lr": 5.0}, {"lr": FloatDistribution(0.0, 9.0)}),
        ({}, {}),
        ({"width": 3.0}, {"width": FloatDistribution(0.0, 9.0)}),
    ):
        study.add_trial(optuna.create_trial(value=0.5, params=params, distributions=space))

    seen = in_space(study.trials, SPACE, accept)

    assert [(trial.number, trial.params, trial.distributions) for trial in seen] == [
        (0, {"lr": 0.1}, SPACE),
        (1, {"lr": 0.5}, SPACE),
    ]
    assert study.trials[1].distributions != SPACE


def test_a_trial_that_is_drawing_is_seen_with_what_it_has() -> None:
    study = optuna.create_study()
    study.ask()

    assert [trial.number for trial in in_space(study.trials, SPACE, accept)] == [0]


@pytest.mark.parametrize(
    ("constraints", "shown"), [({}, -1.0), ({"mine": 3.0}, 1.0), ({"mine": -3.0, "outcome": -1.0}, -1.0)]
)
def test_every_finished_trial_has_the_one_constraint(constraints: dict[str, float], shown: float) -> None:
    trial = optuna.create_trial(value=0.5, params={"lr": 0.5}, distributions=SPACE, constraints=constraints)

    (seen,) = in_space([trial], SPACE, accept)

    assert seen.constraints == {"outcome": shown}
    assert trial.constraints == constraints


def test_with_several_objectives_failed_points_are_worst_in_each_and_others_have_their_last_values() -> None:
    study = optuna.create_study(directions=["maximize", "minimize"])
    for values in ([0.9, 10.0], [0.4, 2.0]):
        study.add_trial(optuna.create_trial(values=values))
    stopped = {attributes.VALUES: [0.2, 0.3], attributes.COSTS: [7.0]}
    study.add_trial(optuna.create_trial(state=TrialState.PRUNED, user_attrs=stopped))
    study.add_trial(optuna.create_trial(state=TrialState.PRUNED, constraints={OUTCOME_CONSTRAINT: 1.0}))
    study.add_trial(optuna.create_trial(state=TrialState.PRUNED))

    found = as_complete(study.get_trials(), study.directions)

    assert [trial.values for trial in found] == [[0.9, 10.0], [0.4, 2.0], [0.3, 7.0], [0.4, 10.0]]
    assert {trial.state for trial in found} == {TrialState.COMPLETE}
