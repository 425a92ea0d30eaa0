"""One search by one system: start its process on one core, stop it when the time is up, read its trials."""

import json
import os
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import optuna

from benchmarks.common.processes import module_command, module_environment
from benchmarks.peers.job import Job, Size, study_of
from tlopt.app.handle import Session, open_session
from tlopt.spec.outcome import Outcome
from tlopt.storage.attributes import TrialRecord, records_of, trials_of

SYSTEMS = {
    "plain": "plain script: Optuna, TPE, median",
    "ray": "Ray Tune, ASHA",
    "syne": "Syne Tune, ASHA",
    "neps": "NePS, PriorBand",
    "tlopt": "tlopt, search and confirmation",
}
MODULES = {
    "plain": "benchmarks.peers.with_optuna",
    "ray": "benchmarks.peers.with_ray",
    "syne": "benchmarks.peers.with_syne_tune",
    "neps": "benchmarks.peers.with_neps",
}
INIT_SHARE = 0.75  # of a search's seconds, told to `tlopt init`, which reckons with an otherwise idle machine
OWN_END = {"ray", "syne"}  # these end by themselves, with their trials, when the time is up
OWN_END_SECONDS = 60.0
STOP_SECONDS = 15.0
Result = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Search:
    """One search: images, system, seed."""

    data: Path  # folder with train/, val/ and test/; all images are used
    proposed: str  # the study file that `tlopt init` writes for them
    system: str
    seed: int
    size: Size


def propose(data: Path, size: Size) -> str:
    """The study file that `tlopt init` writes for these images, one core and the time of a search."""
    with tempfile.TemporaryDirectory() as name:
        options: dict[str, Any] = {
            "--epochs": size.epochs,
            "--resolution": size.resolution,
            "--minutes": INIT_SHARE * size.seconds / 60,
            "--backbone": size.backbone,
            "--data": "test_fraction=0",  # the judge has the test images
            "--output": Path(name) / "study.toml",
        }
        words = [word for option, value in options.items() for word in (option, str(value))]
        command = module_command("tlopt", "init", data, *words)
        ended = subprocess.run(command, env=module_environment(), capture_output=True, text=True)
        if ended.returncode:
            raise SystemExit(f"tlopt init failed: {ended.stderr[-2000:]}")
        return Path(options["--output"]).read_text()


def run_search(search: Search) -> Result:
    """Run a search in a new folder with empty caches, on the cores of this thread.

    Returns `trials`, see `from_reports`, and of tlopt also `choice` and `candidates`, see `from_study`.

    Raises:
        SystemExit: The process ended with an error, or no epoch was reported.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "study.toml").write_text(study_of(search.proposed, search.seed))
        keys: dict[str, Any] = {"data": str(search.data), "folder": name, "seed": search.seed}
        job = Job(**keys, began=time.time(), seconds=search.size.seconds)
        with (folder / "log.txt").open("wb") as log:
            failed = _run(job, search.system, log.fileno())
        found = from_study(job) if search.system == "tlopt" else from_reports(job, search.size.epochs)
        if failed or not found["trials"]:
            raise SystemExit(f"{search.system} failed:\n{(folder / 'log.txt').read_text()[-6000:]}")
    return found


def _run(job: Job, system: str, log: int) -> bool:
    """Run the process of a search; return whether it ended with an error of its own."""
    environment = module_environment() | {"OMP_NUM_THREADS": "1"} | _environment(job, system)
    process = subprocess.Popen(
        _command(job, system), cwd=job.folder, env=environment, stdout=log, stderr=log,
        stdin=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    spare = OWN_END_SECONDS if system in OWN_END else 0.0
    try:
        _wait(process, job.began + job.seconds + spare)
        failed = (process.poll() or 0) > 0
    finally:
        _stop(process)
    return failed


def _command(job: Job, system: str) -> list[str]:
    file = str(job.write())
    if system in MODULES:
        return module_command(MODULES[system], file)
    return module_command("tlopt", "run", "study.toml", "--workers", "1")


def _environment(job: Job, system: str) -> dict[str, str]:
    match system:
        case "ray":
            return {"RAY_USAGE_STATS_ENABLED": "0"}
        case "tlopt":
            return {"TLOPT_CACHE": f"{job.folder}/cache", "TLOPT_STORAGE": _url(job)}
        case _:
            return {}


def _url(job: Job) -> str:
    return f"sqlite:///{job.folder}/tlopt.db"


def _wait(process: subprocess.Popen[bytes], until: float) -> None:
    try:
        process.wait(max(0.0, until - time.time()))
    except subprocess.TimeoutExpired:
        return


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask the process and its children to end, then kill those that remain."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            continue
        _wait(process, time.time() + STOP_SECONDS)


def from_reports(job: Job, epochs: int) -> Result:
    """`trials` in order of their last report.

    Each has `seconds` of the last report, `accuracy` by epoch, `point`, and `complete`: whether it trained
    all `epochs`. Further reports of an epoch, by a system that evaluates a point again, are left out.
    """
    rows = sorted(job.reports(), key=lambda row: str(row["trial"]))
    trials = []
    for _, group in groupby(rows, key=lambda row: str(row["trial"])):
        reports = {int(row["epoch"]): row for row in reversed(list(group))}  # the first of each epoch
        last = reports[max(reports)]
        trials.append(
            {
                "seconds": last["seconds"],
                "accuracy": [reports[epoch]["accuracy"] for epoch in sorted(reports)],
                "complete": max(reports) + 1 == epochs,
                "point": last["point"],
            }
        )
    return {"trials": sorted(trials, key=lambda trial: float(str(trial["seconds"])))}


def from_study(job: Job) -> Result:
    """tlopt's trials in the form of `from_reports`, `candidates` of its confirmation, and its `choice`.

    `seconds` is None for trials that did not end. The choice, of a confirmation that ended in time, has
    `seconds`, `point` and `label`; it is None otherwise.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder = Path(job.folder)
    session = open_session(folder / "study.toml", storage_url=_url(job), runs=folder / "runs")
    trials = []
    for trial, record in _records(session.optuna_study()):
        values = [value for _, value in sorted(trial.intermediate_values.items())]
        if values:
            seconds = record.finished.timestamp() - job.began if record.finished else None
            complete = record.outcome == Outcome.COMPLETE
            trials.append(
                {"seconds": seconds, "accuracy": values, "complete": complete, "point": record.point}
            )
    return {"trials": trials, **_confirmed(session, job.began)}


def _records(study: optuna.Study) -> list[tuple[optuna.trial.FrozenTrial, TrialRecord]]:
    return list(zip(trials_of(study), records_of(study), strict=True))


def _confirmed(session: Session, began: float) -> Result:
    """`choice` and `candidates` of the confirmation."""
    verdict = session.verdict()
    if verdict is None:
        return {"choice": None, "candidates": []}
    ends = [each.finished.timestamp() for _, each in _records(session.confirmation()) if each.finished]
    chosen = {"point": verdict.chosen.point.as_dict(), "label": verdict.chosen.label}
    choice = {"seconds": max(ends) - began, **chosen} if verdict.finished else None
    return {"choice": choice, "candidates": [row.point.as_dict() for row in verdict.rows]}


def save(file: Path, search: Search, found: Result) -> None:
    """Write what was found by `search` to `file`, atomically."""
    row = {"data": search.data.name, "seed": search.seed, "system": search.system, **found}
    unfinished = file.with_suffix(".part")
    unfinished.write_text(json.dumps(row) + "\n")
    unfinished.replace(file)
