"""The road from a study file to a verdict, step by step; each long step yields what it has come to so far."""

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import optuna

from tlopt.errors import NotReady, TloptError
from tlopt.point import seed_for
from tlopt.results import confirm as confirmation
from tlopt.results.verdict import Verdict
from tlopt.search import launcher, storage
from tlopt.search.interrupt import Interrupt
from tlopt.search.plan import Plan, confirm_plan, search_plan
from tlopt.search.records import TrialRecord
from tlopt.search.sampler import FirstThese, make_pruner
from tlopt.search.space import check_depths
from tlopt.search.worker import Folders, work
from tlopt.session import Session
from tlopt.spec import Study

if TYPE_CHECKING:
    from tlopt.search.bench import Bench

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


def prepare(session: Session, *, device: str = "cpu", progress: bool = False) -> "Bench":
    """The study's images and weights, read and checked against its ranges.

    Raises:
        SpecError, DataError, WeightsError: what is wrong, and what to do.
    """
    from tlopt.search.bench import choose_device, open_bench

    bench = open_bench(session.study, choose_device(device), progress=progress)
    check_depths(session.study, bench.limits)
    return bench


def begin(session: Session, bench: "Bench") -> optuna.Study:
    """The study in the database, created or opened; a worker or a dashboard can now join.

    Raises:
        StudyChanged: the name is taken by a study that means something else.
    """
    plan = search_plan(session.study, bench.limits, len(bench.data.splits))
    return storage.create_or_open(
        session.store,
        session.study,
        file_text=session.file_text,
        facts=dict(bench.facts),
        sampler=_sampler(session.study, plan, session.study.name),
        pruner=make_pruner(session.study.pruner, epochs_max=session.study.budget.epochs),
    )


def begin_confirm(session: Session, bench: "Bench") -> optuna.Study:
    """The confirmation in the database, with the search's best points and the defaults as candidates.

    Raises:
        NotReady: no trial of the search is complete.
    """
    limits = bench.limits
    candidates = confirmation.find_candidates(session.study, session.optuna_study(), limits)
    return confirmation.open_confirmation(
        session.store, session.study, file_text=session.file_text, facts=bench.facts, candidates=candidates
    )


def work_here(session: Session, bench: "Bench", *, confirm: bool, interrupt: Interrupt) -> int:
    """Be a worker until the budget is spent or a stop is asked for; returns the number of trials finished."""
    study = session.study
    if confirm:
        opened = session.confirmation()
        candidates = confirmation.stored_candidates(opened)
        plan = confirm_plan(study, candidates, len(bench.data.splits), session.weights_file)
        opened = begin_confirm_as_worker(session, bench, plan)
        return work(opened, session.store, plan, bench, session.confirm_folders, interrupt)
    opened = begin(session, bench)
    plan = search_plan(study, bench.limits, len(bench.data.splits))
    return work(opened, session.store, plan, bench, session.folders, interrupt)


def begin_confirm_as_worker(session: Session, bench: "Bench", plan: Plan) -> optuna.Study:
    """The confirmation that exists, checked against this machine's images and weights."""
    opened = confirmation.open_confirmation(
        session.store, session.study, file_text=session.file_text, facts=bench.facts, candidates=()
    )
    opened.sampler = _sampler(session.study, plan, opened.study_name)
    opened.pruner = optuna.pruners.NopPruner()
    return opened


def search(session: Session, bench: "Bench", *, n_workers: int = 0) -> Iterator[Snapshot]:
    """Run the search with local workers, yielding what it has come to twice a second.

    Raises:
        WorkersFailed: a worker ended with an error and the budget is not spent.
    """
    opened = begin(session, bench)
    yield from _follow(
        session, opened, session.folders, session.study.budget.trials, n_workers, title="search", extra=()
    )


def confirm(session: Session, bench: "Bench", *, n_workers: int = 0) -> Iterator[Snapshot]:
    """Run the confirmation with local workers, yielding what it has come to twice a second."""
    opened = begin_confirm(session, bench)
    n_planned = len(confirmation.stored_candidates(opened)) * session.study.confirm.seeds
    yield from _follow(
        session, opened, session.confirm_folders, n_planned, n_workers, title="confirm", extra=("--confirm",)
    )


def judge(session: Session, bench: "Bench") -> Verdict:
    """The verdict of a finished confirmation; reads the held-out images where that was not done yet.

    Raises:
        NotReady: the confirmation has runs to go.
    """
    from tlopt.results.held_out import read_test

    opened = session.confirmation()
    verdict = confirmation.read_verdict(session.study, opened)
    if not verdict.finished:
        raise NotReady(
            f"{opened.study_name}: {verdict.n_finished} of {verdict.n_expected} runs have ended;"
            f" go on with: tlopt confirm {session.target}"
        )
    wanted = confirmation.wants_test(verdict)
    if wanted and bench.data.n_test:
        confirmation.record_test(opened, read_test(bench, wanted, session.weights_file))
        verdict = confirmation.read_verdict(session.study, opened)
    return verdict


def snapshot(
    opened: optuna.Study, study: Study, *, title: str, n_planned: int, n_workers: int, seconds: float
) -> Snapshot:
    """What `opened` has come to."""
    return Snapshot(
        title=title,
        study=study,
        trials=tuple(TrialRecord.from_frozen(trial) for trial in opened.get_trials(deepcopy=False)),
        n_planned=n_planned,
        n_workers=n_workers,
        seconds=seconds,
    )


def _sampler(study: Study, plan: Plan, name: str) -> FirstThese:
    return FirstThese(plan.first, study.sampler, seed=seed_for(study.seed, name))


def _follow(
    session: Session,
    opened: optuna.Study,
    folders: Folders,
    n_planned: int,
    n_workers: int,
    *,
    title: str,
    extra: Sequence[str],
) -> Iterator[Snapshot]:
    from tlopt.search.bench import devices

    start = time.monotonic()
    log = folders.root / folders.study / "workers.log"
    at = launcher.slots(n_workers, devices(), os.cpu_count() or 1)
    arguments = [session.target, "--runs", str(session.runs), *extra]

    def now(n_alive: int) -> Snapshot:
        return snapshot(
            opened,
            session.study,
            title=title,
            n_planned=n_planned,
            n_workers=n_alive,
            seconds=time.monotonic() - start,
        )

    if now(0).n_finished < n_planned:
        with launcher.local_workers(arguments, at, session.url, log) as workers:
            while workers.n_alive:
                yield now(workers.n_alive)
                time.sleep(POLL_SECONDS)
            failures = workers.failures
        if failures and now(0).n_finished < n_planned:
            raise WorkersFailed(
                f"{len(failures)} of {len(at)} workers ended with an error; the end of {log}:\n{_tail(log)}"
            )
    yield now(0)


def _tail(log: Path, n_lines: int = 15) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-n_lines:])
