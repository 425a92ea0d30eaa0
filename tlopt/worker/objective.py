"""The bridge between torch and Optuna: train a trial, report its epochs and determine its outcome."""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from typing import Any

import optuna

from tlopt.errors import Diverged, OutOfMemory, OutOfReach, TimedOut, TrialError
from tlopt.model.linear_head import LinearFit
from tlopt.spec import objectives
from tlopt.spec.outcome import Outcome
from tlopt.spec.trial_spec import TrialSpec, curve_epochs
from tlopt.storage import optuna_private
from tlopt.training.devices import release_memory
from tlopt.training.loop import Epoch, Step
from tlopt.trial.execution import (
    Mistakes,
    TrialCheckpoints,
    TrialRun,
    check_trial_time,
    find_mistakes,
    resume_training,
    training_events,
)
from tlopt.trial.pruning import PruningRun, pruning_run_events, resume_pruning_run
from tlopt.trial.workspace import Workspace
from tlopt.worker import front
from tlopt.worker.pruning import Pause
from tlopt.worker.shutdown import SAVE_SECONDS, STEP_SECONDS, Interrupt
from tlopt.worker.trial_log import TrialLog

_N_MISTAKES = 12


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """The result of a trial; `value` is the objective after the last epoch, None unless complete."""

    outcome: Outcome
    value: float | None
    best_epoch: int | None  # from 0
    best_value: float | None
    metrics: dict[str, float]
    train_loss: float | None
    train_accuracies: dict[int, float]  # by epoch, from 1; empty unless the spec asks for them
    seconds: float  # of work, over all holders of the trial
    processor_seconds: float  # processor time, over all holders of the trial
    n_micro_batches: int  # maximum number of micro-batches per batch
    cause: str
    epochs: tuple[Epoch, ...]
    linear: tuple[LinearFit, ...]  # of a linear classifier, one for each split
    has_pictures: bool  # whether pictures of the trial should be drawn
    mistakes: Mistakes | None  # for one of the pictures; None if not available
    inference_cost: dict[str, float] | None = None  # of a pruned network; None: as its point says

    def as_dict(self) -> dict[str, Any]:
        """Plain values for the trial's record; Optuna stores the value itself."""
        return {
            "outcome": self.outcome,
            "best_epoch": self.best_epoch,
            "best_value": self.best_value,
            "metrics": self.metrics,
            "train_loss": self.train_loss,
            "seconds": round(self.seconds, 3),
            "processor_seconds": round(self.processor_seconds, 3),
            "n_micro": self.n_micro_batches,
            "cause": self.cause,
            **({"train_accuracies": self.train_accuracies} if self.train_accuracies else {}),
            **({"inference_cost": self.inference_cost} if self.inference_cost else {}),
            **({"linear": [asdict(fit) for fit in self.linear]} if self.linear else {}),
        }


class Requeue(Exception):
    """The trial must be requeued; the message says why."""


@dataclass(frozen=True, kw_only=True)
class TrialContext:
    """Everything that a worker provides for the training of a trial."""

    interrupt: Interrupt
    on_step: Callable[[Step | Epoch, float], None]  # called after every step with the trial's seconds of
    # work so far; may raise Requeue or LeaseLost
    checkpoints: TrialCheckpoints | None  # None: none are written
    should_prune: Callable[[optuna.Trial], bool]  # called after each report; may raise Pause
    trial_seconds_max: float  # 0: no limit
    wants_pictures: Callable[[float], bool]  # called with the value of a complete trial
    notes: list[str]  # notes for the trial's record; appended to
    log: TrialLog


