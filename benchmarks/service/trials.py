"""A trial without training, run through tlopt's leased storage or through Optuna's storage alone.

Both draw 10 parameters with the same sampler settings, report 30 epochs that take no time, ask the same
pruner after each without following its answer, and write 5 user attributes; tlopt also writes a constraint.
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, Protocol

import optuna
from optuna.distributions import FloatDistribution
from optuna.storages import BaseStorage

from tlopt.model.facts import BackboneFacts
from tlopt.search.plan import StudyPlan
from tlopt.search.samplers import InitialPointsSampler, make_pruner, make_sampler
from tlopt.search.space import resolve
from tlopt.spec import algorithms
from tlopt.spec.outcome import Outcome
from tlopt.spec.sections import ServiceSpec
from tlopt.spec.trial_spec import TrialSpec
from tlopt.storage import attributes, optuna_private, workers
from tlopt.storage.studies import service_of
from tlopt.storage.workers import Identity
from tlopt.worker import claim, finish, pictures
from tlopt.worker.claim import HeldTrial, StudyWork
from tlopt.worker.heartbeat import Heartbeat
from tlopt.worker.pruning import pruning_check

STUDY = "simulated"
N_PARAMS = 10
N_EPOCHS = 30
_BUDGET = 10**6  # trials
_RESULT = {
    "outcome": "complete",
    "best_epoch": 29,
    "best_value": 0.9,
    "metrics": {"accuracy": 0.9, "loss": 0.3},
    "train_loss": 0.1,
    "seconds": 60.0,
    "n_micro": 1,
    "cause": "",
}
_POINT = {f"p{i}": 0.5 for i in range(N_PARAMS)}
_FACTS = BackboneFacts(
    n_blocks={"net": 9},
    transferable=True,
    resolution={"net": 32},
    batch_norm={"net": True},
    plain_lr={"net": {"adamw": 0.001}},
)
_TASK = TrialSpec(
    point=resolve({}, "net", N_EPOCHS, _FACTS), seeds=(0,), splits=(0,), label="", prunable=True
)
_SAMPLER = algorithms.TpeSampler()
_PRUNER = algorithms.MedianPruner()

optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)


class Tally(Protocol):
    """A count of round trips by operation."""

    def at(self, operation: str) -> Any:
        """A context manager around one operation."""


class NoTally:
    """A tally that counts nothing."""

    @contextmanager
    def at(self, _operation: str) -> Iterator[None]:
        yield


def value(number: int, epoch: int) -> float:
    """The value that trial `number` reports after `epoch` (from 0): rises with epochs, differs by trial."""
    return 0.9 - 0.6 / (epoch + 1) + (number * 37 % 101) / 1000


def draw(trial: optuna.Trial) -> None:
    """Draw every parameter."""
    for i in range(N_PARAMS):
        trial.suggest_float(f"p{i}", 0.0, 1.0)


class Stock:
    """A worker that uses Optuna's ask and tell on any storage."""

    def __init__(self, storage: BaseStorage) -> None:
        self.study = optuna.load_study(
            study_name=STUDY,
            storage=storage,
            sampler=make_sampler(_SAMPLER, seed=os.getpid(), number=0),
            pruner=make_pruner(_PRUNER, epochs_max=N_EPOCHS),
        )

    def trial(self, tally: Tally) -> None:
        """Run one trial from start to end."""
        with tally.at("claim and 10 parameters"):
            trial = self.study.ask()
            draw(trial)
        with tally.at("3 attributes"):
            trial.set_user_attr(attributes.POINT, _POINT)
            trial.set_user_attr(attributes.WORKER, {"worker": "stock", "device": "cpu"})
            trial.set_user_attr(attributes.LABEL, "simulated")
        for epoch in range(N_EPOCHS):
            with tally.at("30 reports"):
                trial.report(value(trial.number, epoch), epoch)
            with tally.at("30 pruner checks"):
                trial.should_prune()
        with tally.at("2 attributes and the final state"):
            trial.set_user_attr(attributes.TRIAL_RESULT, _RESULT)
            trial.set_user_attr(attributes.NOTES, ["simulated"])
            self.study.tell(trial, value(trial.number, N_EPOCHS - 1))

    def close(self) -> None:
        """Do nothing: there is no heartbeat to stop."""


class Ours:
    """A worker that takes the same steps as tlopt's.

    Args:
        beating: Whether the heartbeat runs in a thread; otherwise call `beat`.
    """

    def __init__(self, storage: BaseStorage, *, beating: bool) -> None:
        self.storage = service_of(storage)
        self.study = optuna.load_study(
            study_name=STUDY, storage=storage, pruner=make_pruner(_PRUNER, epochs_max=N_EPOCHS)
        )
        self.study.sampler = InitialPointsSampler(lambda _: [], _SAMPLER, seed=0, full_study=self.study)
        plan = StudyPlan(
            hours=0.0,
            initial_points=lambda _: [],
            n_open=lambda _: _BUDGET,
            space={f"p{i}": FloatDistribution(0.0, 1.0) for i in range(N_PARAMS)},
            accept=dict,
            trial_spec=lambda number, params: _TASK,
            min_epochs=_PRUNER.min_epochs,
        )
        workspace: Any = SimpleNamespace(device="cpu", study=SimpleNamespace(direction="maximize"))
        nowhere: Any = None
        self.work = StudyWork(
            optuna_study=self.study,
            plan=plan,
            workspace=workspace,
            folders=nowhere,
            service=ServiceSpec(),
            checkpoints=None,
        )
        self.me: Identity = workers.this_process()
        engine = self.storage.engine
        self.storage.query(lambda e: workers.register(e, engine, self.me, device="cpu", studies=STUDY))
        self.heartbeat = Heartbeat(self.storage, self.me, [optuna_private.study_id(self.study)])
        if beating:
            self.heartbeat.start()

    def trial(self, tally: Tally) -> None:
        """Run one trial from start to end.

        Raises:
            RuntimeError: The study has no work.
        """
        with tally.at("look for work"):
            state, has_waiting = self.work.work_state(self.storage)
        with tally.at("claim and 10 parameters"):
            held = claim.claim(self.work, self.storage, self.me, has_waiting=has_waiting)
        if state != "work" or held is None:
            raise RuntimeError(f"a study with room has no trial: {state}")
        trial = held.trial
        self.heartbeat.hold(optuna_private.trial_id(trial), held.lease.token, 0.0)
        prunes = pruning_check(self.study, self.storage, min_epochs=self.work.plan.min_epochs)
        for epoch in range(N_EPOCHS):
            with tally.at("30 reports"):
                trial.report(value(trial.number, epoch), epoch)
            with tally.at("30 pruner checks"):
                prunes(trial)
        self._end(held, tally)
        self.heartbeat.release()

    def _end(self, held: HeldTrial, tally: Tally) -> None:
        last = value(held.trial.number, N_EPOCHS - 1)
        with tally.at("check for a new best"):
            pictures.wants_pictures(last, "", self.work, self.storage)
        with tally.at("2 attributes and the final state"):
            finish.finish_trial(held, Outcome.COMPLETE, _RESULT, ["simulated"], self.storage, values=(last,))

    def beat(self, tally: Tally) -> None:
        """Send one heartbeat."""
        with tally.at("one heartbeat"):
            self.heartbeat.beat_once()

    def close(self) -> None:
        """Stop the heartbeat."""
        self.heartbeat.stop()
