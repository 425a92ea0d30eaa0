"""The one bridge between torch and Optuna: a point is trained, its epochs reported, its end decided."""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Protocol

import optuna

from tlopt.errors import Diverged, OutOfMemory, TimedOut, TrialError
from tlopt.spec import objectives
from tlopt.spec.trial_spec import TrialSpec
from tlopt.storage import optuna_private
from tlopt.training.devices import release_memory
from tlopt.training.loop import Epoch, Step
from tlopt.trial.execution import (
    Keeper,
    Mistakes,
    Saving,
    TrialRun,
    check_time,
    events,
    find_mistakes,
    resume,
)
from tlopt.trial.workspace import Workspace
from tlopt.worker.shutdown import SAVE_SECONDS, STEP_SECONDS, Interrupt
from tlopt.worker.trial_log import TrialLog

_N_MISTAKES = 12


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a trial ended; `value` is the objective after the last epoch, None where there was none."""

    outcome: str  # complete, pruned, diverged, out_of_memory, timed_out or crashed
    value: float | None
    best_epoch: int | None  # from 0
    best_value: float | None
    metrics: dict[str, float]
    train_loss: float | None
    seconds: float  # of work, over all who had the trial
    processor_seconds: float  # of processor time, over all who had the trial
    n_micro: int  # pieces in which a batch went through the network
    cause: str
    epochs: tuple[Epoch, ...]
    has_pictures: bool  # whether the trial, which is complete, is to have some
    mistakes: Mistakes | None  # for one of them, where they could be found

    def as_dict(self) -> dict[str, Any]:
        """For the trial's record; the value is Optuna's own."""
        return {
            "outcome": self.outcome,
            "best_epoch": self.best_epoch,
            "best_value": self.best_value,
            "metrics": self.metrics,
            "train_loss": self.train_loss,
            "seconds": round(self.seconds, 3),
            "processor_seconds": round(self.processor_seconds, 3),
            "n_micro": self.n_micro,
            "cause": self.cause,
        }


class Requeue(Exception):
    """The trial is to wait for another worker, or for this one later; says why."""


class Holder(Protocol):
    """What a trial owes to its worker's other duties."""

    def goes_on(self, event: Step | Epoch) -> None:
        """Take note that the trial has made a step.

        Raises:
            Requeue: it is to end here for now.
            LeaseLost: it is another worker's.
        """


@dataclass(frozen=True, kw_only=True)
class TrialContext:
    """Under what a worker runs one trial."""

    interrupt: Interrupt
    holder: Holder
    keeper: Keeper | None  # None: no checkpoints
    prunes: Callable[[optuna.Trial], bool]
    trial_seconds_max: float  # 0: no limit
    shows: Callable[[float], bool]  # whether a trial that is complete with this value is to have pictures
    notes: list[str]  # what befell the trial, for its record; added to


def run_trial(
    trial: optuna.Trial, task: TrialSpec, workspace: Workspace, *, log: TrialLog, conditions: TrialContext
) -> Result:
    """Train `task` from where it stands and report each epoch; how it ended.

    Args:
        trial: running; it is not told here.

    Raises:
        Requeue, LeaseLost: it goes on elsewhere; where there was time, it was saved.
        Interrupted: it was given up in the middle of a step; the last checkpoint stands.
    """
    n_micro, resides = 1, True
    while True:
        attempt = _Attempt(trial, task, workspace, log, conditions)
        try:
            return attempt.run(n_micro, resides=resides)
        except TrialError as error:
            outcome, cause = _outcome(error), str(error)
        # Here, where no traceback holds the networks any more.
        attempt.at = None
        left = outcome == "out_of_memory" and resides and workspace.leave_device()
        release_memory(workspace.device)
        if left:  # what was there for speed alone decides over no trial
            n_micro, resides = attempt.n_micro, False
            conditions.notes.append(f"out of memory: kept images and features leave the device ({cause})")
            continue
        if outcome != "out_of_memory" or 2 * attempt.n_micro > task.point.batch_size // 2:
            return attempt.result(outcome, cause)
        n_micro = 2 * attempt.n_micro
        conditions.notes.append(
            f"out of memory: batches go through in {n_micro} pieces from now on ({cause})"
        )


