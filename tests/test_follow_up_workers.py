"""A follow-up study whose workers start together takes over trials once and meets its budget exactly."""

from collections.abc import Callable

import pytest
from optuna.trial import TrialState
from service import NO_PRUNER, Service
from service import make_service as make_service

from tlopt.spec.outcome import Outcome
from tlopt.storage.attributes import ORIGIN

pytestmark = pytest.mark.slow

NARROW, WIDE = "lr = { log = [1e-3, 1e-2] }", "lr = { log = [1e-4, 1e-1] }"


def test_workers_that_start_together_carry_over_once_and_spend_the_budget_exactly(
    storage_url: str, service: Callable[..., Service]
) -> None:
    earlier = service(storage_url, name="narrow", trials=4, epochs=2, search=NARROW, tables=NO_PRUNER)
    assert earlier.worker().end()[0] == 0
    before = earlier.frozen()

    later = service(
        storage_url,
        file="wide.toml",
        head='warm_start = "narrow"',
        name="wide",
        trials=5,
        epochs=2,
        search=WIDE,
        tables=NO_PRUNER,
    )
    together = [later.worker(), later.worker()]
    ended = [worker.end() for worker in together]

    assert [status for status, _, _ in ended] == [0, 0], ended
    assert all("wide: warm start: " in output for _, output, _ in ended)
    after, records = later.frozen(), later.trials()
    assert [record.outcome for record in records] == [Outcome.CARRIED] * 4 + [Outcome.COMPLETE] * 5
    assert [trial.user_attrs[ORIGIN]["trial"] for trial in after[:4]] == [0, 1, 2, 3]
    assert [trial.value for trial in after[:4]] == [trial.value for trial in before]
    assert all(trial.state == TrialState.COMPLETE and ORIGIN not in trial.user_attrs for trial in after[4:])
