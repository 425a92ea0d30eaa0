"""Local workers that run one study to its end, and snapshots of the study meanwhile."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import optuna

from tlopt.analysis.snapshot import Snapshot, Stage
from tlopt.app.handle import Session
from tlopt.errors import NotReady, TloptError
from tlopt.search.plan import StudyPlan
from tlopt.spec.folders import Folders
from tlopt.storage import attributes, commands, studies
from tlopt.system.cpus import n_cores
from tlopt.system.words import counted
from tlopt.worker import local
from tlopt.worker.claim import work_state

POLL_SECONDS = 0.5


class WorkersFailed(TloptError):
    """Local workers ended with an error before the budget was spent."""


def follow(
    session: Session, opened: optuna.Study, plan: StudyPlan, folders: Folders, n_workers: int, *, stage: Stage
) -> Iterator[Snapshot]:
    """Run local workers until no trial of `plan` waits or runs, here or on another machine.

    Yields the study twice a second, at least once.

    Raises:
        WorkersFailed: workers ended with an error, and the budget is not spent.
        NotReady: the study was paused, cancelled, archived or deleted.
    """
    try:
        yield from _follow(session, opened, plan, folders, n_workers, stage=stage)
    except (KeyError, NotReady):
        if opened.study_name in optuna.get_all_study_names(session.store):
            raise
        raise NotReady(
            f"the study {opened.study_name} was deleted; begin it again with: {session.command('run')}"
        ) from None


def _follow(
    session: Session, opened: optuna.Study, plan: StudyPlan, folders: Folders, n_workers: int, *, stage: Stage
) -> Iterator[Snapshot]:
    from tlopt.training.devices import device_names

    _refuse_commanded(opened)
    log = folders.root / folders.study / "workers.log"
    at = local.slots(
        n_workers, device_names(), n_cores(), n_threads=opened.user_attrs.get(attributes.THREADS, 0)
    )
    of_stage = {"search": [], "confirm": ["--confirm"], "prune": ["--prune"]}[stage]
    places = ["--runs", str(session.runs), "--checkpoints", session.checkpoints]
    service = studies.service_of(session.store)

    def is_over() -> bool:
        return work_state(opened, plan.n_open, hours=plan.hours, storage=service)[0] == "over"

    if not is_over():
        with local.local_workers([session.target, *places, *of_stage], at, session.url, log) as workers:
            while workers.n_alive:
                yield _with_start(session.snapshot(stage), workers.n_alive)
                time.sleep(POLL_SECONDS)
                workers.replace_killed()
            n_failed = len(workers.failures)
        _refuse_commanded(opened)
        if n_failed and not is_over():
            raise WorkersFailed(
                f"{n_failed} of {counted(len(at), 'worker')} ended with an error; the end of"
                f" {log}:\n{_tail(log)}"
            )
    yield session.snapshot(stage)


def _with_start(snapshot: Snapshot, n_workers: int) -> Snapshot:
    """`snapshot`, with a line on starting workers while none has registered."""
    if snapshot.workers or snapshot.progress[0] or not n_workers:
        return snapshot
    return replace(snapshot, doing=f"starting {counted(n_workers, 'worker')}")


def _refuse_commanded(opened: optuna.Study) -> None:
    """Raise if the study is paused, stopped, cancelled or archived."""
    refuse_stopped(opened)
    command = commands.command_of(opened)
    if not command.runs_trials:
        raise NotReady(
            f"{opened.study_name} is {command.state}; continue with: tlopt resume {opened.study_name}"
        )


def _tail(log: Path, n_lines: int = 15) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-n_lines:])


def refuse_stopped(opened: optuna.Study) -> None:
    """Raise if the study's workers had to stop.

    Raises:
        WorkersFailed: too many trials in a row crashed or failed; says why.
    """
    command = commands.command_of(opened)
    if command.state == "stopped":
        raise WorkersFailed(f"{opened.study_name} was stopped: {command.reason} {opened.study_name}")
