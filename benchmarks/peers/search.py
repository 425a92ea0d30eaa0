"""One search by one system: start its processes, stop them when the time is up, read its trials."""

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import optuna

from benchmarks.common.processes import module_command, module_environment
from benchmarks.peers.job import Job, Size, search_study
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
MODULES = {
    "plain": "benchmarks.peers.with_optuna",
    "ray": "benchmarks.peers.with_ray",
    "syne": "benchmarks.peers.with_syne_tune",
}
OWN_END = {"ray", "syne"}  # these end by themselves, with their trials, when the time is up
OWN_END_SECONDS = 60.0
STOP_SECONDS = 15.0


@dataclass(frozen=True, kw_only=True)
class Search:
    """One search: images, system, seed."""

    data: Path  # folder with train/, val/ and test/; all images are used
    system: str
    seed: int
    size: Size


def run_search(search: Search) -> list[dict[str, Any]]:
    """Run a search in a new folder with empty caches; returns its trials, see `from_reports`.

    Raises:
        SystemExit: A process ended with an error, or no epoch was reported.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        text = search_study(search.data, search.seed, search.size)
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
    """Run the processes of a search; return whether one ended with an error of its own."""
    environment = module_environment() | _environment(job, system)
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
        return [module_command(MODULES[system], file)]
    threads = str(max(1, n_cores() // WORKERS[system]))
    return [module_command("tlopt", "worker", "study.toml", "--threads", threads)] * WORKERS[system]


def _environment(job: Job, system: str) -> dict[str, str]:
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
    """Ask the processes and their children to end, then kill those that remain."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in processes:
            try:
                os.killpg(process.pid, number)
            except ProcessLookupError:
                continue
        _wait(processes, time.time() + STOP_SECONDS)


def from_reports(job: Job, epochs: int) -> list[dict[str, Any]]:
    """Trials in order of their last report.

    Each has `seconds` of the last report, `accuracy` by epoch, `point`, and `complete`: whether it trained
    all `epochs`.
    """
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
    """tlopt's trials in the form of `from_reports`; `seconds` of the end, None for those that did not end."""
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
    """Write the trials of `search` to `file`, atomically."""
    row = {"data": search.data.name, "seed": search.seed, "system": search.system, "trials": trials}
    unfinished = file.with_suffix(".part")
    unfinished.write_text(json.dumps(row) + "\n")
    unfinished.replace(file)
