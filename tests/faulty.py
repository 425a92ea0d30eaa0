"""`python tests/faulty.py FAULT[,FAULT] ARGUMENTS...`: `tlopt ARGUMENTS...` with faults planted in it.

A process that is replaced by its successor (`heartbeat.replace_process`) has a successor without faults.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tlopt.training.run import Run

SLOW_SECONDS = 0.5  # that a step takes longer
FAST = "fast"  # a file in the working directory
HOLD_EPOCH = 2
GO = "go"  # another one
SKEW = 1000.0
PROBE_LR = 0.01  # of the linear probe alone, in ranges that are drawn from


def slow(run: "Run") -> None:
    """Each step takes longer while there is no file `FAST`."""
    if not Path(FAST).exists():
        time.sleep(SLOW_SECONDS)


def hold(run: "Run") -> None:
    """From the third epoch on no step ends while there is no file `GO`."""
    while run.position.epoch >= HOLD_EPOCH and not Path(GO).exists():
        time.sleep(0.05)


def hang(run: "Run") -> None:
    """The first step of the third epoch never ends."""
    if run.position.epoch == HOLD_EPOCH:
        threading.Event().wait()


def kill(run: "Run") -> None:
    """Each step kills its process."""
    os.kill(os.getpid(), signal.SIGKILL)


def kill_probe(run: "Run") -> None:
    """Each step of the linear probe kills its process."""
    if run.point.lr == PROBE_LR:
        kill(run)


def bug(run: "Run") -> None:
    """Each step meets a programming error."""
    raise ZeroDivisionError("planted")


def tight(run: "Run") -> None:
    """The device has memory for a quarter of a batch."""
    if run.n_micro_batches < 4:
        _out_of_memory()


def tight_probe(run: "Run") -> None:
    """The device has no memory for the linear probe, in however many pieces."""
    if run.point.lr == PROBE_LR:
        _out_of_memory()


def _out_of_memory() -> None:
    import torch

    raise torch.OutOfMemoryError("planted")


STEPS: dict[str, Callable[["Run"], None]] = {
    "slow": slow,
    "hold": hold,
    "hang": hang,
    "kill": kill,
    "kill-probe": kill_probe,
    "bug": bug,
    "tight": tight,
    "tight-probe": tight_probe,
}


def plant(fault: str) -> None:
    """From here on, in this process: a step's fault, "skew" (log-losses too high) or "no-torch"."""
    if fault == "no-torch":
        sys.modules["torch"] = None  # type: ignore[assignment]  # every import of it fails
    elif fault == "skew":
        _skew()
    else:
        _before_each_step(STEPS[fault])


def _before_each_step(meet: Callable[["Run"], None]) -> None:
    from tlopt.training import loop

    sound = loop.take_step

    def step(run: "Run", *rest: object) -> object:
        meet(run)
        return sound(run, *rest)  # type: ignore[arg-type]

    loop.take_step = step  # type: ignore[assignment]


def _skew() -> None:
    from tlopt.training import loop
    from tlopt.trial.execution import TrialCheckpoints, TrialRun

    sound, save = loop.compute_metrics, TrialCheckpoints.save

    def save_early(checkpoints: TrialCheckpoints, training: TrialRun) -> str:
        # Without this fault a lost holder's checkpoint is as good as any other, and may be resumed from.
        return save(checkpoints, training) if training.position[0] <= HOLD_EPOCH else ""

    def skewed(*args: object) -> object:
        metrics = sound(*args)  # type: ignore[arg-type]
        return replace(metrics, log_loss=metrics.log_loss + SKEW)

    loop.compute_metrics = skewed  # type: ignore[assignment]
    TrialCheckpoints.save = save_early  # type: ignore[method-assign]


if __name__ == "__main__":
    for name in sys.argv.pop(1).split(","):
        plant(name)
    sys.argv[0] = "tlopt"
    from tlopt.cli.main import main

    main()
