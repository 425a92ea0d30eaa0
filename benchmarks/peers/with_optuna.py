"""A search with plain Optuna: its TPE and its median pruner around the plain script's training.

Started by `benchmarks.peers.compare`.
"""

from collections.abc import Iterator
from pathlib import Path

import optuna
import torch

from benchmarks.common.plain_script import Machine, Part, epochs
from benchmarks.peers.job import Job, point_of, searched
from tlopt.spec.dimensions import Choice, Int, Log
from tlopt.spec.point import Point, seed_for


def train(
    job: Job, trial: str, point: Point, machine: Machine, part: Part | None = None
) -> Iterator[tuple[int, float]]:
    """Train `point`; yields and reports the epoch, from 0 on, and validation accuracy after it.

    A linear classifier has one report, as that of the last epoch: it is never stopped or ranked before.
    """
    seed = seed_for(job.seed, trial)
    first = job.study.budget.epochs - 1 if point.is_linear else 0 if part is None else part.first
    for epoch, accuracy in enumerate(epochs(Path(job.data), point, machine, seed, part), first):
        job.report(trial, point, epoch, accuracy)
        yield epoch, accuracy


def drawn(trial: optuna.Trial, name: str, dimension: Int | Log | Choice) -> int | float | str | None:
    """A value that the sampler suggests."""
    match dimension:
        case Int(low, high):
            return trial.suggest_int(name, low, high)
        case Log(_, high):
            return trial.suggest_float(name, dimension.drawn_low, high, log=True)
        case Choice(options):
            return trial.suggest_categorical(name, options)


def main() -> None:
    job = Job.from_arguments()
    space = job.study
    torch.set_num_threads(1)

    def objective(trial: optuna.Trial) -> float:
        params = {name: drawn(trial, name, dimension) for name, dimension in searched(space).items()}
        accuracy = 0.0
        for epoch, accuracy in train(job, str(trial.number), point_of(space, params), Machine(n_loaders=0)):
            trial.report(accuracy, epoch)
            if epoch + 1 < space.budget.epochs and trial.should_prune():
                raise optuna.TrialPruned
        return accuracy

    sampler, pruner = optuna.samplers.TPESampler(seed=job.seed), optuna.pruners.MedianPruner()
    study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)
    study.optimize(objective, timeout=job.seconds_left)


if __name__ == "__main__":
    main()
