"""Trials that pause by promotion: which are trained to the end, and what becomes of them with the hours."""

from collections.abc import Callable

import pytest
import tiny
from optuna.trial import TrialState
from pausing import EPOCHS, PROMOTION, let_time_pass, n_epochs
from service import FINISHED

from tlopt.storage import attributes

Place = Callable[..., tiny.Place]


def test_exactly_the_budget_ends_and_only_the_best_are_trained_to_the_end(
    pausing_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.plant(monkeypatch, PROMOTION.curve)
    here = pausing_place(PROMOTION, trials=24)

    assert here.work() == 24
    assert here.work() == 0
    assert all(trial.state in FINISHED for trial in here.trials)
    assert set(n_epochs(here)) <= {1, 2, 4, 8}
    assert sum(n_epochs(here)) < 0.75 * 24 * EPOCHS
    sampled = [trial for trial in here.trials if not trial.user_attrs.get(attributes.LABEL)]
    best = min(sampled, key=lambda trial: trial.params["lr"])
    assert best.state == TrialState.COMPLETE
    assert all(
        t.user_attrs[attributes.TRIAL_RESULT]["cause"] for t in here.trials if t.state.name == "PRUNED"
    )


def test_paused_trials_end_when_the_hours_are_over(
    pausing_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.plant(monkeypatch, PROMOTION.curve)
    here = pausing_place(PROMOTION, trials=50, budget="hours = 2")
    let_time_pass(monkeypatch, here)

    n_ended = here.work()

    assert 4 <= n_ended <= 20
    assert all(trial.state in FINISHED for trial in here.trials)
