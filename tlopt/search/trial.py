"""The one bridge between torch and Optuna: a point is trained, its epochs reported, its end decided."""

import contextlib
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna

from tlopt.errors import Diverged, OutOfMemory, TrialError
from tlopt.search.bench import Bench, images_for, release_memory, save_weights, start_run
from tlopt.search.interrupt import Interrupt
from tlopt.search.log import TrialLog
from tlopt.search.task import Task
from tlopt.training import metrics
from tlopt.training.fit import Epoch, fit
from tlopt.training.history import History, history_file


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a trial ended; `value` is the objective after the last epoch, None where there was none."""

    outcome: str  # complete, pruned, diverged or out_of_memory
    value: float | None
    best_epoch: int | None  # from 0
    best_value: float | None
    metrics: dict[str, float]
    train_loss: float | None
    seconds: float
    cause: str
    epochs: tuple[Epoch, ...]

    def as_dict(self) -> dict[str, Any]:
        """For the trial's record; the value is Optuna's own."""
        return {
            "outcome": self.outcome,
            "best_epoch": self.best_epoch,
            "best_value": self.best_value,
            "metrics": self.metrics,
            "train_loss": self.train_loss,
            "seconds": round(self.seconds, 3),
            "cause": self.cause,
        }


def run_trial(
    trial: optuna.Trial, task: Task, bench: Bench, *, log: TrialLog, interrupt: Interrupt
) -> Result:
    """Train `task` and report each epoch; returns how it ended, with its weights written if it completed.

    Args:
        trial: running; it is not told here.
        interrupt: may end an epoch with `Interrupted`.
    """
    start = time.perf_counter()
    epochs: list[Epoch] = []
    try:
        pruned = _train(trial, task, bench, epochs, log, interrupt)
    except TrialError as error:
        outcome, cause = _outcome(error), str(error)
        del error  # its traceback holds the networks
        release_memory(bench.device)
        return _result(bench, epochs, outcome, start, cause=cause)
    cause = f"pruned after epoch {epochs[-1].index}" if pruned else ""
    return _result(bench, epochs, "pruned" if pruned else "complete", start, cause=cause)


def _train(
    trial: optuna.Trial, task: Task, bench: Bench, epochs: list[Epoch], log: TrialLog, interrupt: Interrupt
) -> bool:
    """Fill `epochs` with the task's epochs, reporting each; True if the pruner stopped it."""
    reported = set(trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values)
    with closing(_run(task, bench)) as training:
        for epoch in interrupt.guard(training):
            epochs.append(epoch)
            log.epoch(epoch)
            if epoch.index in reported:
                continue  # a trial handed back and taken up again repeats itself
            trial.report(_value(bench, epoch), epoch.index)
            if task.prunable and epoch.index + 1 < task.point.epochs and trial.should_prune():
                return True
    return False


def _run(task: Task, bench: Bench) -> Generator[Epoch]:
    """The task's networks trained side by side, one mean epoch at a time; in the end the weights are written.

    Everything that takes time is in here, decoding and building included, so that a stop can end it.
    """
    images = images_for(bench, task.point)
    splits = [bench.data.splits[index] for index in task.splits]
    runs = [
        start_run(bench, task.point, seed=seed, train=split.train)
        for seed, split in zip(task.seeds, splits, strict=True)
    ]
    epochs = []
    with contextlib.ExitStack() as stack:
        fits = [
            stack.enter_context(closing(fit(run, images, split.train, split.val)))
            for run, split in zip(runs, splits, strict=True)
        ]
        for rows in zip(*fits, strict=True):
            epochs.append(_mean(rows))
            yield epochs[-1]
    if task.weights_file is not None:
        save_weights(bench, runs[0], task.weights_file)
        History.of(epochs).write(history_file(task.weights_file))


def _mean(rows: Sequence[Epoch]) -> Epoch:
    """One epoch for several runs: means, the sum of their confusions and seconds."""
    return Epoch(
        index=rows[0].index,
        train_loss=float(np.mean([row.train_loss for row in rows])),
        train_accuracy=float(np.mean([row.train_accuracy for row in rows])),
        val=metrics.mean([row.val for row in rows if row.val is not None]),
        confusion=np.sum([row.confusion for row in rows if row.confusion is not None], axis=0),
        seconds=sum(row.seconds for row in rows),
    )


def _value(bench: Bench, epoch: Epoch) -> float:
    assert epoch.val is not None, "a trial always has validation images"
    return epoch.val.as_dict()[bench.study.objective]


def _outcome(error: TrialError) -> str:
    match error:
        case Diverged():
            return "diverged"
        case OutOfMemory():
            return "out_of_memory"
        case _:
            raise error


def _result(bench: Bench, epochs: list[Epoch], outcome: str, start: float, *, cause: str) -> Result:
    values = [_value(bench, epoch) for epoch in epochs]
    best = min if bench.study.direction == "minimize" else max
    last = epochs[-1] if epochs else None
    return Result(
        outcome=outcome,
        value=values[-1] if values and outcome == "complete" else None,
        best_epoch=values.index(best(values)) if values else None,
        best_value=best(values) if values else None,
        metrics=last.val.as_dict() if last and last.val else {},
        train_loss=last.train_loss if last else None,
        seconds=time.perf_counter() - start,
        cause=cause,
        epochs=tuple(epochs),
    )
