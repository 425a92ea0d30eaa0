"""One search by one system: its processes started, ended when the time is up, and what its trials came to."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import optuna
from peers_job import Job, Size, study_text

from tlopt.app.handle import open_session
from tlopt.storage.attributes import TrialRecord
from tlopt.system.cpus import n_cores

SYSTEMS = {
    "plain": "plain script: Optuna, TPE, median",
    "ray": "Ray Tune, ASHA",
    "syne": "Syne Tune, ASHA",
    "tlopt1": "tlopt, 1 worker",
    "tlopt2": "tlopt, 2 workers",
}
WORKERS = {"tlopt1": 1, "tlopt2": 2}
OWN_END = {"ray", "syne"}  # end by themselves when the time is up, and their trials with them
OWN_END_SECONDS = 60.0
STOP_SECONDS = 15.0


@dataclass(frozen=True, kw_only=True)
class Search:
    """What is searched, by which system."""

    data: Path  # with train/, val/ and test/, as many images as are used
    system: str
    seed: int
    size: Size


def run_search(search: Search) -> list[dict[str, Any]]:
    """Run it in a new folder, with nothing in any cache; its trials, see `from_reports`.

    Raises:
        SystemExit: a process ended with an error, or no epoch was reported.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        text = study_text(search.data, search.seed, search.size)
        (folder / "study.toml").write_text(text)
        keys: dict[str, Any] = {"data": str(search.data), "folder": name, "seed": search.seed}
        job = Job(**keys, began=time.time(), seconds=search.size.seconds)
        with (folder / "log.txt").open("wb") as log:
            failed = _run(job, search.system, log.fileno())
        trials = from_study(job) if search.system in WORKERS else from_reports(job, search.size.epochs)
        if failed or not trials:
            raise SystemExit(f"{search.system} failed:\n{(folder / 'log.txt').read_text()[-6000:]}")
    return trials


def _run(job: Job, system: str, log: int) -> bool:
    """Whether a process ended with an error of its own."""
    environment = os.environ | _environment(job, system)
    commands = _commands(job, system)
    processes = [
        subprocess.Popen(
            c, cwd=job.folder, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        for c in commands
    ]  # fmt: skip
    spare = OWN_END_SECONDS if system in OWN_END else 0.0
    try:
        _wait(processes, job.began + job.seconds + spare)
        failed = any((process.poll() or 0) > 0 for process in processes)
    finally:
        _stop(processes)
    return failed


def _commands(job: Job, system: str) -> list[list[str]]:
    file = str(job.write())
    if system not in WORKERS:
        return [[sys.executable, str(Path(__file__).with_name(f"peers_{system}.py")), file]]
    threads = str(max(1, n_cores() // WORKERS[system]))
    worker = [sys.executable, "-m", "tlopt", "worker", "study.toml", "--threads", threads]
    return [worker] * WORKERS[system]


def _environment(job: Job, system: str) -> Mapping[str, str]:
    if system == "ray":
        return {"RAY_USAGE_STATS_ENABLED": "0"}
    if system in WORKERS:
        threads = str(max(1, n_cores() // WORKERS[system]))
        cache = {"TLOPT_CACHE": f"{job.folder}/cache", "TLOPT_STORAGE": _url(job)}
        return cache | {"OMP_NUM_THREADS": threads}  # as `tlopt run` does
    return {}


def _url(job: Job) -> str:
    return f"sqlite:///{job.folder}/tlopt.db"


def _wait(processes: Sequence[subprocess.Popen[bytes]], until: float) -> None:
    for process in processes:
        try:
            process.wait(max(0.0, until - time.time()))
        except subprocess.TimeoutExpired:
            return


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ask them and theirs to end, and end those that do not."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in processes:
            try:
                os.killpg(process.pid, number)
            except ProcessLookupError:
                continue
        _wait(processes, time.time() + STOP_SECONDS)


def from_reports(job: Job, epochs: int) -> list[dict[str, Any]]:
    """Trials by their last report: seconds, accuracy by epoch, point, and whether all epochs were trained."""
    rows = sorted(job.reports(), key=lambda row: str(row["trial"]))
    trials = []
    for _, group in groupby(rows, key=lambda row: str(row["trial"])):
        reports = sorted(group, key=lambda row: int(row["epoch"]))
        trials.append(
            {
                "seconds": reports[-1]["seconds"],
                "accuracy": [row["accuracy"] for row in reports],
                "complete": len(reports) == epochs,
                "point": reports[-1]["point"],
            }
        )
    return sorted(trials, key=lambda trial: float(str(trial["seconds"])))


def from_study(job: Job) -> list[dict[str, Any]]:
    """The same of tlopt's trials, `seconds` when they were told; None of those that did not end."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder = Path(job.folder)
    session = open_session(folder / "study.toml", storage_url=_url(job), runs=folder / "runs")
    trials = []
    for trial in session.optuna_study().get_trials(deepcopy=False):
        record = TrialRecord.from_frozen(trial)
        if not trial.intermediate_values:
            continue
        values = [value for _, value in sorted(trial.intermediate_values.items())]
        seconds = record.finished.timestamp() - job.began if record.finished else None
        trials.append(
            {
                "seconds": seconds,
                "accuracy": values,
                "complete": record.outcome == "complete",
                "point": record.point,
            }
        )
    return trials


def save(file: Path, search: Search, trials: list[dict[str, Any]]) -> None:
    """Whole or not at all."""
    row = {"data": search.data.name, "seed": search.seed, "system": search.system, "trials": trials}
    unfinished = file.with_suffix(".part")
    unfinished.write_text(json.dumps(row) + "\n")
    unfinished.replace(file)
