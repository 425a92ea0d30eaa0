"""The guarantees of the service, on real processes: budgets, signals, launchers, refusals."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pytest
import tiny
from optuna.trial import TrialState

from tlopt import spec
from tlopt.search.records import TrialRecord
from tlopt.search.storage import create_or_open, open_storage

STOP_SECONDS = 10.0  # in which a worker that was asked to has ended
WAIT_SECONDS = 120.0  # for whatever has to happen first on a busy machine
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True, kw_only=True)
class Service:
    """A study file, its database, and processes that work on it."""

    file: Path
    url: str
    folder: Path
    processes: list[subprocess.Popen[str]]

    def start(self, command: str, *arguments: str) -> subprocess.Popen[str]:
        """`tlopt COMMAND FILE` with one thread."""
        options = ["--runs", str(self.folder / "runs"), *arguments]
        process = subprocess.Popen(
            [sys.executable, "-m", "tlopt", command, str(self.file), *options],
            env=os.environ | {"TLOPT_STORAGE": self.url, "OMP_NUM_THREADS": "1"},
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        return process

    def worker(self, *arguments: str) -> subprocess.Popen[str]:
        """`tlopt worker` on the CPU."""
        return self.start("worker", "--device", "cpu", "--threads", "1", *arguments)

    @property
    def name(self) -> str:
        """The study's."""
        return spec.load(self.file).name

    def trials(self, suffix: str = "") -> list[TrialRecord]:
        """Of the study, or with a suffix of its confirmation; empty before it exists."""
        try:
            opened = optuna.load_study(study_name=self.name + suffix, storage=open_storage(self.url))
        except KeyError:
            return []
        return [TrialRecord.from_frozen(trial) for trial in opened.get_trials(deepcopy=False)]

    def wait_for_epochs(self, n_trials: int) -> list[TrialRecord]:
        """So many running trials that have each reported an epoch."""
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            running = [t for t in self.trials() if t.outcome == "running" and t.last_epoch is not None]
            if len(running) >= n_trials:
                return running
            ended = [(p.returncode, *p.communicate()) for p in self.processes if p.poll() is not None]
            assert not ended
            time.sleep(0.1)
        raise AssertionError(f"no {n_trials} trials have an epoch after {WAIT_SECONDS} s: {self.trials()}")