@dataclass
class _Attempt:
    """One go at a trial; `at` holds the networks."""

    trial: optuna.Trial
    task: TrialSpec
    workspace: Workspace
    log: TrialLog
    under: TrialContext
    at: TrialRun | None = None
    n_micro: int = 1
    seconds: float = 0.0
    processor_seconds: float = 0.0
    epochs: Sequence[Epoch] = ()
    has_pictures: bool = False
    mistakes: Mistakes | None = None

    def run(self, n_micro: int, *, resides: bool) -> Result:
        self.n_micro = n_micro
        with self.under.interrupt.armed():
            at = self.at = resume(
                self.task,
                self.workspace,
                self.under.keeper,
                self.under.notes,
                n_micro_min=n_micro,
                resides=resides,
            )
        self.n_micro, self.epochs = at.n_micro, at.epochs
        pruned = self._reported(at) or self._train(at)
        self.seconds, self.processor_seconds = at.seconds, at.processor_seconds
        self.has_pictures = not pruned and self.under.shows(self._value(at.epochs[-1]))
        if self.has_pictures:
            self.mistakes = self._find_mistakes(at)
        cause = f"pruned after epoch {at.epochs[-1].index + 1}" if pruned else ""
        return self.result("pruned" if pruned else "complete", cause)

    def _find_mistakes(self, at: TrialRun) -> Mistakes | None:
        """The trial's mistakes, or None with a note: no picture is worth a trial that is complete."""
        try:
            with self.under.interrupt.armed(STEP_SECONDS):
                return find_mistakes(at, _N_MISTAKES)
        except Exception as error:
            self._note(f"no picture mistakes.png: {type(error).__name__}: {error}")
            return None

    def _reported(self, at: TrialRun) -> bool:
        """Make good what was saved and not reported; whether the pruner stops the trial now."""
        return any([self._report(epoch) for epoch in at.epochs][-1:])

    def _train(self, at: TrialRun) -> bool:
        """Whether the pruner stopped the trial."""
        saving = None if self.under.keeper is None else Saving(self.under.keeper)
        interrupt = self.under.interrupt
        with closing(events(at)) as training:
            while True:
                with interrupt.armed(STEP_SECONDS):
                    event = next(training, None)
                if event is None:
                    return False
                self.seconds, self.processor_seconds = at.seconds, at.processor_seconds
                if saving is not None and saving.is_due(event):
                    self._note(saving.save(at))
                if isinstance(event, Epoch):
                    self._note(at.new_complaints())
                    self.log.epoch(event)
                    if self._report(event):
                        return True
                self._go_on(event, at, saving)

    def _go_on(self, event: Step | Epoch, at: TrialRun, saving: Saving | None) -> None:
        check_time(at, self.under.trial_seconds_max)
        try:
            self.under.holder.goes_on(event)
        except Requeue:
            if saving is not None and saving.seconds < SAVE_SECONDS:
                with self.under.interrupt.armed(SAVE_SECONDS):
                    self._note(saving.save(at))
            raise

    def _report(self, epoch: Epoch) -> bool:
        """Report an epoch that was not reported yet; whether the pruner stops the trial."""
        if epoch.index not in optuna_private.reported(self.trial):
            self.trial.report(self._value(epoch), epoch.index)
        may_end = self.task.prunable and epoch.index + 1 < self.task.point.epochs
        return may_end and epoch.index + 1 == len(self.epochs) and self.under.prunes(self.trial)

    def _note(self, text: str) -> None:
        if text:
            self.under.notes.append(text)
            self.log.note(text)

    def _value(self, epoch: Epoch) -> float:
        assert epoch.val is not None, "a trial always has validation images"
        return epoch.val.as_dict()[self.workspace.study.objective]

    def result(self, outcome: str, cause: str) -> Result:
        """How the trial ended, with the epochs it came to."""
        values = [self._value(epoch) for epoch in self.epochs]
        best = objectives.best(values, self.workspace.study.direction)
        last = self.epochs[-1] if self.epochs else None
        return Result(
            outcome=outcome,
            value=values[-1] if values and outcome == "complete" else None,
            best_epoch=None if best is None else values.index(best),
            best_value=best,
            metrics=last.val.as_dict() if last and last.val else {},
            train_loss=last.train_loss if last else None,
            seconds=self.seconds,
            processor_seconds=self.processor_seconds,
            n_micro=self.n_micro,
            cause=cause,
            epochs=tuple(self.epochs),
            has_pictures=self.has_pictures,
            mistakes=self.mistakes,
        )


def _outcome(error: TrialError) -> str:
    match error:
        case Diverged():
            return "diverged"
        case OutOfMemory():
            return "out_of_memory"
        case TimedOut():
            return "timed_out"
        case _:
            raise error
