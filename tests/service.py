"""A study with real worker processes, and their state as seen from outside."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import optuna
import pytest
import tiny
from faulty import FAST, GO
from optuna.trial import FrozenTrial, TrialState

from tlopt import spec
from tlopt.search.plan import search_plan
from tlopt.storage import workers as worker_rows
from tlopt.storage.attributes import TRIAL_RESULT, TrialRecord
from tlopt.storage.studies import open_storage, service_of
from tlopt.storage.workers import WorkerStatus
from tlopt.trial.execution import train_to_end

STOP_SECONDS = 10.0  # in which a worker that was asked to has ended
WAIT_SECONDS = 120.0  # for whatever has to happen first on a busy machine
LOOK_SECONDS = 0.1
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
LOSS = 'objective = "log_loss"'  # shows a differing bit
NO_PRUNER = '[pruner]\nkind = "none"\n'
MARK = "OF_TEST"  # an environment variable, by which processes of a test are found
FAULTY = Path(__file__).with_name("faulty.py")

T = TypeVar("T")


def wait(look: Callable[[], T], what: str, seconds: float = WAIT_SECONDS) -> T:
    """Call `look` until it returns a true value, and return that."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(LOOK_SECONDS)
    raise AssertionError(f"no {what} after {seconds:g} s")


@dataclass(frozen=True)
class Started:
    """A process of a test, and the files with what it says."""

    process: subprocess.Popen[bytes]
    out: Path
    errors: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def status(self) -> int | None:
        """Exit status; None while it runs."""
        return self.process.poll()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def end(self, seconds: float = WAIT_SECONDS) -> tuple[int, str, str]:
        """Exit status, standard output and errors of a process that ends within `seconds`."""
        try:
            status = self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it runs after {seconds:g} s: {self.errors.read_text()}") from None
        return status, self.out.read_text(), self.errors.read_text()


@dataclass(frozen=True, kw_only=True)
class Service:
    """A study file, its database, and processes that work on it."""

    file: Path
    url: str
    folder: Path
    processes: list[Started] = field(default_factory=list)

    def start(self, command: str, *arguments: str) -> Started:
        """`tlopt COMMAND FILE` with one thread."""
        return self.launch([sys.executable, "-m", "tlopt", command, str(self.file)], arguments)

    def worker(self, *arguments: str, faults: str = "") -> Started:
        """`tlopt worker` on the CPU, with faults from `faulty`."""
        tlopt = [str(FAULTY), faults] if faults else ["-m", "tlopt"]
        options = ["--device", "cpu", "--threads", "1", *arguments]
        target = [] if "--studies" in arguments else [str(self.file)]
        return self.launch([sys.executable, *tlopt, "worker", *target], options)

    def tell(self, command: str) -> None:
        """`tlopt pause`, `resume` or `cancel`."""
        told = self.launch([sys.executable, "-m", "tlopt", command, str(self.file)], (), in_runs=False)
        status, _, errors = told.end()
        assert status == 0, errors

    def launch(self, command: Sequence[str], arguments: Sequence[str], *, in_runs: bool = True) -> Started:
        """A process of its own group, whose output goes to files."""
        runs = ["--runs", str(self.folder / "runs")] if in_runs else []
        stem = self.folder / f"process-{len(self.processes)}"
        out, errors = stem.with_suffix(".out"), stem.with_suffix(".err")
        with out.open("wb") as out_file, errors.open("wb") as error_file:
            process = subprocess.Popen(
                [*command, *runs, *arguments],
                env=os.environ | {"TLOPT_STORAGE": self.url, "OMP_NUM_THREADS": "1", MARK: str(self.folder)},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=out_file,
                stderr=error_file,
                start_new_session=True,
            )
        self.processes.append(Started(process, out, errors))
        return self.processes[-1]

    def go(self) -> None:
        """Let workers with the fault "hold" go on."""
        (self.folder / GO).touch()

    def hold(self) -> None:
        """Hold them again."""
        (self.folder / GO).unlink()

    def hurry(self) -> None:
        """Let workers with the fault "slow" be so no longer."""
        (self.folder / FAST).touch()

    @property
    def name(self) -> str:
        """The study's."""
        return spec.load(self.file).name

    def frozen(self, suffix: str = "") -> list[FrozenTrial]:
        """Trials of the study, or with a suffix of its confirmation; none before it exists."""
        try:
            opened = optuna.load_study(study_name=self.name + suffix, storage=open_storage(self.url))
        except KeyError:
            return []
        return opened.get_trials(deepcopy=False)

    def trials(self, suffix: str = "") -> list[TrialRecord]:
        """As `frozen`, as records."""
        return [TrialRecord.from_frozen(trial) for trial in self.frozen(suffix)]

    def present(self) -> list[WorkerStatus]:
        """The workers that have a row."""
        storage = service_of(open_storage(self.url))
        return storage.query(lambda executor: worker_rows.list_workers(executor, storage.engine))

    def log(self, trial: int) -> list[dict[str, Any]]:
        """Events that the workers have logged of a trial."""
        path = self.folder / "runs" / self.name / "trials" / f"{trial:04d}.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()]

    def checkpoints(self, trial: int) -> list[Path]:
        """The trial's files, oldest first."""
        return sorted((self.folder / "runs" / "checkpoints" / self.name / f"{trial:06d}").glob("*.ckpt"))

    def wait_for_epochs(self, n_trials: int, n_epochs: int = 1) -> list[TrialRecord]:
        """Wait for at least `n_trials` running trials with at least `n_epochs` reported epochs each."""

        def look() -> list[TrialRecord]:
            running = [t for t in self.trials() if t.outcome == "running" and t.last_epoch is not None]
            found = [t for t in running if t.last_epoch is not None and t.last_epoch >= n_epochs - 1]
            if len(found) >= n_trials:
                return found
            assert not [process.end() for process in self.processes if process.status is not None]
            return []

        return wait(look, f"{n_trials} trials with {n_epochs} epochs")

    def wait_for_presence(self, *workers: Started) -> None:
        """Until these have begun to look for trials."""
        pids = {worker.pid for worker in workers}
        wait(lambda: pids <= {row.identity.pid for row in self.present()}, f"workers {pids}")

    def trial_of(self, worker: Started) -> TrialRecord:
        """The running trial that a worker has."""
        (found,) = [t for t in self.trials() if t.outcome == "running" and pids([t]) == {worker.pid}]
        return found

    def holder(self, trial: int, *, but: Started | None = None) -> Started:
        """The process that has the trial, once one has it, or another one than `but`."""

        def look() -> Started | None:
            running = [t for t in self.trials()[trial : trial + 1] if t.outcome == "running"]
            return next((p for p in self.processes if p != but and p.pid in pids(running)), None)

        return wait(look, f"holder of trial {trial}")


