"""What a Gaussian process is shown of a study: everything that was learned, nothing that was not."""

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState

from tlopt.search.gp_view import gp_view

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

    view = gp_view(study).get_trials(states=(TrialState.COMPLETE, TrialState.RUNNING))
    assert [(trial.params["lr"], trial.state.name) for trial in view] == [(0.1, "RUNNING")]


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