def run_trial(
    trial: optuna.Trial, spec: TrialSpec, workspace: Workspace, *, context: TrialContext
) -> TrialResult:
    """Train a trial from its last checkpoint, report each epoch, and return its result.

    Args:
        trial: a running trial; its final state is not set here.

    Raises:
        Requeue, LeaseLost: the trial continues elsewhere; if time allowed, it was saved.
        Pause: the trial waits until it is promoted; it was saved.
        Interrupted: the trial was abandoned in the middle of a step; the last checkpoint is valid.
    """
    n_micro_batches, allow_resident = 1, True
    while True:
        attempt = _Attempt(trial, spec, workspace, context)
        try:
            return attempt.run(n_micro_batches, allow_resident=allow_resident)
        except TrialError as error:
            outcome, cause = _outcome(error), str(error)
        # Only here, where no traceback refers to the networks any more.
        attempt.training = None
        out_of_memory = outcome == Outcome.OUT_OF_MEMORY
        left = out_of_memory and allow_resident and workspace.free_device_memory()
        release_memory(workspace.device)
        if left:  # data kept on the device for speed must not decide a trial
            n_micro_batches, allow_resident = attempt.n_micro_batches, False
            context.notes.append(f"out of memory: images and features are moved off the device ({cause})")
            continue
        if not out_of_memory or 2 * attempt.n_micro_batches > spec.point.batch_size // 2:
            return attempt.result(outcome, cause)
        n_micro_batches = 2 * attempt.n_micro_batches
        context.notes.append(f"out of memory: batches are split into {n_micro_batches} from now on ({cause})")


