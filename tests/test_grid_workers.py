"""A grid with real workers: one killed, one asked to stop, and every point has every seed exactly once."""

import os
import signal
from collections import Counter
from collections.abc import Callable

import pytest
from optuna.trial import TrialState
from service import WAIT_SECONDS, Service, wait
from service import make_service as make_service

from tlopt import spec

pytestmark = pytest.mark.slow

GRID = '[sampler]\nkind = "grid"\nrepeats = 3\n[service]\ngrace_seconds = 5\n'
SEARCH = "lr = { choice = [0.01, 0.001] }\nfreeze_depth = { choice = [0.0, 1.0] }"


def runs(here: Service) -> Counter[tuple[object, ...]]:
    """Complete runs by their parameters."""
    trials = [trial for trial in here.frozen() if trial.state == TrialState.COMPLETE]
    return Counter(tuple(sorted(trial.params.items())) for trial in trials)


@pytest.mark.timeout(900)
def test_every_run_of_a_grid_is_finished_once_though_workers_are_killed_and_stopped(
    storage_url: str, service: Callable[..., Service]
) -> None:
    here = service(storage_url, trials=12, epochs=2, search=SEARCH, tables=GRID)
    study = spec.load(here.file)
    assert study.is_grid
    workers = [here.worker() for _ in range(3)]
    wait(lambda: sum(runs(here).values()) >= 2, "two runs")
    os.kill(workers[0].pid, signal.SIGKILL)
    workers[1].send(signal.SIGTERM)
    late = here.worker()

    for worker in (workers[2], late):
        status, _, errors = worker.end(4 * WAIT_SECONDS)
        assert status == 0, errors[-3000:]

    found = runs(here)
    assert set(found.values()) == {1}
    assert len(found) == study.budget.trials
    for trial in here.trials():
        assert trial.outcome != "complete" or trial.train_accuracies.keys() == {1, 2}
    assert not [t for t in here.frozen() if t.state in (TrialState.RUNNING, TrialState.WAITING)]
