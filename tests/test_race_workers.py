"""A confirmation in rounds with workers that are killed and restarted has the exact number of runs."""

import contextlib
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable

import pytest
from optuna.trial import TrialState
from service import NO_PRUNER, WAIT_SECONDS, Service, wait
from service import make_service as make_service

from tlopt.search.race import KEPT, PARTLY, PLAIN, PROBE

pytestmark = pytest.mark.slow

TABLES = NO_PRUNER + "[service]\ngrace_seconds = 5\n[confirm]\npoints = 4\nseeds = 3"
N_RUNS = (4 + 2 * 2) + 4 * 3  # of the points, and of the four defaults


def finished(here: Service) -> Counter[int]:
    """Numbers of complete runs by candidate."""
    return Counter(
        trial.params["candidate"] for trial in here.frozen(".confirm") if trial.state == TrialState.COMPLETE
    )


def assert_in_rounds(here: Service) -> None:
    """Four points had one seed, two of them and the defaults all three; each run was finished once."""
    runs = finished(here)
    assert sum(runs.values()) == N_RUNS
    assert sorted(runs.values()) == [1, 1, 3, 3, 3, 3, 3, 3]
    assert {runs[number] for number in (PARTLY, KEPT, PROBE, PLAIN)} == {3}
    ended = [t for t in here.frozen(".confirm") if t.state == TrialState.COMPLETE]
    assert len({(t.params["candidate"], t.params["replicate"]) for t in ended}) == N_RUNS


@pytest.mark.timeout(900)
def test_a_confirmation_whose_launcher_and_workers_are_killed_ends_after_the_planned_runs(
    storage_url: str, service: Callable[..., Service]
) -> None:
    here = service(storage_url, trials=8, epochs=2, tables=TABLES)
    first = here.start("run", "--workers", "2")
    wait(lambda: sum(finished(here).values()) >= 2, "two runs of the confirmation")
    for worker in here.present():
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker.identity.pid, signal.SIGKILL)
    first.send(signal.SIGKILL)
    first.end()

    status, out, errors = here.start("run", "--workers", "2").end(4 * WAIT_SECONDS)

    assert status == 0, errors[-3000:]
    assert f"exported to exports/{here.name}" in out
    assert_in_rounds(here)
    status, _, errors = here.launch(
        [sys.executable, "-m", "tlopt", "export", str(here.file)],
        ["--top", "4", "--format", "json"],
        in_runs=False,
    ).end()
    assert status == 0, errors
