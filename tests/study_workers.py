"""Workers of one study within this process, each with its own storage, and planted faults."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, Literal

import optuna
import pytest
import sqlalchemy as sa
from optuna.distributions import FloatDistribution
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from tlopt.model.facts import BackboneFacts
from tlopt.search.plan import StudyPlan
from tlopt.search.space import resolve
from tlopt.spec.sections import ServiceSpec
from tlopt.spec.trial_spec import TrialSpec
from tlopt.storage import leases, retry, schema, studies, workers
from tlopt.storage.attributes import POINT, WORKER
from tlopt.storage.leases import Claim, ObservedLease
from tlopt.storage.rdb import ServiceStorage
from tlopt.storage.workers import Identity
from tlopt.worker import claim as claims
from tlopt.worker.claim import StudyWork

STUDY = "shared"
TABLES = ("trials", "params", "user_attrs", "system_attrs", "reports", "leases")

FACTS = BackboneFacts(
    n_blocks={"net": 9},
    transferable=True,
    resolution={"net": 32},
    batch_norm={"net": True},
    plain_lr={"net": {"adamw": 0.001}},
)
TASK = TrialSpec(point=resolve({}, "net", 1, FACTS), seeds=(7,), splits=(0,), label="", prunable=True)

optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass
class Worker:
    """One worker; `me` is this process under a separate identity."""

    store: BaseStorage
    study: optuna.Study
    me: Identity

    @property
    def service(self) -> ServiceStorage:
        return studies.service_of(self.store)

    @property
    def study_id(self) -> int:
        return self.study._study_id

    @property
    def trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def try_claim(self, budget: int = 99, *, has_waiting: bool = False) -> tuple[Trial, Claim] | None:
        """A trial whose parameter x is drawn and written, or None."""

        plan = StudyPlan(
            hours=0.0,
            initial_points=lambda _: [],
            n_open=lambda _: budget,
            space={"x": FloatDistribution(0.0, 1.0)},
            accept=dict,
            trial_spec=lambda number, params: TASK,
            min_epochs=0,
        )
        nothing: Any = SimpleNamespace(device="cpu")
        work = StudyWork(
            optuna_study=self.study,
            plan=plan,
            workspace=nothing,
            folders=nothing,
            service=ServiceSpec(crashes_max=99),
            checkpoints=None,
        )
        found = claims.claim(work, self.service, self.me, has_waiting=has_waiting)
        return None if found is None else (found.trial, found.lease)

    def claim(self, budget: int = 99, *, has_waiting: bool = False) -> Trial:
        found = self.try_claim(budget, has_waiting=has_waiting)
        assert found is not None
        return found[0]

    def requeue(self, trial: Trial) -> None:
        self.service.set_trial_state_values(trial._trial_id, TrialState.WAITING)

    def seen(self, trial: Trial) -> ObservedLease:
        """The trial's current lease."""
        held = self.service.query(lambda executor: leases.held(executor, [self.study_id]))
        return next(seen for seen in held if seen.trial_id == trial._trial_id)

    def expire(self, trial: Trial) -> None:
        """Expire a trial's lease."""
        self.service.expire(self.seen(trial), "planted")

    def work_state(self, budget: int) -> tuple[str, bool]:
        return claims.work_state(self.study, lambda _: budget, hours=0.0, storage=self.service)

    def rows(self) -> dict[str, list[tuple[Any, ...]]]:
        """All rows of trials and leases, by table."""
        with self.service.engine.connect() as connection:
            return {
                name: sorted(map(tuple, connection.execute(sa.select(getattr(schema, name)))), key=repr)
                for name in TABLES
            }


def start_worker(url: str, **of_storage: Any) -> Worker:
    """Start a worker with a new storage on the database `url`, creating the study if missing."""
    store = studies.open_storage(url, **of_storage)
    study = optuna.create_study(
        storage=store,
        study_name=STUDY,
        direction="maximize",
        load_if_exists=True,
        sampler=optuna.samplers.RandomSampler(seed=7),
        pruner=optuna.pruners.NopPruner(),
    )
    return Worker(store, study, workers.this_process())


def noted(trial: FrozenTrial) -> dict[str, Any]:
    """User attributes set after the trial was claimed."""
    return {key: value for key, value in trial.user_attrs.items() if key not in (POINT, WORKER)}


def no_pauses(patch: pytest.MonkeyPatch) -> None:
    """Make retries immediate."""
    patch.setattr(retry, "_PAUSE_SECONDS", (0.0, 0.0))
    patch.setattr(retry, "_POLL_SECONDS", 0.0)
    patch.setattr("optuna.storages._rdb.storage.random.random", lambda: 0.0)


@contextmanager
def process() -> Iterator[tuple["subprocess.Popen[str]", Identity]]:
    """An idle process and its identity; killed when the block ends."""
    say = (
        "from tlopt.storage.workers import this_process; me = this_process();"
        " print(me.born, me.machine, flush=True); input()"
    )
    command = [sys.executable, "-c", say]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        born, machine = running.stdout.readline().split()
        yield running, replace(workers.this_process(), pid=running.pid, born=int(born), machine=machine)
        running.kill()


What = Literal["begin", "statement", "commit"]


class Faults:
    """Count operations of a worker's engine, and make one fail: `what` number `at`, from 0, done or not.

    The error is the driver's, as after a lost connection, unless `act` is given.
    """

    def __init__(self, worker: Worker, patch: pytest.MonkeyPatch) -> None:
        self._dialect = worker.service.engine.dialect
        self.clear()
        for name in ("do_commit", "do_execute", "do_execute_no_params", "do_executemany"):
            patch.setattr(self._dialect, name, self._faulty(getattr(self._dialect, name)))

    def clear(self) -> None:
        """Reset the counts and the planted fault."""
        self.counts: dict[What, int] = {"begin": 0, "statement": 0, "commit": 0}
        self._planted: tuple[What, int] | None = None
        self._resting = False

    def rest(self) -> None:
        """Remove the planted fault and stop counting."""
        self._planted, self._resting = None, True

    def plant(self, what: What, at: int, *, done: bool, act: Callable[[], None] | None = None) -> None:
        """Reset the counts and plant a fault."""
        self.clear()
        self._planted, self._done, self._act = (what, at), done, act or self._fail

    def _faulty(self, sound: Callable[..., None]) -> Callable[..., None]:
        def faulty(*args: Any, **kwargs: Any) -> None:
            what: What = "commit" if len(args) == 1 else "statement"
            if what == "statement" and args[1].startswith("BEGIN"):  # SQLite's; the others' is the driver's
                what = "begin"
            planted = self._planted == (what, self.counts[what])
            self.counts[what] += not self._resting
            if planted and not self._done:
                self._act()
            sound(*args, **kwargs)
            if planted and self._done:
                self._act()

        return faulty

    def _fail(self) -> None:
        raise self._dialect.loaded_dbapi.OperationalError("server closed the connection unexpectedly")
