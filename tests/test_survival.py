"""Workers killed, stopped and started together: no trial is lost, duplicated or changed."""

import os
import re
import signal
from collections.abc import Callable

import pytest
import tiny
import torch
from faulty import HOLD_EPOCH, SKEW
from optuna.trial import TrialState
from service import (
    FINISHED,
    LOSS,
    NO_PRUNER,
    STOP_SECONDS,
    WAIT_SECONDS,
    Service,
    assert_undisturbed,
    marked,
    pids,
    resumed_at,
    trained,
    undisturbed,
    wait,
)
from service import make_service as make_service

pytestmark = pytest.mark.slow

LONG_GRACE = NO_PRUNER + "[service]\ngrace_seconds = 600"  # whoever waits for it is too late
SHORT_GRACE = NO_PRUNER + "[service]\ngrace_seconds = 5"


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def n_finished(out: str) -> int:
    """As the worker says it at its end."""
    found = re.match(r"(\d+) trials? finished here", out)
    assert found is not None, out
    return int(found[1])


# Killed


def test_a_killed_workers_trial_goes_on_at_once_elsewhere_to_the_same_end(
    storage_url: str, service: Callable[..., Service], workshop: tiny.Workshop
) -> None:
    here = service(storage_url, head=LOSS, trials=1, epochs=12, tables=LONG_GRACE)
    workers = [here.worker(faults="hold"), here.worker(faults="hold")]
    here.wait_for_presence(*workers)
    here.wait_for_epochs(1, HOLD_EPOCH)
    first = here.holder(0)
    second = next(worker for worker in workers if worker != first)
    (before,) = here.frozen()

    first.send(signal.SIGKILL)
    assert here.holder(0, but=first) == second
    here.go()
    status, out, _ = second.end()

    assert (status, n_finished(out)) == (0, 1)
    assert_undisturbed(here, workshop)
    (after,) = here.frozen()
    assert (after.number, after.params) == (before.number, before.params)
    (resumed,) = resumed_at(here.trials()[0])
    one, two = trained(here.log(0))
    assert one == [0, 1]
    assert two == list(range(resumed, 12))
    assert 0 < resumed <= 2


def test_a_shortened_network_goes_on_from_a_killed_worker_to_the_same_end(
    service: Callable[..., Service], workshop: tiny.Workshop
) -> None:
    structure = "backbone_depth = 0.4\nneck_layers = 2\nneck_width = 16\nneck_convolution = 'separable'"
    here = service(head=LOSS, trials=1, epochs=8, search=structure, tables=LONG_GRACE)
    first = here.worker(faults="hold")
    here.wait_for_epochs(1, HOLD_EPOCH)

    first.send(signal.SIGKILL)
    here.go()
    status, _, errors = here.worker().end()

    assert status == 0, errors
    assert_undisturbed(here, workshop)
    (trial,) = here.trials()
    assert trial.point is not None
    assert (trial.point["backbone_depth"], trial.point["neck_layers"]) == (5, 2)
    assert len(resumed_at(trial)) == 1


def test_run_replaces_a_killed_worker_and_finishes(service: Callable[..., Service]) -> None:
    here = service(trials=2, epochs=30, tables=NO_PRUNER + "[confirm]\npoints = 1\nseeds = 3")
    launcher = here.start("run", "--workers", "2")
    (victim, *_) = pids(here.wait_for_epochs(1))

    kill(victim)
    status, out, errors = launcher.end(2 * WAIT_SECONDS)

    assert status == 0, errors
    assert "exported to" in out
    assert [trial.state for trial in here.trials()] == [TrialState.COMPLETE] * 2
    assert max(len(trained(here.log(trial))) for trial in (0, 1)) == 2  # one was taken up again


def test_a_killed_launcher_leaves_no_process_and_no_trial_behind(
    service: Callable[..., Service], workshop: tiny.Workshop
) -> None:
    here = service(head=LOSS, trials=2, epochs=40, tables=LONG_GRACE)
    launcher = here.start("run", "--workers", "2")
    (victim, *_) = pids(here.wait_for_epochs(1))

    kill(victim)
    launcher.send(signal.SIGKILL)
    wait(lambda: not marked(here.folder), "end of all processes", 3 * STOP_SECONDS)

    assert here.worker().end()[0] == 0
    assert_undisturbed(here, workshop)


def kill(pid: int) -> None:
    """End a process that was not started here."""
    os.kill(pid, signal.SIGKILL)


# Stopped, and gone on with later


def test_a_stopped_worker_that_comes_back_writes_nothing_to_the_trial_it_has_lost(
    storage_url: str, service: Callable[..., Service], workshop: tiny.Workshop
) -> None:
    here = service(storage_url, head=LOSS, trials=1, epochs=8, tables=SHORT_GRACE)
    first = here.worker(faults="hold,skew")
    here.wait_for_epochs(1, HOLD_EPOCH)
    second = here.worker(faults="hold,slow")
    here.wait_for_presence(second)

    first.send(signal.SIGSTOP)
    assert here.holder(0, but=first) == second
    here.go()
    first.send(signal.SIGCONT)
    ended = [worker.end() for worker in (first, second)]

    assert [status for status, _, _ in ended] == [0, 0]
    assert [n_finished(out) for _, out, _ in ended] == [0, 1]
    assert any("dropped by" in event.get("text", "") for event in here.log(0))
    (trial,) = here.frozen()
    values, expected = trial.intermediate_values, undisturbed(here, trial, workshop)
    assert trial.state == TrialState.COMPLETE
    assert {epoch: values[epoch] for epoch in range(HOLD_EPOCH, 8)} == {
        epoch: expected[epoch] for epoch in range(HOLD_EPOCH, 8)
    }
    assert values[0] == expected[0] + SKEW  # what the first one wrote would show
    assert trial.value == expected[7]


def test_a_worker_in_its_own_trial_makes_a_stopped_ones_wait_which_then_works_on(
    storage_url: str, service: Callable[..., Service], workshop: tiny.Workshop
) -> None:
    here = service(storage_url, head=LOSS, trials=3, epochs=8, tables=SHORT_GRACE)
    first, second = here.worker(faults="hold,slow"), here.worker(faults="hold,slow")
    here.wait_for_epochs(2, HOLD_EPOCH)
    lost = here.trial_of(first).number

    first.send(signal.SIGSTOP)
    wait(lambda: here.trials()[lost].outcome == "waiting", "waiting trial")
    assert here.trial_of(second).number != lost
    here.go()
    here.hurry()
    first.send(signal.SIGCONT)
    ended = [worker.end() for worker in (first, second)]

    assert [status for status, _, _ in ended] == [0, 0]
    assert sum(n_finished(out) for _, out, _ in ended) == 3
    assert n_finished(ended[0][1]) >= 1
    assert any("dropped by" in event.get("text", "") for event in here.log(lost))
    assert_undisturbed(here, workshop)


# In a crowd


@pytest.mark.postgres
@pytest.mark.timeout(900)
def test_sixteen_workers_at_once_on_an_empty_database_keep_the_budget(
    postgres_url: str, service: Callable[..., Service]
) -> None:
    here = service(postgres_url, trials=8, epochs=2)
    workers = [here.worker() for _ in range(16)]

    ended = [worker.end(5 * WAIT_SECONDS) for worker in workers]

    assert [(status, errors) for status, _, errors in ended] == [(0, "")] * 16
    finished = [trial for trial in here.trials() if trial.state in FINISHED]
    assert len(finished) == 8
    assert {trial.outcome for trial in here.trials()} <= {"complete", "pruned"}
    assert sum(n_finished(out) for _, out, _ in ended) == 8
