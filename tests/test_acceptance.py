"""The guarantees of the service, on real processes: budgets, signals, launchers, refusals."""

import re
import shlex
import signal
import sys
import time
from collections.abc import Callable

import optuna
import pytest
import tiny
from optuna.trial import TrialState
from service import FINISHED, STOP_SECONDS, WAIT_SECONDS, Service, alive, pids
from service import make_service as make_service

from tlopt import spec
from tlopt.storage.attributes import TEST_READINGS
from tlopt.storage.studies import create_or_open, open_storage

# A study that several work on


@pytest.mark.slow
def test_two_workers_share_a_study(storage_url: str, service: Callable[..., Service]) -> None:
    here = service(storage_url, trials=6, epochs=1)

    ended = [worker.end() for worker in (here.worker(), here.worker())]

    assert [(status, errors) for status, _, errors in ended] == [(0, "")] * 2
    trials = here.trials()
    finished = [trial for trial in trials if trial.state in FINISHED]
    assert [trial.number for trial in trials] == list(range(len(trials)))
    assert len(finished) == 6
    assert {trial.outcome for trial in trials} == {"complete"}
    assert len({trial.point["lr"] for trial in finished if trial.point is not None}) == 6
    assert sorted(trial.label for trial in finished if trial.label) == ["linear probe", "plain fine-tuning"]


@pytest.mark.slow
def test_run_searches_confirms_and_exports_and_then_shows(service: Callable[..., Service]) -> None:
    here = service(trials=3, epochs=1, tables="[confirm]\npoints = 1\nseeds = 3")

    status, out, errors = here.start("run", "--workers", "2").end(2 * WAIT_SECONDS)

    assert status == 0, errors
    assert [trial.state for trial in here.trials() if trial.state in FINISHED] == [TrialState.COMPLETE] * 3
    confirmed = [trial for trial in here.trials(".confirm") if trial.state in FINISHED]
    assert len(confirmed) in (12, 15)  # four defaults; the best point may be one
    assert f"exported to exports/{here.name}" in out
    assert (here.folder / "exports" / here.name / "weights.safetensors").exists()

    for _ in range(2):  # the second time, test metrics come from the database
        status, out, errors = here.start("export", "--ensemble", "--points", "3", "--overwrite").end()

        assert status == 0, errors
        assert re.search(r"ensemble of \d+ runs: accuracy .* on test\n", out)
        assert f"exported to exports/{here.name}-ensemble" in out
        confirmation = optuna.load_study(study_name=f"{here.name}.confirm", storage=here.url)
        assert confirmation.user_attrs[TEST_READINGS] == 2

    status, out, errors = here.start("run").end()

    assert status == 0, errors
    assert "is finished" in out
    assert len(here.trials(".confirm")) == len(confirmed)


@pytest.mark.slow
def test_run_names_the_command_that_exports_a_front_and_it_works(service: Callable[..., Service]) -> None:
    here = service(trials=3, epochs=1, tables="[confirm]\npoints = 2\nseeds = 3")
    here.file.write_text('objectives = ["accuracy", "multiply_adds"]\n' + here.file.read_text())

    status, out, errors = here.start("run", "--workers", "2").end(2 * WAIT_SECONDS)

    assert status == 0, errors
    (printed,) = re.findall(r"^next: tlopt (export .* --pareto.*?)  exports the ", out, re.MULTILINE)
    command = [sys.executable, "-m", "tlopt", *shlex.split(printed)]
    status, out, errors = here.launch(command, (), in_runs=False).end()
    assert status == 0, errors
    exported = re.findall(rf"exported to (exports/{here.name}-front/\S+)", out)
    assert exported
    assert all((here.folder / each / "weights.safetensors").exists() for each in exported)

    status, out, errors = here.start("run").end()

    assert status == 0, errors
    assert "next: tlopt predict" in out
    assert "--pareto" not in out


# Signals


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_worker_soon_and_the_next_one_finishes_its_trial(
    number: signal.Signals, service: Callable[..., Service], storage_url: str
) -> None:
    here = service(storage_url, trials=1, epochs=400)
    worker = here.worker()
    (running,) = here.wait_for_epochs(1)

    worker.send(number)
    status, out, errors = worker.end(STOP_SECONDS)

    assert (status, errors) == (0, "")
    assert "asked to stop" in out
    (waiting,) = here.trials()
    assert (waiting.outcome, waiting.point) == ("waiting", running.point)

    assert here.worker().end()[0] == 0
    (finished,) = here.trials()
    assert (finished.outcome, finished.number, finished.point) == ("complete", 0, running.point)
    assert finished.last_epoch == 399


@pytest.mark.slow
def test_sigterm_to_run_leaves_no_worker_behind(service: Callable[..., Service]) -> None:
    here = service(trials=2, epochs=1000)
    launcher = here.start("run", "--workers", "2")
    workers = pids(here.wait_for_epochs(2))
    assert len(workers) == 2

    launcher.send(signal.SIGTERM)
    status, _, _ = launcher.end(2 * STOP_SECONDS)

    assert status == 128 + signal.SIGTERM
    assert not any(map(alive, workers))
    assert [trial.outcome for trial in here.trials()] == ["waiting", "waiting"]


@pytest.mark.slow
def test_workers_whose_launcher_was_killed_end_after_their_epoch(service: Callable[..., Service]) -> None:
    here = service(trials=2, epochs=1000)
    launcher = here.start("run", "--workers", "2")
    workers = pids(here.wait_for_epochs(2))

    launcher.send(signal.SIGKILL)
    deadline = time.monotonic() + 3 * STOP_SECONDS
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)

    assert not any(map(alive, workers))
    assert [trial.outcome for trial in here.trials()] == ["waiting", "waiting"]


# Refusals


def refused(here: Service, fingerprints: dict[str, str]) -> list[str]:
    """The lines that a worker says whose study was begun with `fingerprints` before its file was changed."""
    text = here.file.read_text()
    store = open_storage(here.url)
    create_or_open(store, spec.loads(text, "study.toml"), file_text=text, fingerprints=dict(fingerprints))
    here.file.write_text(text.replace("epochs = 2", "epochs = 3"))
    status, out, errors = here.worker().end()
    assert (status, out) == (1, "")
    return errors.splitlines()


def test_a_worker_with_another_study_is_refused_with_the_lines_of_a_follow_up_study(
    service: Callable[..., Service], workshop: tiny.Workshop
) -> None:
    line, *cure = refused(service(), workshop.workspace.fingerprints)

    assert line.startswith("error: ")
    assert "budget.epochs: study has 2, here is 3" in line
    assert cure[0].startswith("To continue from its trials")
    assert [each.split(" = ")[0] for each in cure[1:]] == ["name", "warm_start"]


def test_a_worker_with_other_images_is_refused_in_one_line(
    service: Callable[..., Service], workshop: tiny.Workshop
) -> None:
    (line,) = refused(service(epochs=3), workshop.workspace.fingerprints | {"data": "0123456789abcdef"})

    assert line.startswith("error: ")
    assert f"data: study has 0123456789abcdef, here is {workshop.workspace.fingerprints['data']}" in line