@pytest.fixture(name="service")
def make_service(study_text: Callable[..., str], tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """A service on a database; keywords as for `study_text`, and `head` for lines at the file's top.

    Its processes are gone afterwards.
    """
    made: list[Service] = []

    def make(url: str = "", *, file: str = "study.toml", head: str = "", **changes: Any) -> Service:
        path = tmp_path / file
        path.write_text(tiny.lighter(study_text(**changes), head=head))
        made.append(Service(file=path, url=url or f"sqlite:///{tmp_path}/tlopt.db", folder=tmp_path))
        return made[-1]

    try:
        yield make
    finally:
        for started in (started for service in made for started in service.processes):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(started.pid, signal.SIGKILL)
            started.process.wait()
        for pid in marked(tmp_path):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def marked(folder: Path) -> list[int]:
    """Processes of the test that has `folder`, on Linux also those that have left their group."""
    wanted = f"{MARK}={folder}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if wanted in (process / "environ").read_bytes().split(b"\0") and alive(int(process.name)):
                found.append(int(process.name))
    return found


def pids(trials: list[TrialRecord]) -> set[int]:
    """Of the processes that have the trials, or had them last."""
    return {int(trial.worker.rpartition(":")[2]) for trial in trials if trial.worker}


def alive(pid: int) -> bool:
    """Return whether a process is running; a zombie is not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


# What is to come of a trial


def undisturbed(here: Service, trial: FrozenTrial, shop: tiny.Workshop) -> dict[int, float]:
    """The reports of `trial`, by epoch, had nothing befallen it: it is trained again in this process."""
    study = spec.load(here.file)
    plan = search_plan(study, shop.facts, len(shop.workspace.data.splits))
    task = plan.draw(trial)
    epochs = train_to_end(task, replace(shop.workspace, study=study))
    return {epoch.index: epoch.val.as_dict()[study.objective] for epoch in epochs if epoch.val is not None}


def assert_undisturbed(here: Service, shop: tiny.Workshop) -> None:
    """Every trial of the budget is complete, with the very values of an undisturbed one."""
    trials = here.frozen()
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * spec.load(here.file).budget.trials
    for trial in trials:
        assert trial.intermediate_values == undisturbed(here, trial, shop)
        assert trial.value == trial.intermediate_values[max(trial.intermediate_values)]


def trained(log: list[dict[str, Any]]) -> list[list[int]]:
    """The epochs of a trial's log, for each start of it."""
    starts: list[list[int]] = []
    for event in log:
        if event["event"] == "start":
            starts.append([])
        elif event["event"] == "epoch":
            starts[-1].append(event["epoch"])
    return starts


def resumed_at(trial: TrialRecord) -> list[int]:
    """The epochs, from 0, at which its notes say that it was taken up again."""
    return [int(n.split()[3].strip(",;")) - 1 for n in trial.notes if n.startswith("resumed at epoch")]


def result_of(trial: FrozenTrial) -> dict[str, Any]:
    """The record that its worker has written at its end."""
    return dict(trial.user_attrs[TRIAL_RESULT])