@dataclass
class _Attempt:
    """One attempt to train a trial; `training` refers to the networks."""

    trial: optuna.Trial
    spec: TrialSpec
    workspace: Workspace
    context: TrialContext
    training: TrialRun | PruningRun | None = None
    n_micro_batches: int = 1
    seconds: float = 0.0
    processor_seconds: float = 0.0
    epochs: Sequence[Epoch] = ()
    has_pictures: bool = False
    mistakes: Mistakes | None = None

    def run(self, n_micro_batches: int, *, allow_resident: bool) -> TrialResult:
        self.n_micro_batches = n_micro_batches
        resume = resume_training if self.spec.pruned is None else resume_pruning_run
        with self.context.interrupt.interruptible():
            training = self.training = resume(
                self.spec,
                self.workspace,
                self.context.checkpoints,
                self.context.notes,
                n_micro_batches_min=n_micro_batches,
                allow_resident=allow_resident,
            )
        self.n_micro_batches, self.epochs = training.n_micro_batches, training.epochs
        pruned = self._reported(training) or self._train(training)
        self.seconds, self.processor_seconds = training.seconds, training.processor_seconds
        if isinstance(training, PruningRun):
            return self._pruning_result(training)
        self.has_pictures = not pruned and self.context.wants_pictures(self._value(training.epochs[-1]))
        if self.has_pictures:
            self.mistakes = self._find_mistakes(training)
        cause = f"pruned after epoch {training.epochs[-1].index + 1}" if pruned else ""
        return self.result(Outcome.PRUNED if pruned else Outcome.COMPLETE, cause)

    def _pruning_result(self, training: PruningRun) -> TrialResult:
        """The result of a pruning, which has a value if a round stayed within the bound."""
        self._note(training.ending)
        kept = training.pruning.kept
        if kept.index == 0:
            return self.result(Outcome.PRUNED, training.ending)
        metrics = kept.val.as_dict()
        return replace(
            self.result(Outcome.COMPLETE, ""),
            value=metrics[self.workspace.study.objective],
            metrics=metrics,
            best_epoch=None,
            best_value=None,
            inference_cost=kept.cost.as_dict(),
        )

    def _find_mistakes(self, training: TrialRun) -> Mistakes | None:
        """The trial's mistakes, or None with a note: a picture must not fail a finished trial."""
        try:
            with self.context.interrupt.interruptible(STEP_SECONDS):
                return find_mistakes(training, _N_MISTAKES)
        except Exception as error:
            self._note(f"no picture mistakes.png: {type(error).__name__}: {error}")
            return None

    def _reported(self, training: TrialRun | PruningRun) -> bool:
        """Report epochs that were saved but not reported; return whether the trial is pruned now."""
        return any([self._report(epoch) for epoch in training.epochs][-1:])

    def _train(self, training: TrialRun | PruningRun) -> bool:
        """Train to the end; return whether the trial was pruned."""
        checkpoints, interrupt = self.context.checkpoints, self.context.interrupt
        if checkpoints is not None:
            checkpoints.restart_timer()
        events = (
            pruning_run_events(training) if isinstance(training, PruningRun) else training_events(training)
        )
        with closing(events) as progress:
            while True:
                with interrupt.interruptible(STEP_SECONDS):
                    event = next(progress, None)
                if event is None:
                    return False
                self.seconds, self.processor_seconds = training.seconds, training.processor_seconds
                if checkpoints is not None and checkpoints.is_due(event):
                    self._note(checkpoints.save(training))
                if isinstance(event, Epoch):
                    for said in dict.fromkeys(fit.note or fit.words for fit in event.linear):
                        self._note(said)
                    self._note(training.new_cache_warning())
                    self.context.log.epoch(event)
                    try:
                        if self._report(event):
                            return True
                    except Pause:
                        self._save_to_pause(training)
                        raise
                self._check_stop(event, training)

    def _save_to_pause(self, training: TrialRun | PruningRun) -> None:
        """Save the trial; if that fails, it begins anew once it is promoted, with the same result."""
        checkpoints = self.context.checkpoints
        if checkpoints is not None:
            with self.context.interrupt.interruptible(SAVE_SECONDS):
                self._note(checkpoints.save(training))

    def _check_stop(self, event: Step | Epoch, training: TrialRun | PruningRun) -> None:
        checkpoints = self.context.checkpoints
        check_trial_time(training, self.context.trial_seconds_max)
        try:
            self.context.on_step(event, training.seconds)
        except Requeue:
            if checkpoints is not None and checkpoints.cost_seconds < SAVE_SECONDS:
                with self.context.interrupt.interruptible(SAVE_SECONDS):
                    self._note(checkpoints.save(training))
            raise

    def _report(self, epoch: Epoch) -> bool:
        """Report an epoch unless it has been already; return whether the trial is pruned."""
        if front.has_several_objectives(self.trial):
            front.report(self.trial, self._value(epoch), epoch.index)
        elif epoch.index not in optuna_private.reported_values(self.trial):
            self.trial.report(self._value(epoch), epoch.index)
        may_end = self.spec.prunable and epoch.index + 1 < self.spec.n_reports
        return may_end and epoch.index + 1 == len(self.epochs) and self.context.should_prune(self.trial)

    def _note(self, text: str) -> None:
        if text:
            self.context.notes.append(text)
            self.context.log.note(text)

    def _value(self, epoch: Epoch) -> float:
        assert epoch.val is not None, "a trial always has validation images"
        return epoch.val.as_dict()[self.workspace.study.objective]

    def result(self, outcome: Outcome, cause: str) -> TrialResult:
        """The result with the epochs finished so far."""
        values = [self._value(epoch) for epoch in self.epochs]
        best = objectives.best(values, self.workspace.study.direction)
        last = self.epochs[-1] if self.epochs else None
        return TrialResult(
            outcome=outcome,
            value=values[-1] if values and outcome == Outcome.COMPLETE else None,
            best_epoch=None if best is None else values.index(best),
            best_value=best,
            metrics=last.val.as_dict() if last and last.val else {},
            train_loss=last.train_loss if last else None,
            train_accuracies=self._train_accuracies(),
            seconds=self.seconds,
            processor_seconds=self.processor_seconds,
            n_micro_batches=self.n_micro_batches,
            cause=cause,
            epochs=tuple(self.epochs),
            linear=last.linear if last else (),
            has_pictures=self.has_pictures,
            mistakes=self.mistakes,
        )

    def _train_accuracies(self) -> dict[int, float]:
        if not self.spec.keeps_train_accuracy or not self.epochs:
            return {}
        return {n: round(self.epochs[n - 1].train_accuracy, 4) for n in curve_epochs(len(self.epochs))}


def _outcome(error: TrialError) -> Outcome:
    match error:
        case Diverged():
            return Outcome.DIVERGED
        case OutOfMemory():
            return Outcome.OUT_OF_MEMORY
        case TimedOut():
            return Outcome.TIMED_OUT
        case OutOfReach():
            return Outcome.INFEASIBLE
        case _:
            raise error