@pytest.fixture
def service(study_text: Callable[..., str], tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """A service on a database; keywords as for `study_text`. Its processes are gone afterwards."""
    made: list[Service] = []

    def make(url: str = f"sqlite:///{tmp_path}/tlopt.db", **changes: Any) -> Service:
        file = tmp_path / "study.toml"
        file.write_text(tiny.lighter(study_text(**changes)))
        made.append(Service(file=file, url=url, folder=tmp_path, processes=[]))
        return made[-1]

    yield make
    for process in (process for service in made for process in service.processes):
        process.kill()
        process.communicate()


def end(process: subprocess.Popen[str], seconds: float = WAIT_SECONDS) -> tuple[int, str, str]:
    """Exit status, standard output and errors of a process that ends within `seconds`."""
    out, errors = process.communicate(timeout=seconds)
    return process.returncode, out, errors


def pids(trials: list[TrialRecord]) -> set[int]:
    return {int(trial.worker.rpartition(":")[2]) for trial in trials}


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


# A study that several work on


@pytest.mark.slow
def test_two_workers_share_a_study(storage_url: str, service: Callable[..., Service]) -> None:
    here = service(storage_url, trials=6, epochs=1)

    ended = [end(worker) for worker in (here.worker(), here.worker())]

    assert [(status, errors) for status, _, errors in ended] == [(0, "")] * 2
    trials = here.trials()
    finished = [trial for trial in trials if trial.state in FINISHED]
    assert [trial.number for trial in trials] == list(range(len(trials)))
    assert len(finished) == 6
    assert {trial.outcome for trial in trials} - {"withdrawn"} == {"complete"}
    assert len({trial.point["lr"] for trial in finished if trial.point is not None}) == 6
    assert sorted(trial.label for trial in finished if trial.label) == ["linear probe", "plain fine-tuning"]


@pytest.mark.slow
def test_run_searches_confirms_and_exports_and_then_shows(service: Callable[..., Service]) -> None:
    here = service(trials=3, epochs=1, tables="[confirm]\npoints = 1\nseeds = 3")

    status, out, errors = end(here.start("run", "--workers", "2"), 2 * WAIT_SECONDS)

    assert status == 0, errors
    assert [trial.state for trial in here.trials() if trial.state in FINISHED] == [TrialState.COMPLETE] * 3
    confirmed = [trial for trial in here.trials(".confirm") if trial.state in FINISHED]
    assert len(confirmed) in (6, 9)  # the best point may be a default
    assert f"exported to exports/{here.name}" in out
    assert (here.folder / "exports" / here.name / "weights.safetensors").exists()

    status, out, errors = end(here.start("run"))

    assert status == 0, errors
    assert "is finished" in out
    assert len(here.trials(".confirm")) == len(confirmed)


# Signals


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_worker_soon_and_the_next_one_finishes_its_trial(
    number: signal.Signals, service: Callable[..., Service], storage_url: str
) -> None:
    here = service(storage_url, trials=1, epochs=20)
    worker = here.worker()
    (running,) = here.wait_for_epochs(1)

    worker.send_signal(number)
    status, out, errors = end(worker, STOP_SECONDS)

    assert (status, errors) == (0, "")
    assert "asked to stop" in out
    (waiting,) = here.trials()
    assert (waiting.outcome, waiting.point) == ("waiting", running.point)

    assert end(here.worker())[0] == 0
    (finished,) = here.trials()
    assert (finished.outcome, finished.number, finished.point) == ("complete", 0, running.point)
    assert finished.last_epoch == 19


@pytest.mark.slow
def test_sigterm_to_run_leaves_no_worker_behind(service: Callable[..., Service]) -> None:
    here = service(trials=2, epochs=1000)
    launcher = here.start("run", "--workers", "2")
    workers = pids(here.wait_for_epochs(2))
    assert len(workers) == 2

    launcher.send_signal(signal.SIGTERM)
    status, _, _ = end(launcher, 2 * STOP_SECONDS)

    assert status == 128 + signal.SIGTERM
    assert not any(map(alive, workers))
    assert [trial.outcome for trial in here.trials()] == ["waiting", "waiting"]


@pytest.mark.slow
def test_workers_whose_launcher_was_killed_end_after_their_epoch(service: Callable[..., Service]) -> None:
    here = service(trials=2, epochs=1000)
    launcher = here.start("run", "--workers", "2")
    workers = pids(here.wait_for_epochs(2))

    launcher.kill()
    deadline = time.monotonic() + 3 * STOP_SECONDS
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)

    assert not any(map(alive, workers))
    assert [trial.outcome for trial in here.trials()] == ["waiting", "waiting"]


# Refusals


def refused(here: Service, facts: dict[str, str]) -> str:
    """The only line that a worker says whose study was begun with `facts` before its file was changed."""
    text = here.file.read_text()
    store = open_storage(here.url)
    create_or_open(store, spec.loads(text, "study.toml"), file_text=text, facts=dict(facts))
    here.file.write_text(text.replace("epochs = 2", "epochs = 3"))
    status, out, errors = end(here.worker())
    assert (status, out) == (1, "")
    (line,) = errors.splitlines()
    return line


def test_a_worker_with_another_study_is_refused_in_one_line(
    service: Callable[..., Service], workshop: tiny.Workshop
) -> None:
    line = refused(service(), workshop.bench.facts)

    assert line.startswith("StudyChanged: ")
    assert "budget.epochs: study has 2, here is 3" in line


def test_a_worker_with_other_images_is_refused_in_one_line(
    service: Callable[..., Service], workshop: tiny.Workshop
) -> None:
    line = refused(service(epochs=3), workshop.bench.facts | {"data": "0123456789abcdef"})

    assert line.startswith("StudyChanged: ")
    assert f"data: study has 0123456789abcdef, here is {workshop.bench.facts['data']}" in line
