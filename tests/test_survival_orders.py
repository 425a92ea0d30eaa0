"""Commands reach all workers of a study, and workers of a finished study end."""

from collections.abc import Callable

import pytest
import tiny
import torch
from faulty import HOLD_EPOCH
from optuna.trial import TrialState
from service import (
    LOSS,
    NO_PRUNER,
    STOP_SECONDS,
    Service,
    assert_undisturbed,
    resumed_at,
    trained,
    wait,
)
from service import make_service as make_service

from tlopt import spec
from tlopt.storage import attributes
from tlopt.storage.studies import create_or_open, open_storage
from tlopt.worker.heartbeat import Activity

GRACE = NO_PRUNER + "[service]\ngrace_seconds = 12"  # a beat a second


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def outcomes(here: Service) -> list[str]:
    return [trial.outcome for trial in here.trials()]


def idle(here: Service, n_workers: int) -> bool:
    """Return whether exactly `n_workers` workers are listed, all of them idle."""
    return [row.doing for row in here.present()] == [Activity().text()] * n_workers


@pytest.mark.slow
def test_a_paused_studys_workers_wait_and_go_on_when_it_is_resumed(
    storage_url: str, service: Callable[..., Service], workshop: tiny.Workshop
) -> None:
    here = service(storage_url, head=LOSS, trials=2, epochs=16, tables=GRACE)
    workers = [here.worker(faults="hold,slow"), here.worker(faults="hold,slow")]
    here.wait_for_epochs(2, HOLD_EPOCH)

    here.tell("pause")
    here.go()
    wait(lambda: outcomes(here) == ["waiting"] * 2, "waiting trials", 2 * STOP_SECONDS)
    wait(lambda: idle(here, 2), "idle workers")
    here.hurry()
    assert [worker.status for worker in workers] == [None, None]
    n_epochs = [len(trained(here.log(trial))[0]) for trial in (0, 1)]

    here.tell("resume")
    assert [worker.end()[0] for worker in workers] == [0, 0]
    assert_undisturbed(here, workshop)
    for n, trial in zip(n_epochs, here.trials(), strict=True):
        assert n < 16
        assert resumed_at(trial) == [n]
        assert any("the study is paused" in note for note in trial.notes)


@pytest.mark.slow
def test_a_cancelled_studys_workers_save_their_trials_and_end(
    storage_url: str, service: Callable[..., Service], workshop: tiny.Workshop
) -> None:
    here = service(storage_url, head=LOSS, trials=2, epochs=16, tables=GRACE)
    workers = [here.worker(faults="hold,slow"), here.worker(faults="hold,slow")]
    here.wait_for_epochs(2, HOLD_EPOCH)

    here.tell("cancel")
    here.go()

    assert [worker.end(2 * STOP_SECONDS)[::2] for worker in workers] == [(0, ""), (0, "")]
    assert outcomes(here) == ["waiting"] * 2
    here.hurry()
    here.tell("resume")
    assert here.worker().end()[0] == 0
    assert_undisturbed(here, workshop)


@pytest.mark.slow
def test_a_worker_of_two_studies_serves_the_second_while_the_first_has_nothing(
    service: Callable[..., Service],
) -> None:
    first = service(file="first.toml", name="first", trials=2, epochs=16, tables=GRACE)
    second = service(file="second.toml", name="second", trials=2, epochs=16, tables=GRACE)
    worker = first.worker("--studies", f"{first.file},{second.file}", faults="hold,slow")
    first.wait_for_epochs(1, HOLD_EPOCH)
    assert outcomes(second) == []

    first.tell("pause")
    first.go()
    second.wait_for_epochs(1)
    first.hold()
    assert outcomes(first) == ["waiting"]
    first.tell("resume")
    first.go()
    first.hurry()
    status, out, errors = worker.end()

    assert (status, errors) == (0, "")
    assert out.startswith("4 trials finished here")
    ended = [(trial.finished, here.name) for here in (first, second) for trial in here.trials()]
    assert [name for _, name in sorted(ended)] == ["second", "first", "first", "second"]


def test_a_finished_study_ends_a_worker_before_torch_is_loaded(
    storage_url: str, service: Callable[..., Service]
) -> None:
    here = service(storage_url, trials=1, epochs=1)
    text = here.file.read_text()
    opened = create_or_open(
        open_storage(here.url), spec.loads(text, "study.toml"), file_text=text, fingerprints={}
    )
    trial = opened.ask()
    trial.set_user_attr(attributes.TRIAL_RESULT, {"outcome": "complete"})  # as a worker leaves it
    opened.tell(trial, 0.5)

    status, out, errors = here.worker(faults="no-torch").end()

    assert (status, errors) == (0, "")
    assert out.startswith("0 trials finished here")
    assert [trial.state for trial in here.trials()] == [TrialState.COMPLETE]
