"""Local workers kept on one study until it is over, and what it has come to meanwhile."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import optuna

from tlopt.app.handle import Session
from tlopt.errors import NotReady, TloptError
from tlopt.search.plan import Plan
from tlopt.spec import Study
from tlopt.spec.folders import Folders
from tlopt.storage import attributes, commands, studies
from tlopt.storage.attributes import TrialRecord
from tlopt.system.cpus import n_cores
from tlopt.worker import local
from tlopt.worker.claim import standing

POLL_SECONDS = 0.5


class WorkersFailed(TloptError):
    """Local workers ended with an error before the budget was spent."""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A study at one moment."""

    title: str
    study: Study
    trials: tuple[TrialRecord, ...]
    n_planned: int  # trials the budget allows
    n_workers: int  # local ones that are alive
    seconds: float  # since the command began

    @property
    def n_finished(self) -> int:
        """Complete and pruned trials."""
        return sum(1 for trial in self.trials if trial.counts)


def follow(
    session: Session, opened: optuna.Study, plan: Plan, folders: Folders, n_workers: int, *, title: str
) -> Iterator[Snapshot]:
    """Keep local workers on `plan` until nothing of it waits or runs, here or on another machine."""
    from tlopt.trial.workspace import devices

    _refuse_told(opened)
    start = time.monotonic()
    log = folders.root / folders.study / "workers.log"
    at = local.slots(n_workers, devices(), n_cores(), n_threads=opened.user_attrs.get(attributes.THREADS, 0))
    confirm = ["--confirm"] if title == "confirm" else []
    places = ["--runs", str(session.runs), "--checkpoints", session.checkpoints]
    service = studies.service_of(session.store)

    def now(n_alive: int) -> Snapshot:
        frozen = opened.get_trials(deepcopy=False)
        return Snapshot(
            title=title,
            study=session.study,
            trials=tuple(TrialRecord.from_frozen(trial) for trial in frozen),
            n_planned=plan.trials,
            n_workers=n_alive,
            seconds=time.monotonic() - start,
        )

    def is_over() -> bool:
        return standing(opened, trials=plan.trials, hours=plan.hours, storage=service)[0] == "over"

    if not is_over():
        with local.local_workers([session.target, *places, *confirm], at, session.url, log) as workers:
            while workers.n_alive:
                yield now(workers.n_alive)
                time.sleep(POLL_SECONDS)
                workers.replace_killed()
            n_failed = len(workers.failures)
        _refuse_told(opened)
        if n_failed and not is_over():
            raise WorkersFailed(
                f"{n_failed} of {len(at)} workers ended with an error; the end of {log}:\n{_tail(log)}"
            )
    yield now(0)


def _refuse_told(opened: optuna.Study) -> None:
    """Check that nobody has told the study's workers not to work."""
    refuse_stopped(opened)
    order = commands.order_of(opened)
    if not order.works:
        raise NotReady(f"{opened.study_name} is {order.state}; go on with: tlopt resume {opened.study_name}")


def _tail(log: Path, n_lines: int = 15) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-n_lines:])


def refuse_stopped(opened: optuna.Study) -> None:
    """Check that the study's workers did not have to stop.

    Raises:
        WorkersFailed: too many trials in a row crashed or failed; says why.
    """
    order = commands.order_of(opened)
    if order.state == "stopped":
        raise WorkersFailed(f"{opened.study_name} was stopped: {order.reason} {opened.study_name}")
